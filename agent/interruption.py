"""Whether speech over our own is meant for us: the life of one overlap, from its onset to a verdict. Positions are samples of the input.

Where playback can be taken back at once (we own it, or it is acknowledged) it is lowered with the first window that sounds like speech and
held, at its sample, when it is plainly speech; then there is time to hear what it is, and the reply goes on from that sample or is cut.
Where the client owns playback it would stop for good at our first word about it, so that word waits for the evidence, and for no longer
than `_UNJUDGED` where there is none. Evidence is an `OverlapScore`: the kind it names decides, not the length of the sound.
"""

from enum import Enum
from typing import Final

from streaming.events import SAMPLE_RATE, OverlapKind, OverlapScore

__all__ = ["Overlap", "Verdict"]

_MILLISECOND: Final = SAMPLE_RATE // 1_000

_HELD_AFTER: Final = 128 * _MILLISECOND
"""Speech over ours for which playback is held, where it can be: four windows, so that with the window that is judged and the frame that is
playing nothing is heard 200 ms after the onset."""

_UNJUDGED: Final = 416 * _MILLISECOND
"""Speech that nobody has judged by now counts: the evidence is late, and whoever speaks to a deaf agent is not helped by patience. It comes
after some 340 ms on two cores."""

_SURE: Final = 0.9
"""Probability of SPEECH from which it counts at once: words that claim the floor."""

_CLEAR: Final = 0.85
"""Probability that counts told once: words that are no backchannel, clearly heard."""

_LIKELY: Final = 0.75
"""Probability that counts when it has been told twice in a row: words that are no backchannel; "I see" is "I said" for a moment."""

_ONE_WORD: Final = 600 * _MILLISECOND
"""A word that is neither a claim nor a backchannel counts once speech has lasted this long; a shorter one alone is somebody thinking aloud,
or a sneeze."""

_SHORT: Final = 896 * _MILLISECOND
"""Where playback can be held, words that claim nothing count only once speech has lasted this long: a backchannel of 800 ms is over by
then, and has been told to be (the VAD waits 96 ms). It may be misheard: "I see" becomes "I see him" as it ends. Waiting costs nothing, for
the reply is silent meanwhile."""

_LONG: Final = 2_000 * _MILLISECOND
"""A backchannel that goes on for this long is none; more words than one make it speech much sooner."""

_LAST_WORD: Final = 320 * _MILLISECOND
"""Silence after an overlap in which its evidence may still come: the pass of the recogniser over its end."""


class Verdict(Enum):
    """What an overlap is, as far as is known."""

    OPEN = "not known yet"
    SPEECH = "meant for us: the caller takes the floor"
    NOTHING = "not meant for us: the reply goes on"


class Overlap:
    """One overlap. Tell it what happens, in order, and ask `verdict` after each `Listened` and each score."""

    def __init__(self, onset: int, *, least_ms: int = 0, yields: bool = False, echoes: bool = False, patient: bool = False) -> None:
        """`onset` is its first sample. `least_ms` is the least speech that may interrupt. `yields`: even a short word is meant for us.
        `echoes`: our own voice comes back on this call, so that sound alone holds nothing. `patient`: playback can be held, so that there
        is time to hear what it is."""
        self.onset = onset
        self._least = least_ms * _MILLISECOND
        self._yields = yields
        self._echoes = echoes
        # Speech that must have lasted so long before words that claim nothing count.
        self._unclaimed = _SHORT if patient else 0
        # Scores in a row that likely are speech.
        self._likely = 0
        self._score: OverlapScore | None = None
        # Where it paused; None while there is speech.
        self._stopped: int | None = None

    def scored(self, score: OverlapScore) -> None:
        """What it is believed to be now. An echo that has ceased to be one is as if it began anew."""
        if score.kind is OverlapKind.ECHO and score.probability < 0.5:
            self.onset, self._score = score.at, None
        else:
            likely = score.kind is OverlapKind.SPEECH and score.probability >= _LIKELY
            self._likely = self._likely + 1 if likely else 0
            self._score = score

    def stopped(self, at: int) -> None:
        """Silence followed its last speech sample, `at`."""
        self._stopped = at

    def started(self) -> None:
        """It goes on after a pause."""
        self._stopped = None

    def holds(self, at: int) -> bool:
        """Whether playback is better held, with input heard up to `at`: it is speech for all we know. An echo would fall silent with us,
        and begin again with us."""
        return self.lowers and at - self.onset >= _HELD_AFTER and self._stopped is None

    @property
    def lowers(self) -> bool:
        """Whether playback is better lowered."""
        return not self._echoes if self._score is None else self._score.kind is OverlapKind.SPEECH

    def verdict(self, at: int) -> Verdict:
        """What it is, with input heard up to `at`."""
        length = (at if self._stopped is None else self._stopped) - self.onset
        if length < self._least:
            return Verdict.OPEN if self._stopped is None else Verdict.NOTHING
        kind = None if self._score is None else self._score.kind
        if self._stopped is not None:
            return self._at_its_end(kind, length, at - self._stopped)
        match kind:
            case None:
                return Verdict.SPEECH if length >= _UNJUDGED else Verdict.OPEN
            case OverlapKind.SPEECH:
                return Verdict.SPEECH if self._counts(length) else Verdict.OPEN
            case OverlapKind.BACKCHANNEL:
                return Verdict.SPEECH if self._yields or length >= _LONG else Verdict.OPEN
            case OverlapKind.NOISE | OverlapKind.ECHO | OverlapKind.OTHERS:
                return Verdict.OPEN

    def _at_its_end(self, kind: OverlapKind | None, length: int, silence: int) -> Verdict:
        """It has paused, perhaps for good."""
        match kind:
            case OverlapKind.SPEECH if self._counts(length) or (self._likely and length >= self._unclaimed):
                return Verdict.SPEECH
            case OverlapKind.BACKCHANNEL if self._yields:
                return Verdict.SPEECH
            case OverlapKind.NOISE | OverlapKind.ECHO | OverlapKind.OTHERS | OverlapKind.BACKCHANNEL:
                return Verdict.NOTHING
            case _ if silence < _LAST_WORD:
                return Verdict.OPEN
            case None:
                return Verdict.SPEECH if length >= _UNJUDGED else Verdict.NOTHING
            case OverlapKind.SPEECH:
                return Verdict.NOTHING

    def _counts(self, length: int) -> bool:
        """Whether speech that has lasted `length` samples, and is words, is enough of them."""
        probability = 0.0 if self._score is None else self._score.probability
        clear = self._likely > 1 or probability >= _CLEAR or length >= _ONE_WORD
        return probability >= _SURE or self._yields or (clear and length >= self._unclaimed)
