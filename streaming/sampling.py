"""From logits to a token: repetition penalty, temperature, top-p, min-p. Seeded, so that a replayed session says the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Sampler", "Sampling"]

_CANDIDATES: Final = 64
"""Only the 64 likeliest tokens are drawn from (a top-k): at the temperatures of speech they hold all the mass that top-p would keep, and
sorting a vocabulary costs more than a layer of the model."""


_ROWS: Final = 64
"""Of the table that a vocabulary is laid out in to find them: the highest of 64 scores each are looked at first."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_p` keeps the likeliest tokens that together have this probability
    (Holtzman et al. 2020), `min_p` those with at least this fraction of the likeliest one's (Nguyen et al. 2024); `repetition_penalty`
    divides the positive logits of tokens already said and multiplies the negative ones (Keskar et al. 2019). Raises ValueError for values
    outside their range. The defaults were judged on 20 spoken questions with SmolLM2-135M (`benchmarks/decoder.py --samples`)."""

    temperature: float = 0.3
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature {self.temperature} is not in 0 to 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is not above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p {self.min_p} is not in 0 to 1")
        if not 1 <= self.repetition_penalty <= 2:
            raise ValueError(f"repetition_penalty {self.repetition_penalty} is not in 1 to 2")


class Sampler:
    """Chooses the tokens of one session; the same seed and the same logits give the same tokens."""

    def __init__(self, seed: int) -> None:
        # torch wants 64 bits, signed or not; any Python integer may be a seed here.
        self._generator = torch.Generator().manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)

    def choose(self, logits: Tensor, said: Sequence[int], sampling: Sampling) -> int:
        """A token id, from `logits` [vocabulary] and the ids this reply already has. Raises ValueError where the logits are no numbers."""
        scores = _penalised(logits.float(), said, sampling.repetition_penalty)
        if sampling.temperature == 0:
            best = int(scores.argmax())
            _check(scores[best])
            return best
        scores = scores / sampling.temperature
        top, ids = _likeliest(scores, min(_CANDIDATES, len(scores)))
        _check(top[0])
        # Probabilities are of the whole vocabulary, not of the candidates alone.
        probabilities = torch.exp(top - torch.logsumexp(scores, dim=0))
        probabilities[probabilities.cumsum(0) - probabilities >= sampling.top_p] = 0
        probabilities[probabilities < sampling.min_p * probabilities[0]] = 0
        return int(ids[torch.multinomial(probabilities, 1, generator=self._generator)])


def _penalised(scores: Tensor, said: Sequence[int], penalty: float) -> Tensor:
    if not said or penalty == 1:
        return scores
    ids = torch.tensor(sorted(set(said)))
    repeated = scores[ids]
    return scores.index_copy(0, ids, torch.where(repeated > 0, repeated / penalty, repeated * penalty))


def _likeliest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of `scores` [vocabulary], highest first, and their places. They lie in the `count` columns whose highest are
    highest, so no more than those is sorted: half the time of sorting 128,000."""
    table = functional.pad(scores, (0, -len(scores) % _ROWS), value=-torch.inf).view(_ROWS, -1)
    best = table.amax(0).topk(min(count, table.shape[1])).indices
    top, places = table[:, best].flatten().topk(count)
    return top, best[places % len(best)] + places // len(best) * table.shape[1]


def _check(best: Tensor) -> None:
    if not torch.isfinite(best):
        raise ValueError("the language model's logits are not finite")
