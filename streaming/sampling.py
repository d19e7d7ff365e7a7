"""From logits to a token: repetition penalty, temperature, top-p. Seeded, so that a replayed session says the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_p` keeps the likeliest tokens that together have this probability
    (Holtzman et al. 2020); `repetition_penalty` divides the positive logits of tokens already said (Keskar et al. 2019). Raises ValueError
    for values outside their range. The defaults were judged by ear and eye on spoken questions with SmolLM2-135M."""

    temperature: float = 0.3
    top_p: float = 0.9
    repetition_penalty: float = 1.1

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature {self.temperature} is not in 0 to 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is not in 0 to 1")
        if self.repetition_penalty < 1:
            raise ValueError(f"repetition_penalty {self.repetition_penalty} is below 1")


class Sampler:
    """Chooses the tokens of one session."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)

    def choose(self, logits: Tensor, said: Sequence[int], sampling: Sampling) -> int:
        """A token id, from `logits` [vocabulary] and the ids this reply already has. Raises ValueError where the logits are no numbers."""
        scores = logits.float()
        if said and sampling.repetition_penalty > 1:
            ids = torch.tensor(sorted(set(said)))
            repeated = scores[ids]
            scores = scores.clone()
            scores[ids] = torch.where(repeated > 0, repeated / sampling.repetition_penalty, repeated * sampling.repetition_penalty)
        best = int(scores.argmax())
        if not torch.isfinite(scores[best]):
            raise ValueError("the language model's logits are not finite")
        if sampling.temperature == 0:
            return best
        # The 64 likeliest hold all the mass that top_p would keep at any sensible temperature, and sorting 49,152 costs a millisecond.
        top, ids = torch.topk(scores / sampling.temperature, min(64, len(scores)))
        probabilities = torch.softmax(top, dim=0)
        probabilities[probabilities.cumsum(0) - probabilities > sampling.top_p] = 0
        return int(ids[torch.multinomial(probabilities, 1, generator=self._generator)])
