"""What the projector hears, as words: its pieces written out, and how many of them are wrong. And what the language model makes of its rows
beside what it makes of the text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from server.eval.words import word_distance
from streaming.models.llama import Llama, Stretch
from streaming.models.pocket_projector import PocketProjector

__all__ = ["Agreement", "Errors", "agreement", "transcribed", "word_errors"]


@dataclass(frozen=True, slots=True)
class Errors:
    """`wrong` of `words`, in `clips`."""

    clips: int
    words: int
    wrong: int

    @property
    def rate(self) -> float:
        """Wrong words of each word said."""
        return self.wrong / max(1, self.words)


def transcribed(projector: PocketProjector, tokenizer: Tokenizer, frames: Tensor) -> str:
    """The words in the frames (n, frame width) of a whole sound."""
    stream = projector.stream()
    stream.provisional(frames)
    text: str = tokenizer.decode(stream.tail_tokens)
    return text.strip()


def word_errors(texts: Sequence[tuple[str, str]], normalise: Callable[[str], str]) -> Errors:
    """Of pairs of what was heard and what was said."""
    pairs = [(normalise(heard).split(), normalise(said).split()) for heard, said in texts]
    return Errors(len(pairs), sum(len(said) for _, said in pairs), sum(word_distance(heard, said) for heard, said in pairs))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether the first token of the reply is the same, and how far the next-token distributions over the text's reply lie apart
    (Kullback-Leibler divergence from the text's, nats a token)."""

    first: bool
    divergence: float


def agreement(
    model: Llama, before: Sequence[int], text: Sequence[int], rows: Tensor, after: Sequence[int], ends: Sequence[int], most: int = 32
) -> Agreement:
    """Of a prompt that is `before`, a caller's turn and `after`: the turn once as `text` and once as `rows` [n, width]. The reply is the
    likeliest one to the text, up to `most` tokens or one of `ends`."""
    reply: list[int] = []
    prompt = [*before, *text, *after]
    cache = model.new_cache(len(prompt) + most)
    logits = model.logits(prompt, 0, cache)
    while len(reply) < most:
        reply.append(int(logits.argmax()))
        if reply[-1] in ends or len(reply) == most:
            break
        logits = model.logits(reply[-1:], len(prompt) + len(reply) - 1, cache)
    of_text = _following(model, [*prompt, *reply[:-1]], None, len(reply))
    of_sound = _following(model, [*before, *[-1] * len(rows), *after, *reply[:-1]], rows, len(reply))
    divergence = (of_text.exp() * (of_text - of_sound)).sum(-1).mean()
    return Agreement(int(of_sound[0].argmax()) == reply[0], float(divergence))


def _following(model: Llama, tokens: Sequence[int], rows: Tensor | None, count: int) -> Tensor:
    """Log-probabilities of what follows each of the last `count` tokens, [count, vocabulary]."""
    stretch = Stretch(tokens, 0, model.new_cache(len(tokens)), embedded=rows)
    return torch.log_softmax(model.all_logits([stretch])[-count:], -1)
