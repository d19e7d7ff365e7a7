"""Rotary position embedding (Su et al. 2021) as checkpoints stretch it: which part of a head is turned, and how fast.

Whatever a stretching is called, it comes down to a number by which each frequency is divided and a gain of cosines and sines.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from streaming.models.config_values import number_of

__all__ = ["Rope", "rope_of"]

_KINDS: Final = ("default", "linear", "llama3", "longrope", "yarn")

_LONG_ROPE: Final = ("longrope", "su", "yarn")
"""What Phi-3's configs have called it, one after the other."""


@dataclass(frozen=True, slots=True)
class Rope:
    """The first `width` numbers of a head are turned, the others are not. Frequency i is `base ** (-2 i / width) / divisors[i]`, the base
    being the model's; no divisors are all 1. Raises ValueError where they do not fit together."""

    width: int
    divisors: tuple[float, ...] = ()
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.width % 2 or self.width < 2:
            raise ValueError(
                f"{self.width} numbers of a head can't be turned: rotary embedding pairs their halves, so the width is not odd"
            )
        if self.divisors and (len(self.divisors) != self.width // 2 or min(self.divisors) <= 0):
            raise ValueError(f"{len(self.divisors)} rope factors for {self.width // 2} frequencies, or one is not above zero")

    def rotations(self, base: float, positions: int, head_width: int, start: int = 0) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of positions from `start` on, each float32 [positions, 1, head_width], the first half of the sines
        negated; 1 and 0 where nothing is turned."""
        exponents = torch.arange(0, self.width, 2, dtype=torch.float32) / self.width
        frequencies = 1 / (torch.tensor(self.divisors or (1.0,), dtype=torch.float32) * base**exponents)
        angles = torch.outer(torch.arange(start, start + positions, dtype=torch.float32), frequencies)[:, None]
        cosines, sines = angles.cos() * self.gain, angles.sin() * self.gain
        rest = torch.zeros(positions, 1, head_width - self.width)
        return torch.cat((cosines, cosines, rest + 1), dim=-1), torch.cat((-sines, sines, rest), dim=-1)


def rope_of(config: Mapping[str, object], head_width: int, default_base: float, positions: int) -> tuple[float, Rope]:
    """Base and rope of a decoder's config, old (`rope_theta`, `rope_scaling`) or new (`rope_parameters`). LongRoPE has two sets of
    divisors: the short one serves where no more `positions` are wanted than it was trained on first. A sequence is never turned anew, so
    the choice holds for all its positions. Raises ValueError for a kind that is not known here."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ValueError(f"rope_parameters is {scaling!r}, not an object")
    values = {**config, **scaling}
    kind = values.get("rope_type", values.get("type", "default"))
    if config.get("model_type") == "phi3" and kind in _LONG_ROPE:
        kind = "longrope"
    if kind not in _KINDS:
        raise ValueError(f"its rotary embedding is stretched by {kind!r}, which this decoder does not do (known: {', '.join(_KINDS)})")
    width = int(head_width * number_of(values, "partial_rotary_factor", float, 1.0))
    base = number_of(values, "rope_theta", float, default_base)
    trained = number_of(config, "max_position_embeddings", float)
    original = number_of(values, "original_max_position_embeddings", float, trained)
    match kind:
        case "linear":
            return base, Rope(width, (number_of(values, "factor", float),) * (width // 2))
        case "llama3":
            return base, Rope(width, _llama3(width, base, original, values))
        case "yarn":
            factor = number_of(values, "factor", float, trained / original)
            return base, Rope(width, _yarn(width, base, original, factor, values), _yarn_gain(factor, values))
        case "longrope":
            divisors = _numbers(values, "long_factor" if positions > original else "short_factor")
            factor = number_of(values, "factor", float, trained / original)
            gain = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
            return base, Rope(width, divisors, number_of(values, "attention_factor", float, gain))
        case _:
            return base, Rope(width)


def _llama3(width: int, base: float, original: float, values: Mapping[str, object]) -> tuple[float, ...]:
    """Llama 3.1: wavelengths that went round often in training keep their frequency, those that did not go round are slowed by `factor`,
    between them it changes smoothly."""
    factor, low, high = (number_of(values, name, float) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    divisors = []
    for index in range(width // 2):
        rounds = original / (2 * math.pi * base ** (2 * index / width))
        kept = min(1.0, max(0.0, (rounds - low) / (high - low)))
        divisors.append(1 / (kept + (1 - kept) / factor))
    return tuple(divisors)


def _yarn(width: int, base: float, original: float, factor: float, values: Mapping[str, object]) -> tuple[float, ...]:
    """YaRN (Peng et al. 2023): as Llama 3.1's, but that the change between frequencies is even in their numbers."""
    rounds = (number_of(values, "beta_fast", float, 32.0), number_of(values, "beta_slow", float, 1.0))
    first, last = (width * math.log(original / (2 * math.pi * each)) / (2 * math.log(base)) for each in rounds)
    if values.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    slowed = (min(1.0, max(0.0, (index - first) / ((last - first) or 0.001))) for index in range(width // 2))
    return tuple(1 / (share / factor + 1 - share) for share in slowed)


def _yarn_gain(factor: float, values: Mapping[str, object]) -> float:
    def gain(scale: float) -> float:
        return 1 + 0.1 * scale * math.log(factor) if factor > 1 else 1.0

    usual = gain(1.0)
    if values.get("mscale") and values.get("mscale_all_dim"):
        usual = gain(number_of(values, "mscale", float)) / gain(number_of(values, "mscale_all_dim", float))
    return number_of(values, "attention_factor", float, usual)


def _numbers(values: Mapping[str, object], key: str) -> tuple[float, ...]:
    value = values.get(key)
    if not isinstance(value, Sequence) or not all(isinstance(item, int | float) for item in value):
        raise ValueError(f"{key} is not a list of numbers")
    return tuple(float(item) for item in value)
