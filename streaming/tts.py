"""The voice: a clause of text in, PCM at the client's rate and the position of every word out, as it is made.

`Voice` is what the engine speaks through; `PhonemeVoice` is the one that comes with it, around a Piper voice or Kokoro. Text is normalised
(`streaming.normalise`), then pronounced (`streaming.phonemes`), synthesised (`streaming.models.piper`, `streaming.models.kokoro`) and
mastered (`streaming.mastering`) a piece at a time: a sentence, or less where a sentence is long; and each piece a stretch at a time where
the model can be cut, so that the first sound does not wait for the last. Word positions are the graph's own durations. A voice keeps no
state between clauses.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from streaming.audio import Pcm16
from streaming.events import WordMark
from streaming.mastering import Mastering, measure_gain
from streaming.models.kokoro import KokoroModel
from streaming.models.piper import WHOLE, Noise, PiperModel, Stretches, Utterance
from streaming.normalise import SpokenToken, normalise
from streaming.phonemes import EnglishPhonemes

__all__ = ["SPEED_RANGE", "PhonemeVoice", "Speech", "Voice", "VoiceModel"]

SPEED_RANGE: Final = (0.25, 1.5)
"""What the protocol allows, inclusive; 1.0 is the voice's own pace."""


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """A chunk of a spoken clause: `pcm` int16 shape (n,), n > 0, at the rate asked for. `words` are those whose sound ends in it, perhaps
    none; they count characters of the clause's text, and samples from the clause's first one. The last chunk's last word ends with the text
    and the sound. `exact` where positions are the voice's own durations."""

    pcm: Pcm16
    words: tuple[WordMark, ...]
    exact: bool


