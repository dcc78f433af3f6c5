"""Samples of two servers: is one slower by more than is allowed, and do we know?

The method is that of corral/bench/compare.py: Welch's interval at 95% of the difference of means.
"""

import bisect
import math
import statistics

# Student's t for an interval of 95% on both sides, by degrees of freedom.
DEGREES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 120)
T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.179, 2.145, 2.120, 2.101, 2.086, 2.060, 2.042, 2.021, 2.000, 1.980),
)
KEPT, SLOWER, OPEN = "kept", "slower", "open"
# Means that are equal on paper differ by so much of themselves after sums and products of floats.
ROUNDING = 1e-9
# An interval this narrow, as a share of epsilon, is as good as a point.
NARROW = 0.25


def margin(a, b):
    """Half of the interval of the difference of two means, of two samples each at least.

    Degrees of freedom are Welch's and Satterthwaite's; between two of the table the wider holds.
    """
    errors = [statistics.variance(samples) / len(samples) for samples in (a, b)]
    total = sum(errors)
    parts = [error**2 / (len(samples) - 1) for error, samples in zip(errors, (a, b))]
    # Of errors so small that their squares are nothing, the fewest degrees hold.
    return student(total**2 / sum(parts) if sum(parts) else 1) * math.sqrt(total)


def student(degrees):
    return T[max(0, bisect.bisect_right(DEGREES, degrees) - 1)]


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
