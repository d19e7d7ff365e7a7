"""The caller's turn inside the engine: one transcript per turn, from the input that is kept for a while (`streaming.input_ring`), and one
sound where the language model hears.

What is pushed into both follows the Ear's events, not the arrival of frames, so that any split of the same audio gives the
same sound at the same positions: audio up to each `Listened` while there is speech and up to the first of silence, then nothing until the
caller goes on, and everything when they do. Where a turn is ended before the Ear has heard it all, the rest is taken for speech, unless it
is short (`_UNJUDGED`).
"""

from typing import Final

from streaming.audio_path import Sound
from streaming.batching import Work
from streaming.input_ring import InputRing
from streaming.transcriber import Hypothesis, Transcriber, Transcript
from streaming.vad import WINDOW

__all__ = ["Turn"]

_UNJUDGED: Final = 4 * WINDOW
"""Sound at the end of a turn that the Ear need not have judged where there was silence before: 128 ms, the newest frame of a client that
commits right behind it, and less than a word. More may be speech."""


class Turn:
    """One turn of the caller on its way from sound to words, and to rows of the language model where it has a `sound`."""

    def __init__(self, item_id: str, start: int, transcriber: Transcriber, sound: Sound | None = None) -> None:
        self.item_id = item_id
        self.start = start
        self.sound = sound
        # Settled text, which only grows.
        self.settled = ""
        # The same words as the newest pass has them: what is prefilled while the caller goes on.
        self.steady = ""
        # What the newest pass found, if it heard everything that has been pushed.
        self.found: Hypothesis | None = None
        # Where the present pause began; None while the caller speaks.
        self.paused_at: int | None = None
        self._transcriber = transcriber
        # Input up to here has been pushed into the transcriber.
        self._fed = start
        # The Ear has judged the input up to here.
        self._judged = start
        # In silence nothing is pushed: what was said so far is transcribed as if it were all.
        self._quiet = False
        # Sound has been pushed that no pass has heard.
        self._unheard = False
        self._committed = False

    def due(self, *, eager: bool) -> bool:
        """Whether a pass is worth making: at enough new sound while the caller speaks, at any in a pause, and where the engine is `eager`
        already in the first silence that may become one."""
        return self._unheard and (self.paused_at is not None or (eager and self._quiet) or self._transcriber.due())

    @property
    def language(self) -> str:
        """The language it is transcribed in."""
        return self._transcriber.language

    @property
    def hushed(self) -> bool:
        """Whether there is silence, pause or not: the turn may end here."""
        return self._quiet

    def listen(self, ring: InputRing, at: int, *, quiet: bool) -> None:
        """The Ear has heard `at`; `quiet` where there was silence before it. The first of it is taken, the rest waits until the caller
        goes on."""
        self._judged = max(self._judged, at)
        if self._committed or (quiet and self._quiet):
            return
        self._quiet = quiet
        if not quiet:
            self.paused_at = None
        self._push(ring, at)

    def pause(self, at: int) -> None:
        """Speech stopped at position `at`."""
        self.paused_at = at
        self._transcriber.mark_pause(max(0, at - self.start))

    def commit(self, ring: InputRing, end: int) -> None:
        """The turn ends at `end`; only `conclude` is left."""
        if not self._quiet or end - self._judged > _UNJUDGED:
            self._push(ring, end)
        self._committed = True
        if self.sound is not None:
            self.sound.end()

    def hear(self) -> Work[Hypothesis]:
        """One pass over the turn so far."""
        self._unheard = False
        hypothesis = yield from self._transcriber.hypothesise()
        self.settled, self.steady = hypothesis.settled, hypothesis.steady
        if not self._unheard:
            self.found = hypothesis
        return hypothesis

    def conclude(self) -> Work[Transcript]:
        """The final pass; costs nothing where the last one heard everything."""
        return (yield from self._transcriber.finish())

    def _push(self, ring: InputRing, until: int) -> None:
        pcm = ring.between(self._fed, until)
        self._fed = max(self._fed, until)
        if len(pcm):
            self._transcriber.push(pcm)
            if self.sound is not None:
                self.sound.push(pcm)
            self._unheard = True
            self.found = None
