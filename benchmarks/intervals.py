"""A rate as the benches print it."""

import math

__all__ = ["share"]


def share(count: int, of: int) -> str:
    """Per cent, with Wilson's 95 % interval and n: `  4.8 % ( 2.4- 9.1) n=165`."""
    if not of:
        return "    - n=0"
    p, z = count / of, 1.96
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{100 * p:5.1f} % ({100 * max(0.0, centre - half):4.1f}-{100 * min(1.0, centre + half):4.1f}) n={of}"
