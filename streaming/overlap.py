"""What it is that the microphone hears while we speak: words for us, a backchannel, a noise, other people, or ourselves.

Evidence, no decision: `agent.interruption` decides. The words come from short passes of the recogniser, the first one a quarter of a
second after the onset (with the 300 ms before it): by then "wait" and "uh-huh" differ. English lists; words of other languages count as
words.
"""

import re
from collections import deque
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

import numpy as np
import numpy.typing as npt

from streaming.audio import Samples, resample_clause
from streaming.doors import SynthesisedAudio
from streaming.echo import ECHO_SPAN, LATEST, echo_probability
from streaming.events import SAMPLE_RATE, Audible, OverlapKind, OverlapScore
from streaming.input_ring import InputRing

__all__ = ["OverlapWatch", "kind_of_words"]

_WORD_MARKS: Final = tuple(windows * 512 for windows in (8, 13, 18, 26, 36, 50))
"""Samples after the onset at which an overlap is judged by its words: 256, 416, 576, 832, 1152 and 1600 ms. What lasts longer has been
decided, or is no speech."""

_ECHO_FIRST: Final = 3 * 512
_ECHO_EVERY: Final = 4 * 512
"""Whether it is our own voice is asked 96 ms after the onset, and then every 128 ms: it costs 3 ms and may spare a pause."""

_SAID_SECONDS: Final = 20
"""Sound of ours that is kept to compare with: what a client that is ahead of real time may still be playing, in 1 MB of memory."""


def _phrases(listed: str) -> frozenset[str]:
    """Phrases separated by bars."""
    return frozenset(phrase.strip() for phrase in listed.split("|"))


_BACKCHANNELS: Final = _phrases(
    """uh-huh|uh huh|mm-hmm|mm hmm|mhm|mmhmm|mm|hm|hmm|mmm|m m|mmo|emma|uh|um|ah|aha|oh|ooh|yeah|yep|yup|yes|right|okay|ok|sure|i see
    |got it|of course|great|good|cool|nice|wow|really|exactly|alright|all right|fine|perfect|true|oh okay|oh ok|oh i see|oh yeah|yeah yeah
    |okay okay|right right|oh right|oh really|oh wow|i know|thanks|thank you|go on|interesting|makes sense|sounds good"""
)
"""What listeners say without wanting the floor, and what the recogniser makes of a hum ("MMO", "Emma")."""

_CLAIMS: Final = _phrases(
    """wait|stop|no|nope|hang|hold|sorry|excuse|actually|hey|hello|what|why|how|who|where|when|which|can|could|would|listen|pause|cancel|quiet
    |enough|never|but|please|help"""
)
"""First words of somebody who wants the floor."""

_PLAIN: Final = 0.6
"""Confidence from which one claim is enough."""

_CLEAR: Final = 0.7
"""Confidence from which two words are enough."""

_UNSURE: Final = 0.5
"""Recogniser's confidence below which a word may be a sneeze ("Hush!" 0.3) or a hum."""

_CHARACTERS_A_SECOND: Final = 15
_SAID_BEFORE: Final = 40
_SAID_AFTER: Final = 30
"""Where in our reply we are, by the pace of speech, and how much of it before and after may be what is heard: a buffer's delay and a slow
or a fast voice."""

_SAME_WORDS: Final = 0.6
"""Share of the words heard that are in ours, in their order; the recogniser hears through a loudspeaker and a room."""

_SHORT: Final = 3
"""Letters: "a" and "to" are in everything we say."""

_FAINT_DB: Final = 10.0
"""Speech this far below the caller's own is somebody else's, across the room."""


def kind_of_words(text: str, confidence: float) -> tuple[OverlapKind, float]:
    """What an overlap is in which the recogniser heard `text` with this `confidence` (0 to 1), and how sure that is."""
    words = _words(text)
    joined = " ".join(words)
    if not words:
        return OverlapKind.NOISE, 0.8
    if joined in _BACKCHANNELS:
        return OverlapKind.BACKCHANNEL, max(0.5, confidence)
    if confidence < _UNSURE:
        # The less so, the more words there are: noise seldom makes a sentence.
        return (OverlapKind.NOISE, 1 - confidence) if len(words) < 3 else (OverlapKind.SPEECH, 0.6)
    if words[0] in _CLAIMS and confidence >= _PLAIN:
        return OverlapKind.SPEECH, 0.95
    if len(words) > 1 and confidence >= _CLEAR:
        return OverlapKind.SPEECH, 0.88
    return OverlapKind.SPEECH, 0.6 if len(words) == 1 and words[0] not in _CLAIMS else 0.8


def _words(text: str) -> list[str]:
    return re.sub(r"[^\w' -]", " ", text.lower()).split()