class Voice(Protocol):
    """Anything that speaks. Called by one thread at a time; several clauses may be under way."""

    def speak(self, text: str, rate: int, speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:
        """Speak a clause at `rate` samples a second: chunks, each made when it is asked for; none where there is nothing to say. `prompt`
        where the clause begins a reply: whoever waits for it hears less silence first. `name` is which of several voices; where there is no
        such one it is the usual one. Raises ValueError for a speed or rate out of range
        at once, never for a text."""


class VoiceModel(Protocol):
    """What says the phoneme symbols of American English."""

    @property
    def sample_rate(self) -> int:
        """Samples a second."""

    @property
    def whole(self) -> bool:
        """Whether what it is given is made at once, so that nothing of it sounds before all of it has been made."""

    def stream(self, symbols: Sequence[str], length_scale: float, stretches: Stretches, name: str = "", /) -> Utterance:
        """Say `symbols` (one code point each); `length_scale` 2.0 is twice as slow. Samples come by `stretches` where the model can be cut,
        with the voice `name` where it has several."""


class PhonemeVoice:
    """An American English voice: Piper's, or those of Kokoro."""

    def __init__(self, model: VoiceModel, phonemes: EnglishPhonemes, gain: float = 1.0, stretches: Stretches | None = None) -> None:
        """`gain` is applied to all it says; `stretches` None are those of `Stretches`."""
        self._model = model
        self._phonemes = phonemes
        self._gain = gain
        self._stretches = stretches or Stretches()
        # Symbols asked for that the voice does not have, since it was loaded: a fault of the phoneme tables, for the logs and the tests.
        self.dropped = 0

    @classmethod
    def load(
        cls,
        folder: Path,
        threads: int | None = None,
        noise: Noise | None = None,
        stretches: Stretches | None = None,
        gpu: int | None = None,
    ) -> "PhonemeVoice":
        """From a folder with a Piper voice, one .onnx and its .onnx.json, in about 2 s, or with Kokoro (`streaming.models.kokoro`).
        `threads` None is one, and for Kokoro two. `noise` is Piper's; None: its own, no two readings alike. `gpu` is the number of the one
        that computes, None: the CPU. Raises FileNotFoundError where there is not one model, ValueError where it is neither, OSError where
        that GPU can't be used."""
        model, phonemes = _model(folder, threads, noise, gpu), EnglishPhonemes.load()
        # The first runs of a graph cost twice as much as any other, and these serve two purposes.
        utterances = (model.stream(piece.symbols, 1.0, WHOLE) for text in _SAMPLE_TEXTS for piece in _pieces(normalise(text), phonemes))
        gain = measure_gain([sound for utterance in utterances for sound in utterance.stretches], model.sample_rate)
        return cls(model, phonemes, gain, stretches)

    def speak(self, text: str, rate: int, speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:
        """See `Voice`."""
        if not SPEED_RANGE[0] <= speed <= SPEED_RANGE[1]:
            raise ValueError(f"speed is {SPEED_RANGE[0]} to {SPEED_RANGE[1]}, got {speed}")
        mastering = Mastering(self._model.sample_rate, rate, self._gain, prompt=prompt)
        return self._speak(text, mastering, speed, rate * _LEAST_MS // 1000, name, prompt=prompt)

    def _speak(self, text: str, mastering: Mastering, speed: float, least: int, name: str, *, prompt: bool) -> Iterator[Speech]:
        pieces = list(_pieces(normalise(text), self._phonemes, _BEGINNING if prompt and self._model.whole else ()))
        words = _Words(len(text), pieces, mastering)
        # What has been mastered and not given.
        sound = np.zeros(0, np.int16)
        for index, piece in enumerate(pieces):
            utterance = self._model.stream(piece.symbols, 1.0 / speed, self._stretches, name)
            self.dropped += utterance.dropped
            words.begin(index, utterance)
            made = 0
            for samples in utterance.stretches:
                parts = [sound, mastering.push(samples)]
                made += len(samples)
                words.place()
                if made == utterance.samples:
                    parts.append(mastering.end(_PAUSE_MS[piece.stop] / speed))
                    words.end()
                    if index == len(pieces) - 1:
                        parts.append(mastering.flush())
                sound = np.concatenate(parts)
                if len(sound) >= least or (made == utterance.samples and index == len(pieces) - 1):
                    yield Speech(sound, words.take(), True)
                    sound = sound[:0]


def _model(folder: Path, threads: int | None, noise: Noise | None, gpu: int | None) -> VoiceModel:
    if (folder / "vocab.json").is_file():
        return KokoroModel.load(folder, threads or _WHOLE_THREADS, gpu)
    models = sorted(folder.glob("*.onnx"))
    if len(models) != 1:
        raise FileNotFoundError(f"expected one .onnx in {folder}, found {len(models)}")
    return PiperModel.load(models[0], threads or 1, noise, gpu)


_WHOLE_THREADS: Final = 2
"""Of a voice whose pieces are made at once: a caller waits for a whole one."""

_LEAST_MS: Final = 100
"""The shortest chunk, unless it is a clause's last: what follows takes some tens of milliseconds, and other callers' chunks may come before
it. A short one is what is left of a stretch with a pause in it."""

_SAMPLE_TEXTS: Final = ("Yes, of course.", "How may I help you?", "The weather will be cold and rainy tomorrow morning.", "I'm afraid not.")
"""What a voice is measured on: short and long, statement and question."""

_PAUSE_MS: Final[Mapping[str, float]] = {".": 250, "?": 250, "!": 250, ";": 180, ":": 180, ",": 110, "": 40}
"""Silence after a piece by the stop it ends with, at normal speed. The voice's own varies from nothing to half a second."""


class _Words:
    """Where the words of a clause end, as its pieces are spoken: `begin` a piece, `place` its words when it sounds, `end` it; `take` what
    has been said."""

    def __init__(self, text_end: int, pieces: "Sequence[_Piece]", mastering: Mastering) -> None:
        self._mastering = mastering
        self._text_end = text_end
        # For each piece its words: the text each goes up to, which is where the next one begins, and its last symbol. The clause's last
        # word ends with the clause. A word that went over the end of a piece is there twice; its last part counts.
        starts = [token.start for piece in pieces for token, _ in piece.tokens]
        following = iter([after if after != start else None for start, after in pairwise(starts)])
        self._pieces = [[(after, last) for _, last in piece.tokens if (after := next(following, None)) is not None] for piece in pieces]
        # Words of the piece being spoken with the sample of it they end at, and words whose end in the clause is known.
        self._sounding: list[tuple[int, int]] = []
        self._waiting: deque[WordMark] = deque()
        self._pieces_left = len(pieces)

    def begin(self, index: int, utterance: Utterance) -> None:
        """The durations of a piece are known."""
        self._sounding = [(text_end, int(utterance.ends[last])) for text_end, last in self._pieces[index]]

    def place(self) -> None:
        """More of the piece has been mastered."""
        for text_end, sample in self._sounding:
            if (end := self._mastering.position(sample)) is None:
                return
            self._waiting.append(WordMark(text_end, end))
        self._sounding = []

    def end(self) -> None:
        """The piece has been mastered to its end: none of its words ends behind it."""
        self._pieces_left -= 1
        end = self._mastering.ended
        self._waiting.extend(WordMark(text_end, end) for text_end, _ in self._sounding)
        self._sounding = []
        self._waiting = deque(WordMark(mark.text_end, min(mark.end, end)) for mark in self._waiting)
        if not self._pieces_left:
            self._waiting.append(WordMark(self._text_end, end))

    def take(self) -> tuple[WordMark, ...]:
        """The words that have ended in what the mastering has given, each once."""
        said = []
        while self._waiting and self._waiting[0].end <= self._mastering.given:
            said.append(self._waiting.popleft())
        return tuple(said)


# ------------------------------------------------------------------------------------------------------------ pieces

_SOFT_LIMIT: Final = 120
_HARD_LIMIT: Final = 200
"""Symbols of a piece: past the soft limit (about 8 s) it ends at the next comma, past the hard one at the next word. The graph's time
and memory grow with length, and so does what an interruption has to wait for."""

_BEGINNING: Final = (16, 32)
"""The hard limits of a reply's first pieces where a piece is made at once: about 1 s and 2 s of sound. While one plays the next is made."""

_LEAST_SYMBOLS: Final = 12
"""What is left of a sentence is not cut off such a piece where it is less: a word or two alone sound like a sentence."""

_SENTENCE_ENDS: Final = (".", "?", "!")


class _Piece:
    """What is synthesised at once: symbols with a space between words and each stop behind its word. `limit` is the hard one."""

    def __init__(self, limit: int = _HARD_LIMIT) -> None:
        self._limit = limit
        self.symbols: list[str] = []
        # Spoken tokens with the index of their last symbol (its stop not counted).
        self.tokens: list[tuple[SpokenToken, int]] = []
        # The stop it ends with.
        self.stop = ""

    def add(self, token: SpokenToken, sound: str) -> None:
        """One word of `token`; `sound` is not empty."""
        if self.symbols:
            self.symbols.append(" ")
        self.symbols.extend(sound)
        if self.tokens and self.tokens[-1][0] is token:
            self.tokens.pop()
        self.tokens.append((token, len(self.symbols) - 1))
        self.stop = ""

    def end(self, stop: str) -> None:
        """A pause after what has been added; the last of several counts."""
        if stop and self.symbols:
            if self.stop:
                self.symbols.pop()
            self.symbols.append(stop)
            self.stop = stop

    def full(self, left: int) -> bool:
        """Whether nothing more is to be added of a sentence that has so many symbols `left`."""
        if self._limit < _HARD_LIMIT and left < _LEAST_SYMBOLS:
            return False
        return len(self.symbols) > (min(_SOFT_LIMIT, self._limit) if self.stop else self._limit)


def _pieces(tokens: Sequence[SpokenToken], phonemes: EnglishPhonemes, beginning: Sequence[int] = ()) -> Iterator[_Piece]:
    """The pieces of a text, in order, none of them silent. `beginning` are the hard limits of the first ones."""
    limits = iter(beginning)
    for sentence in _sentences(tokens):
        spelt = phonemes.pronounce([word for token in sentence for word in token.words])
        sounds, left = iter(spelt), sum(map(len, spelt))
        piece = _Piece(next(limits, _HARD_LIMIT))
        for token in sentence:
            for _ in token.words:
                if sound := next(sounds):
                    if piece.full(left):
                        yield piece
                        piece = _Piece(next(limits, _HARD_LIMIT))
                    piece.add(token, sound)
                    left -= len(sound)
            piece.end(token.stop)
        if piece.symbols:
            yield piece


def _sentences(tokens: Sequence[SpokenToken]) -> Iterator[Sequence[SpokenToken]]:
    start = 0
    for index, token in enumerate(tokens, 1):
        if token.stop in _SENTENCE_ENDS or index == len(tokens):
            yield tokens[start:index]
            start = index
