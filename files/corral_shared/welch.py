"""Welch's interval at 95%: whether two means differ by more than the spread of their samples."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Sequence

# Student's t for an interval of 95% on both sides, by degrees of freedom.
_DEGREES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 60, 120)
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.179, 2.145, 2.120, 2.101, 2.086, 2.060, 2.042, 2.021, 2.000, 1.980),
)


def margin(a: Sequence[float], b: Sequence[float]) -> float:
    """Half the width of the interval of the difference of two means; needs two samples of each.

    Degrees of freedom are Welch's and Satterthwaite's; between two of the table the fewer are used,
    which gives the wider interval.
    """
    errors = [statistics.variance(samples) / len(samples) for samples in (a, b)]
    total = sum(errors)
    parts = [error**2 / (len(samples) - 1) for error, samples in zip(errors, (a, b))]
    # If the errors are so small that their squares are 0, use the fewest degrees.
    return student(total**2 / sum(parts) if sum(parts) else 1) * math.sqrt(total)


def student(degrees: float) -> float:
    """Student's t of a two-sided interval of 95%."""
    return _T[max(0, bisect.bisect_right(_DEGREES, degrees) - 1)]