def _level_db(pcm: Samples) -> float:
    """Loudness of the loudest quarter of 32 ms windows, in dB of full scale; minus infinity for nothing."""
    windows = pcm[: len(pcm) // 512 * 512].reshape(-1, 512)
    if not len(windows):
        return -np.inf
    power = np.sort(np.mean(np.square(windows, dtype=np.float64), axis=1))
    return 10 * float(np.log10(np.mean(power[-max(1, len(power) // 4) :]) + 1e-12))


class OverlapWatch:
    """One session's: the overlap that lasts, if one does, and what is known to judge it by. `said` may be called on another thread."""

    def __init__(self) -> None:
        # The newest sound of ours, in pieces: (response, first sample, samples).
        self._said: deque[tuple[str, int, npt.NDArray[np.int16]]] = deque()
        self._said_samples = 0
        # The words of the newest response of ours, and which that is.
        self._writing = ""
        self._text = ""
        # How loud the caller was in the last five turns, in dB.
        self._levels: deque[float] = deque(maxlen=5)
        # What we were saying as the overlap began; None while there is none.
        self._over: Audible | None = None
        self._echo_due = 0
        self._marks: tuple[int, ...] = ()
        # It is our own voice, as far as is known.
        self._is_echo = False

    def said(self, audio: SynthesisedAudio) -> None:
        """Sound of ours was made."""
        self._said.append((audio.response_id, audio.start, audio.pcm))
        self._said_samples += len(audio.pcm)
        while self._said_samples > _SAID_SECONDS * 24_000 and len(self._said) > 1:
            self._said_samples -= len(self._said.popleft()[2])

    def wrote(self, response_id: str, text: str) -> None:
        """More words of a reply of ours."""
        if response_id != self._writing:
            self._writing, self._text = response_id, ""
        self._text += text

    def spoke(self, turn: Samples) -> None:
        """The sound of a whole turn of the caller's: how loud they are. What is too short to tell (half a second) counts not."""
        if len(turn) >= SAMPLE_RATE // 2:
            self._levels.append(_level_db(turn))

    def begin(self, over: Audible | None) -> None:
        """A turn has begun; over what of ours, if it did."""
        self._over, self._is_echo = over, False
        if over is not None:
            self._echo_due, self._marks = over.at + _ECHO_FIRST, tuple(over.at + mark for mark in _WORD_MARKS)

    def listened(self, at: int, ring: InputRing) -> OverlapScore | None:
        """The Ear has heard `at`: whether this is our own voice, where that is due and has something to say."""
        if self._over is None or at < self._echo_due:
            return None
        self._echo_due = at + _ECHO_EVERY
        probability = self._echo(self._over, at, ring)
        was, self._is_echo = self._is_echo, probability >= 0.5
        return OverlapScore(at, OverlapKind.ECHO, probability) if was or self._is_echo else None

    def due(self, at: int) -> bool:
        """Whether what has been heard up to `at` is to be judged by its words."""
        return self._over is not None and not self._is_echo and bool(self._marks) and at >= self._marks[0]

    def worded(self, at: int, text: str, confidence: float, ring: InputRing) -> OverlapScore | None:
        """A pass of the recogniser heard this in the turn up to `at`; None where there is no overlap to judge."""
        if self._over is None or self._is_echo:
            return None
        self._marks = tuple(mark for mark in self._marks if mark > at)
        if self._says(text, at):
            return OverlapScore(at, OverlapKind.ECHO, 0.8)
        kind, probability = kind_of_words(text, confidence)
        if kind is OverlapKind.SPEECH and self._levels and self._is_faint(ring.between(self._over.at, at)):
            kind = OverlapKind.OTHERS
        return OverlapScore(at, kind, probability)

    def _says(self, text: str, at: int) -> bool:
        """Whether these are the words that we are saying, by where we are in the reply at the pace of our voices."""
        if self._over is None or self._over.response_id != self._writing:
            return False
        seconds = self._over.sample / self._over.rate + (at - self._over.at) / SAMPLE_RATE
        near = int(seconds * _CHARACTERS_A_SECOND)
        ours = _words(self._text[max(0, near - _SAID_BEFORE) : near + _SAID_AFTER])
        heard = _words(text)
        same = sum(block.size for block in SequenceMatcher(None, heard, ours, autojunk=False).get_matching_blocks())
        return same >= max(1, round(_SAME_WORDS * len(heard))) and sum(map(len, heard)) > _SHORT

    def _is_faint(self, pcm: Samples) -> bool:
        return _level_db(pcm) < float(np.median(self._levels)) - _FAINT_DB

    def _echo(self, over: Audible, at: int, ring: InputRing) -> float:
        begun = over.at - over.sample * SAMPLE_RATE // over.rate
        heard = ring.between(max(at - ECHO_SPAN, begun), at)
        first = at - len(heard) - LATEST
        played = self._played(over, first, len(heard) + 2 * LATEST)
        return 0.0 if played is None else echo_probability(heard, played, at - over.at)

    def _played(self, over: Audible, first: int, count: int) -> Samples | None:
        """What was being played while the input stood at `first` and the `count` samples after it, at 16 kHz; None where nothing is
        known of it."""
        pieces = [(start, pcm) for response_id, start, pcm in list(self._said) if response_id == over.response_id]
        start = over.sample + (first - over.at) * over.rate // SAMPLE_RATE
        wanted = count * over.rate // SAMPLE_RATE
        return resample_clause(_stretch(pieces, start, wanted), over.rate, SAMPLE_RATE) if pieces else None


def _stretch(pieces: Iterable[tuple[int, npt.NDArray[np.int16]]], start: int, count: int) -> Samples:
    """Samples `start` to `start + count` of what the pieces hold, full scale 1.0; zeros where they hold nothing."""
    stretch = np.zeros(count, np.float32)
    for at, pcm in pieces:
        begin, end = max(start, at), min(start + count, at + len(pcm))
        if begin < end:
            stretch[begin - start : end - start] = pcm[begin - at : end - at]
    return stretch / np.float32(32_768)
