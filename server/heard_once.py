"""The Ear's evidence, told once: an Ear that hears the same input again is not believed again.

Pure. The Ear closes every window with its `Listened`, and windows lie at the same positions whenever the input is fed from a position that
`begin` named, so "about input that has been told" is decided window by window, exactly.
"""

from typing import Final

from streaming.events import EarEvent, Listened, SpeechStarted, SpeechStopped

__all__ = ["HeardOnce"]

_WINDOW: Final = 512
"""Samples the Ear judges at once (`streaming.vad.WINDOW`; not imported, for it brings ONNX with it)."""


_Speech = SpeechStarted | SpeechStopped


class HeardOnce:
    """One session's evidence, over any number of Ears."""

    def __init__(self) -> None:
        # The session has been told everything up to here; None before its first window.
        self._told: int | None = None
        # What it has been told of the window after that: of one that its Ear did not live to close.
        self._told_beyond: list[type[EarEvent]] = []
        # Its newest onset or pause, None where none matters any more: whether the session believes that the caller speaks.
        self._told_speech: _Speech | None = None
        # An Ear hears told input again: what it last said of speech, and what it has said of the window that it is at.
        self._again = False
        self._again_speech: _Speech | None = None
        self._window: list[EarEvent] = []

    def begin(self, wanted: int, held: int) -> int:
        """Another Ear is about to hear, `wanted` and what follows if that is still held (from `held` on). Returns the position to feed it
        from: at or before `wanted` where that can be, and such that windows fall where they fell before."""
        self._again, self._again_speech = self._told is not None, None
        self._window.clear()
        if self._told is None:
            return held
        start = self._told - -(-(self._told - min(wanted, self._told)) // _WINDOW) * _WINDOW
        return start if start >= held else held + (self._told - held) % _WINDOW

    def forget(self, end: int) -> None:
        """The input before `end` is committed or discarded: speech that goes on across it will be reported as begun anew."""
        if self._told_speech is not None and self._told_speech.at < end:
            self._told_speech = None

    def tell(self, event: EarEvent) -> list[EarEvent]:
        """What the session is told of `event`, the next one of the present Ear."""
        if not self._again:
            self._note(event)
            return [event]
        self._window.append(event)
        if isinstance(event, SpeechStarted | SpeechStopped):
            self._again_speech = event
        if not isinstance(event, Listened):
            return []
        window = self._window.copy()
        self._window.clear()
        assert self._told is not None
        return self._catch_up(window, self._told) if event.at > self._told else []

    def _catch_up(self, window: list[EarEvent], told: int) -> list[EarEvent]:
        """The first window beyond what was told. A model that begins in the middle may see it differently: if the session were left to
        believe in speech that has gone, or the other way round, it would wait for an end that never comes."""
        self._again = False
        news = [event for event in window if type(event) not in self._told_beyond]
        for event in news:
            self._note(event)
        believed, seen = isinstance(self._told_speech, SpeechStarted), isinstance(self._again_speech, SpeechStarted)
        if believed is not seen:
            correction = self._again_speech or SpeechStopped(told, 0.0)
            self._note(correction)
            news.insert(0, correction)
        return news

    def _note(self, event: EarEvent) -> None:
        match event:
            case Listened(at):
                self._told = at
                self._told_beyond.clear()
                return
            case SpeechStarted() | SpeechStopped():
                self._told_speech = event
        self._told_beyond.append(type(event))
