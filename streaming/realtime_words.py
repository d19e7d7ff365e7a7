"""Words from a model that writes while it hears (Voxtral Realtime): at every 80 ms one token, most of them "nothing yet".

A `WordRecogniser` beside Whisper's. A step's input is a row of sound and the token written at the step before, so what was written over
committed rows is final, and each row of a turn is decoded once. Words follow their sound by the model's delay (480 ms): those of the newest
sound are provisional, found by going on over silence, whose steps are taken back in the cache.

Where several rows are there the steps are tried in one run, as if nothing were written at them; from the first token that says otherwise
they are tried anew. The result is that of a step at a time, for one run and another for each token of a word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.batching import Call, Work
from streaming.causal import CausalStation, CausalStream
from streaming.kv import KeyValueCache
from streaming.models.ctranslate2 import WeightsError
from streaming.models.llama import Stretch
from streaming.models.voxtral_realtime import VoxtralRealtime, load_voxtral_realtime
from streaming.recognition import LONGEST_WINDOW, Decoding
from streaming.transfer import fetched, sent
from streaming.word_window import StreamWindow

__all__ = ["Follow", "RealtimeRecogniser", "RealtimeWindow", "load_realtime_words"]

_BEHIND: Final = 10
"""Steps over silence behind the sound beside those of the delay, as the reference has them: a word may take ten tokens."""

_LANGUAGES: Final = frozenset({"ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "zh"})
"""What Voxtral Realtime was trained on. It hears which by itself and can't be told."""

_ROWS_AT_ONCE: Final = 64
"""Steps of one batch on a CPU, as a piece of a prompt."""

_DEVICE_ROWS: Final = 512
"""The same on a GPU: each has its logits, 0.5 MB."""

_LONGEST_CONTEXT: Final = 1_024
"""Steps there can't be more of in a window: it has 28 s, which are 350."""


