"""The voice: a clause of text in, PCM at the client's rate and the position of every word out.

`Voice` is what the engine speaks through; `PiperVoice` is the one that comes with it. Text is normalised (`streaming.normalise`), then
pronounced (`streaming.phonemes`), synthesised (`streaming.models.piper`) and brought to level (`streaming.mastering`) a piece at a time: a
sentence, or less where a sentence is long. Word positions are the graph's own durations. A voice keeps no state between clauses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from streaming.audio import Pcm16, resample_clause, to_pcm16
from streaming.events import WordMark
from streaming.mastering import fade, level, sounding
from streaming.models.piper import Noise, PiperModel, Utterance
from streaming.normalise import SpokenToken, normalise
from streaming.phonemes import EnglishPhonemes

__all__ = ["SPEED_RANGE", "PiperVoice", "Speech", "Voice"]

SPEED_RANGE: Final = (0.25, 1.5)
"""What the protocol allows, inclusive; 1.0 is the voice's own pace."""


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """A spoken clause: `pcm` int16 shape (n,) at the rate asked for. `words` count characters of the clause's text and samples of `pcm`;
    the last one ends with both. `exact` where positions are the voice's own durations. Nothing to say: no samples, no words."""

    pcm: Pcm16
    words: tuple[WordMark, ...]
    exact: bool


class Voice(Protocol):
    """Anything that speaks. Called by one thread at a time."""

    def speak(self, text: str, rate: int, speed: float = 1.0) -> Speech:
        """Speak a clause at `rate` samples a second. Raises ValueError for a speed or rate out of range, never for a text."""


class PiperVoice:
    """An American English Piper voice."""

    def __init__(self, model: PiperModel, phonemes: EnglishPhonemes) -> None:
        self._model = model
        self._phonemes = phonemes
        # Symbols asked for that the voice does not have, since it was loaded: a fault of the phoneme tables, for the logs and the tests.
        self.dropped = 0

    @classmethod
    def load(cls, folder: Path, threads: int = 1, noise: Noise | None = None) -> "PiperVoice":
        """From a folder with one .onnx and its .onnx.json; about 1.5 s. `noise` None: the voice's own, no two readings alike. Raises
        FileNotFoundError where there is not one voice, ValueError where it is no Piper voice."""
        models = sorted(folder.glob("*.onnx"))
        if len(models) != 1:
            raise FileNotFoundError(f"expected one .onnx in {folder}, found {len(models)}")
        voice = cls(PiperModel.load(models[0], threads, noise), EnglishPhonemes.load())
        # The first run of the graph costs twice as much as any other.
        voice.speak("Ready when you are.", 24_000)
        return voice

    def speak(self, text: str, rate: int, speed: float = 1.0) -> Speech:
        """See `Voice`."""
        if not SPEED_RANGE[0] <= speed <= SPEED_RANGE[1]:
            raise ValueError(f"speed is {SPEED_RANGE[0]} to {SPEED_RANGE[1]}, got {speed}")
        if not 4_000 <= rate <= 192_000:
            raise ValueError(f"sample rates are 4000 to 192000 Hz, got {rate}")
        sounds: list[Pcm16] = []
        # Where each spoken token begins in the text, and where its sound ends.
        spoken: list[tuple[int, int]] = []
        cursor = 0
        for piece in _pieces(normalise(text), self._phonemes):
            utterance = self._model.synthesise(piece.symbols, 1.0 / speed)
            self.dropped += utterance.dropped
            sound, ends = _master(utterance, self._model.sample_rate, rate, _PAUSE_MS[piece.stop] / speed)
            spoken.extend((token.start, cursor + ends[last]) for token, last in piece.tokens)
            sounds.append(sound)
            cursor += len(sound)
        if not cursor:
            return Speech(np.zeros(0, np.int16), (), True)
        return Speech(np.concatenate(sounds), _marks(spoken, len(text), cursor), True)


def _marks(spoken: Sequence[tuple[int, int]], text_end: int, samples: int) -> tuple[WordMark, ...]:
    """A mark for each token: its text goes up to where the next one begins, the last one's to the end of everything."""
    following = [start for start, _ in spoken[1:]]
    # A token that went over the end of a piece is there twice; its last part counts.
    marks = [WordMark(after, end) for (start, end), after in zip(spoken, following, strict=False) if after != start]
    return (*marks, WordMark(text_end, samples))


# ------------------------------------------------------------------------------------------------------------ pieces

_SOFT_LIMIT: Final = 120
_HARD_LIMIT: Final = 200
"""Symbols of a piece: past the soft limit (about 8 s) it ends at the next comma, past the hard one at the next word. The graph's time
and memory grow with length, and so does what an interruption has to wait for."""

_SENTENCE_ENDS: Final = (".", "?", "!")


class _Piece:
    """What is synthesised at once: symbols with a space between words and each stop behind its word."""

    def __init__(self) -> None:
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

    @property
    def full(self) -> bool:
        """Whether nothing more is to be added."""
        return len(self.symbols) > (_SOFT_LIMIT if self.stop else _HARD_LIMIT)


def _pieces(tokens: Sequence[SpokenToken], phonemes: EnglishPhonemes) -> Iterator[_Piece]:
    """The pieces of a text, in order, none of them silent."""
    for sentence in _sentences(tokens):
        sounds = iter(phonemes.pronounce([word for token in sentence for word in token.words]))
        piece = _Piece()
        for token in sentence:
            for _ in token.words:
                if sound := next(sounds):
                    if piece.full:
                        yield piece
                        piece = _Piece()
                    piece.add(token, sound)
            piece.end(token.stop)
        if piece.symbols:
            yield piece


def _sentences(tokens: Sequence[SpokenToken]) -> Iterator[Sequence[SpokenToken]]:
    start = 0
    for index, token in enumerate(tokens, 1):
        if token.stop in _SENTENCE_ENDS or index == len(tokens):
            yield tokens[start:index]
            start = index


# ------------------------------------------------------------------------------------------------------------- sound

_PAUSE_MS: Final[Mapping[str, float]] = {".": 250, "?": 250, "!": 250, ";": 180, ":": 180, ",": 110, "": 40}
"""Silence after a piece by the stop it ends with, at normal speed. The voice's own varies from nothing to half a second."""

_LEAD_MS: Final = 20
"""Silence before the first sound of a piece: a soft onset is kept, the rest of the voice's own is latency."""

_FADE_IN_MS, _FADE_OUT_MS = 4, 15


def _master(utterance: Utterance, own_rate: int, rate: int, pause_ms: float) -> tuple[Pcm16, Sequence[int]]:
    """The piece as it is played, at `rate`, and where each of its symbols ends in it."""
    first, end = sounding(utterance.samples, own_rate)
    start = max(0, first - own_rate * _LEAD_MS // 1000)
    # What the voice says softly after the last loud window is kept, faded out, within the pause.
    tail = min(len(utterance.samples), end + own_rate * _FADE_OUT_MS // 1000)
    kept = fade(utterance.samples[start:tail], own_rate * _FADE_IN_MS // 1000, own_rate * _FADE_OUT_MS // 1000)
    pause = round(own_rate * pause_ms / 1000) - (tail - end)
    own = np.concatenate((level(kept, own_rate), np.zeros(max(0, pause), np.float32)))
    pcm = to_pcm16(resample_clause(own, own_rate, rate))
    ends = np.clip(np.rint((utterance.ends - start) * (rate / own_rate)), 0, len(pcm))
    return pcm, [int(sample) for sample in ends]
