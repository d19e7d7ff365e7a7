"""The scripted engine's Ear: speech is what is loud. Positions, pauses and scores come in the rhythm of the real one."""

import math
from typing import Final

import numpy as np

from streaming.audio import AudioFrame, Samples
from streaming.events import SAMPLE_RATE, ConfigureEar, EndOfTurnScore, EngineEvent, Listened, SpeechStarted, SpeechStopped

__all__ = ["LoudnessEar"]

_WINDOW: Final = 512
"""Samples per loudness window, 32 ms: Silero's."""

_STOP_MS: Final = 100
"""Silence after which the Ear reports `SpeechStopped`, in ms (rounded to windows: 96)."""


class LoudnessEar:
    """Loudness over windows as evidence of speech: `push` frames of any size, the events depend on positions only."""

    def __init__(self, speech_rms: float, end_of_turn_ms: int, end_of_turn_probability: float) -> None:
        self.config = ConfigureEar()
        # RMS of a window from which on it counts as speech.
        self._speech_rms = speech_rms
        self._stop_windows = round(_STOP_MS * SAMPLE_RATE / 1000 / _WINDOW)
        self._score_windows = max(self._stop_windows, round(end_of_turn_ms * SAMPLE_RATE / 1000 / _WINDOW))
        self._end_of_turn_probability = end_of_turn_probability
        # Samples that don't fill a window yet: fewer than 512.
        self._held: Samples = np.zeros(0, np.float32)
        # Position of the first held sample.
        self._at = 0
        # End of the last loud window; None before any speech and after the pause has been scored.
        self._loud_until: int | None = None
        self._speaking = False
        # Samples of loud windows so far.
        self.spoken = 0

    def push(self, frame: AudioFrame) -> list[EngineEvent]:
        if not len(self._held):
            self._at = frame.at
        pcm = np.concatenate((self._held, frame.pcm))
        whole = len(pcm) // _WINDOW * _WINDOW
        events: list[EngineEvent] = []
        for window in pcm[:whole].reshape(-1, _WINDOW):
            events.extend(self._window(window))
        self._held = pcm[whole:]
        return events

    def _window(self, window: Samples) -> list[EngineEvent]:
        """Evidence of one window, (512,), its `Listened` last."""
        start, self._at = self._at, self._at + _WINDOW
        events: list[EngineEvent] = []
        if math.sqrt(float(np.mean(np.square(window, dtype=np.float64)))) >= self._speech_rms:
            if not self._speaking:
                self._speaking = True
                events.append(SpeechStarted(start, 1.0))
            self._loud_until = self._at
            self.spoken += _WINDOW
        elif self._loud_until is not None:
            silent = (self._at - self._loud_until) // _WINDOW
            if silent == self._stop_windows:
                self._speaking = False
                events.append(SpeechStopped(self._loud_until, 0.0))
            if silent == self._score_windows:
                self._loud_until = None
                if self.config.end_of_turn:
                    events.append(EndOfTurnScore(self._at, self._end_of_turn_probability))
        events.append(Listened(self._at))
        return events
