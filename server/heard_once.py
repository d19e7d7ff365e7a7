"""The Ear's evidence, told once: an Ear that hears the same input again is not believed again.

Pure. The Ear closes every window with its `Listened`, and windows lie at the same positions whenever the input is fed from a position that
`begin` named, so "about input that has been told" is decided window by window, exactly.
"""

from typing import Final

from streaming.events import EarEvent, Listened, SpeechStarted, SpeechStopped

__all__ = ["HeardOnce"]

_WINDOW: Final = 512
"""Samples the Ear judges at once (`streaming.vad.WINDOW`; not imported, for it brings ONNX with it)."""


class HeardOnce:
    """One session's evidence, over any number of Ears."""

    def __init__(self) -> None:
        # The session has been told everything up to here; None before its first window.
        self._told: int | None = None
        # Its newest onset or pause, None where none matters any more: whether the session believes that the caller speaks.
        self._told_speech: SpeechStarted | SpeechStopped | None = None
        # Of an Ear that hears told input again: how far it has come, and what it last said of speech. None once it has caught up.
        self._again: int | None = None
        self._again_speech: SpeechStarted | SpeechStopped | None = None

    def begin(self, wanted: int, held: int) -> int:
        """Another Ear is about to hear, `wanted` and what follows if that is still held (from `held` on). Returns the position to feed it
        from: at or before `wanted` where that can be, and such that windows fall where they fell before."""
        self._again_speech = None
        if self._told is None:
            self._again = None
            return held
        start = self._told - -(-(self._told - min(wanted, self._told)) // _WINDOW) * _WINDOW
        start = start if start >= held else held + (self._told - held) % _WINDOW
        self._again = start
        return start

    def forget(self, end: int) -> None:
        """The input before `end` is committed or discarded: speech that goes on across it will be reported as begun anew."""
        if self._told_speech is not None and self._told_speech.at < end:
            self._told_speech = None

    def tell(self, event: EarEvent) -> list[EarEvent]:
        """What the session is told of `event`, the next one of the present Ear."""
        caught_up: list[EarEvent] = []
        if self._again is not None:
            assert self._told is not None
            if self._again < self._told:
                self._hear_again(event)
                return []
            caught_up = self._agree()
            self._again = None
        for one in (*caught_up, event):
            self._note(one)
        return [*caught_up, event]

    def _hear_again(self, event: EarEvent) -> None:
        match event:
            case Listened(at):
                self._again = at
            case SpeechStarted() | SpeechStopped():
                self._again_speech = event

    def _agree(self) -> list[EarEvent]:
        """A model that begins in the middle may see it differently: if the session believed in speech that has gone, or the other way
        round, it would wait for an end that never comes."""
        told, again = isinstance(self._told_speech, SpeechStarted), isinstance(self._again_speech, SpeechStarted)
        if told == again:
            return []
        assert self._told is not None
        return [self._again_speech or SpeechStopped(self._told, 0.0)]

    def _note(self, event: EarEvent) -> None:
        match event:
            case Listened(at):
                self._told = at
            case SpeechStarted() | SpeechStopped():
                self._told_speech = event
