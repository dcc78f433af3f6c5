"""Decide by samples of two servers whether one is slower than allowed, or whether that is open."""

import math
import statistics

from corral_shared.welch import margin, student

KEPT, SLOWER, OPEN = "kept", "slower", "open"
# Relative error by which equal means may differ after sums and products of floats.
ROUNDING = 1e-9
# An interval this narrow, as a share of epsilon, counts as a point.
NARROW = 0.25


def is_narrow(samples, epsilon):
    """Whether a mean is known well enough for a baseline."""
    half = student(len(samples) - 1) * statistics.stdev(samples) / math.sqrt(len(samples))
    return half <= epsilon / 2 * statistics.fmean(samples)


def verdict(new, baseline, epsilon, last):
    """Whether the new mean is at least (1 - epsilon) of the baseline's; OPEN if that is uncertain.

    Exactly as much is KEPT. + last: no more samples follow, so an interval much narrower than
    epsilon is judged by its middle
    """
    floor = [(1 - epsilon) * one for one in baseline]
    above, half = statistics.fmean(new) - statistics.fmean(floor), margin(new, floor)
    slack = ROUNDING * statistics.fmean(baseline)
    if last and half <= NARROW * epsilon * statistics.fmean(baseline):
        half = 0.0
    if above >= half - slack:
        return KEPT
    return SLOWER if above < -half else OPEN


def is_faster(new, old):
    """Whether the new mean is higher, beyond the spread of both."""
    return statistics.fmean(new) - statistics.fmean(old) > margin(new, old)
