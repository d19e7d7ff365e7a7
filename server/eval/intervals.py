"""Rates with the interval they are known to. Pure, and seeded where it draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["Rate", "resampled", "share", "wilson"]

_Z: Final = 1.96
"""Of 95 %."""
_DRAWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A figure, its 95 % interval and how many things it is of."""

    value: float
    low: float
    high: float
    n: int


def wilson(count: int, of: int) -> Rate:
    """The share `count` of `of`, with Wilson's interval (1927), which holds for few and for rates near 0 or 1."""
    if not of:
        return Rate(math.nan, 0.0, 1.0, 0)
    p, z = count / of, _Z
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return Rate(p, max(0.0, centre - half), min(1.0, centre + half), of)


def resampled(counts: Sequence[float], sizes: Sequence[float]) -> Rate:
    """`counts` over `sizes`, as word errors over words clip by clip; the interval by drawing clips anew, 2,000 times, with a fixed seed."""
    total = float(np.sum(sizes))
    if not total:
        return Rate(math.nan, 0.0, math.inf, len(counts))
    pairs = np.stack([np.asarray(counts, float), np.asarray(sizes, float)])  # (2, clips)
    chosen = np.random.default_rng(0).integers(0, len(counts), (_DRAWS, len(counts)))
    errors, words = pairs[:, chosen].sum(axis=2)  # (draws,) each
    drawn = words > 0
    rates = errors[drawn] / words[drawn]
    return Rate(float(np.sum(counts)) / total, float(np.percentile(rates, 2.5)), float(np.percentile(rates, 97.5)), len(counts))


def share(count: int, of: int) -> str:
    """Per cent, with Wilson's 95 % interval and n: `  4.8 % ( 2.4- 9.1) n=165`."""
    if not of:
        return "    - n=0"
    rate = wilson(count, of)
    return f"{100 * rate.value:5.1f} % ({100 * rate.low:4.1f}-{100 * rate.high:4.1f}) n={of}"