@dataclass(slots=True, eq=False)
class Follow:
    """A `Call`: steps from `start` on, whose tokens before are `tokens` and whose rows `sound` [n, width]. Afterwards it has the likeliest
    token after each, and its log-probability."""

    station: "RealtimeRecogniser"
    tokens: Sequence[int]
    sound: Tensor
    start: int
    cache: KeyValueCache
    tokens_after: list[int] = field(default_factory=list)
    logs_after: list[float] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Steps."""
        return len(self.tokens)


class RealtimeRecogniser:
    """The model and its vocabulary, a `WordRecogniser` and the decoder's `Station`. Holds nothing of a session: one serves all."""

    def __init__(self, model: VoxtralRealtime, language: str = "en") -> None:
        """`language` is what a turn is said to be in where nobody says. Raises WeightsError for a model that can't hear a whole window, or
        whose vocabulary lacks a token."""
        self.encoder: Final = CausalStation(model.encoder, model.projector)
        self.decoder: Final = model.decoder
        self._vocabulary = model.vocabulary
        self._language = language
        try:
            begin, self._pad, self._end = (model.vocabulary.control[name] for name in ("<s>", "[STREAMING_PAD]", "</s>"))
        except KeyError as error:
            raise WeightsError(f"its tekken.json has no control token {error}") from error
        lead = model.vocabulary.lead
        # What stands before the first token that the model writes: one of silence for each row of it, and of the delay.
        self.prompt: Final = (begin, *[self._pad] * (lead + model.delay))
        self.behind: Final = model.delay + _BEHIND
        self.lead: Final = np.zeros(lead * self.encoder.row_samples, np.float32)
        # Steps of a window at most.
        self.steps: Final = lead + math.ceil(LONGEST_WINDOW / self.encoder.row_samples) + self.behind
        if self.steps > self.decoder.context:
            raise WeightsError(f"it takes {self.decoder.context} steps, and a window of a turn is {self.steps}")

    def language(self, hint: str | None) -> str:
        """See `WordRecogniser`."""
        language = (hint or self._language).lower().replace("_", "-").split("-")[0]
        if language not in _LANGUAGES:
            raise ValueError(f"the recogniser knows no language {hint or self._language!r}: it knows {', '.join(sorted(_LANGUAGES))}")
        return language

    def text(self, tokens: Sequence[int]) -> str:
        """See `WordRecogniser`."""
        return self._vocabulary.text(tokens).strip()

    def window(self) -> "RealtimeWindow":
        """See `WordRecogniser`."""
        return RealtimeWindow(self)

    def decoding(self, written: Sequence[tuple[int, float]], runs: int) -> Decoding:
        """What the tokens written so far say, without those that say nothing, up to the end of the text."""
        tokens = [token for token, _ in written]
        end = tokens.index(self._end) if self._end in tokens else len(tokens)
        words = [(token, log) for token, log in written[:end] if self._vocabulary.pieces[token]]
        log_probability = sum(log for _, log in words) / len(words) if words else 0.0
        return Decoding(tuple(token for token, _ in words), log_probability, 0.0 if words else 1.0, runs)

    def follow(self, sound: Tensor, start: int, last: int, cache: KeyValueCache) -> Work[tuple[list[tuple[int, float]], int]]:
        """The tokens written over rows [n, width], whose first is that of step `start`, with their log-probabilities, and how many runs it
        took. `last` was written before; at the start the prompt stands there, which has no more steps than there are rows."""
        assert start or len(sound) >= len(self.prompt)
        begin = [last] if start else list(self.prompt)
        written: list[tuple[int, float]] = []
        done = runs = 0
        while done < len(sound):
            count = len(sound) - done
            call = Follow(self, [*begin, *[self._pad] * (count - len(begin))], sound[done:], start + done, cache)
            yield call
            first = len(begin) - 1
            agreed = next((n for n in range(first, count) if call.tokens_after[n] != self._pad), count - 1) + 1
            written += zip(call.tokens_after[first:agreed], call.logs_after[first:agreed], strict=True)
            begin = [written[-1][0]]
            done += agreed
            runs += 1
        return written, runs

    @property
    def rows_at_once(self) -> int:
        """See `Station`."""
        return _ROWS_AT_ONCE if self.decoder.device.type == "cpu" else _DEVICE_ROWS

    @torch.inference_mode()
    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`: decoder runs."""
        follows = [call for call in calls if isinstance(call, Follow)]
        embedding = self.decoder.weights.embedding
        stretches = []
        for call in follows:
            rows = embedding[sent(torch.tensor(call.tokens), embedding.device)] + call.sound.to(embedding)
            stretches.append(Stretch([-1] * len(rows), call.start, call.cache, embedded=rows))
        best = self.decoder.all_logits(stretches).log_softmax(-1).max(-1)
        found = fetched(torch.stack((best.indices.double(), best.values.double())))
        for call, (tokens, logs) in zip(
            follows, (part.tolist() for part in torch.split(found, [call.rows for call in follows], dim=1)), strict=True
        ):
            call.tokens_after, call.logs_after = [int(token) for token in tokens], logs


class RealtimeWindow(StreamWindow):
    """A `WordWindow`."""

    def __init__(self, recogniser: RealtimeRecogniser) -> None:
        # The prompt's rows are computed together: nothing is written before them.
        stream = CausalStream(recogniser.encoder, len(recogniser.prompt), recogniser.behind)
        stream.push(recogniser.lead)
        super().__init__(stream)
        self._recogniser = recogniser
        self._cache = recogniser.decoder.new_cache(recogniser.steps)
        # Rows that are committed and not decoded, how many steps were, and what was written at those behind the prompt's.
        self._waiting: list[Tensor] = []
        self._steps = 0
        self._written: list[tuple[int, float]] = []

    def _pass(self) -> Work[tuple[Decoding, int]]:
        while (rows := (yield from self._stream.commit())) is not None:
            self._waiting.append(rows)
        runs = 0
        if self._waiting:
            rows = torch.cat(self._waiting)
            written, runs = yield from self._follow(rows)
            self._written += written
            self._steps += len(rows)
            self._waiting = []
        # Sound may be pushed while this is under way: what is encoded now is what this pass has heard.
        samples = self._samples
        written, more = yield from self._follow((yield from self._stream.provisional()))
        return self._recogniser.decoding([*self._written, *written], runs + more), samples

    def _follow(self, rows: Tensor) -> Work[tuple[list[tuple[int, float]], int]]:
        """What is written over the rows behind those that were decoded."""
        last = self._written[-1][0] if self._written else 0
        return (yield from self._recogniser.follow(rows, self._steps, last, self._cache))


def load_realtime_words(folder: Path, language: str = "en", dtype: torch.dtype | None = None, device: str = "cpu") -> RealtimeRecogniser:
    """A Voxtral Realtime in Hugging Face's layout with its `tekken.json`. Raises WeightsError, naming file and tensor, for what is not
    that, and OSError where it can't be read."""
    model = load_voxtral_realtime(folder, dtype, device, _LONGEST_CONTEXT)
    try:
        return RealtimeRecogniser(model, language)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error
