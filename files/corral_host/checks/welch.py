"""Samples of two servers: is one slower by more than is allowed, and do we know?"""

import math
import statistics

from corral_shared.welch import margin, student

KEPT, SLOWER, OPEN = "kept", "slower", "open"
# Means that are equal on paper differ by so much of themselves after sums and products of floats.
ROUNDING = 1e-9
# An interval this narrow, as a share of epsilon, is as good as a point.
NARROW = 0.25


def is_narrow(samples, epsilon):
    """Whether a mean is known well enough to compare others with it."""
    half = student(len(samples) - 1) * statistics.stdev(samples) / math.sqrt(len(samples))
    return half <= epsilon / 2 * statistics.fmean(samples)


def verdict(new, baseline, epsilon, last):
    """Whether new samples keep (1 - epsilon) of the baseline's mean; OPEN while nobody knows.

    Exactly as much is kept. + last: no more samples will come, so that an interval much narrower
    than epsilon is judged by its middle
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
    """Beyond the spread of both."""
    return statistics.fmean(new) - statistics.fmean(old) > margin(new, old)
