"""What is done to synthesised sound before it is played, a stretch at a time: level, silence off the edges, clicks too, resampling.

Nothing here looks ahead of what has come, and any split of the sound gives the same samples. The level is one gain for all that a voice
says, measured when it is loaded (`measure_gain`): a clause's own loudness is known only at its end, and the differences between clauses are
the voice's expression. What is silence is judged after that gain, so a fixed threshold does."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from streaming.audio import Pcm16, Samples, StreamResampler, to_pcm16

__all__ = ["Mastering", "Trimmer", "limit", "measure_gain"]

_WINDOW_SECONDS: Final = 0.005
"""Loudness is judged in windows this long."""

_TARGET_DBFS: Final = -20.0
"""RMS of what sounds: the usual level of telephone and conference speech, with room for peaks."""

_GAIN_LIMITS: Final = (0.25, 4.0)
"""A whisper is not made a shout."""

_KNEE, _CEILING = 0.75, 0.92
"""Peaks are bent from -2.5 dBFS on and stay below -0.7 dBFS: resampling may overshoot a little. One clause in four has such a peak."""

_SILENCE_DBFS: Final = -60.0
"""Where sound ends, and begins. Breath and the onset of an "f" or "h" stay above it, the voice's noise floor below."""

_LEAD_MS: Final = 20
"""Silence kept before the first sound of a piece: the softest onset is."""

_PROMPT_DBFS, _PROMPT_LEAD_MS = -50.0, 5
"""The same where a reply begins, for there it is latency. With these the caller hears a clause (-40 dBFS) 7 ms after its first sample, not
24 (medians of 24 clauses), and Whisper base hears the same words; at -40 dBFS it begins to mishear."""

_FADE_IN_MS, _FADE_OUT_MS = 4, 15


def measure_gain(sounds: Sequence[Samples], rate: int) -> float:
    """What brings `sounds`, examples of one voice, to the target loudness together. Silence, and no sounds at all, need none: 1."""
    window = max(1, int(rate * _WINDOW_SECONDS))
    loudness = np.concatenate([np.zeros(0, np.float32), *(_loudness(sound, window) for sound in sounds)])
    if not len(loudness) or loudness.max() <= 0:
        return 1.0
    # Pauses inside do not count: windows within 25 dB of the loudest.
    heard = loudness[loudness >= loudness.max() * 10 ** (-25 / 20)]
    return float(np.clip(10 ** (_TARGET_DBFS / 20) / np.sqrt(np.mean(heard**2)), *_GAIN_LIMITS))


def limit(samples: Samples) -> Samples:
    """Peaks bent below the ceiling, smoothly and each by itself; what is below the knee is not touched."""
    size = np.abs(samples)
    if not len(samples) or size.max() <= _KNEE:
        return samples
    room = np.float32(_CEILING - _KNEE)
    bent = np.float32(_KNEE) + room * np.tanh((size - np.float32(_KNEE)) / room)
    limited: Samples = np.where(size > _KNEE, np.copysign(bent, samples), samples).astype(np.float32, copy=False)
    return limited


class Trimmer:
    """One piece of sound without the silence at its edges, with fades in their place. `push` gives what is certain to be kept, `end` the
    rest.

    Held back are silence, until it is known whether sound follows, and 15 ms, which would be faded if the piece ended there: at most the
    longest pause a voice makes inside a piece.
    """

    def __init__(self, rate: int, *, prompt: bool = False) -> None:
        """`prompt` leaves less of the silence before the first sound."""
        self._window = max(1, int(rate * _WINDOW_SECONDS))
        self._lead = rate * (_PROMPT_LEAD_MS if prompt else _LEAD_MS) // 1000
        self._onset = 10 ** ((_PROMPT_DBFS if prompt else _SILENCE_DBFS) / 20)
        self._fade_in = np.linspace(0, 1, rate * _FADE_IN_MS // 1000, endpoint=False, dtype=np.float32)
        self._fade_out = np.linspace(1, 0, rate * _FADE_OUT_MS // 1000, dtype=np.float32)
        # The sample of the piece that is the first one kept; None while there has been no sound.
        self.start: int | None = None
        # What is held back, and which sample of the piece it begins at.
        self._held: Samples = np.zeros(0, np.float32)
        self._first = 0
        # Up to where windows have been judged, and where the last one with sound ended.
        self._judged = 0
        self._sound_end = 0

    def push(self, samples: Samples) -> Samples:
        """The samples, shape (n,), that are certain to be kept."""
        self._held = np.concatenate((self._held, samples))
        taken = self._first + len(self._held)
        self._judge(taken // self._window * self._window)
        if self.start is None:
            self._drop(self._judged - self._lead)
            return np.zeros(0, np.float32)
        return self._take(min(self._sound_end, taken - len(self._fade_out)))

    def end(self, pause: int) -> Samples:
        """The rest of the piece, faded out, and silence, so that `pause` samples follow the last sound."""
        taken = self._first + len(self._held)
        self._judge(taken)
        if self.start is None:
            return np.zeros(pause, np.float32)
        # What the voice says softly after the last loud window is kept, faded out, within the pause.
        sound_end = min(taken, self._sound_end)
        tail = min(taken, sound_end + len(self._fade_out))
        rest = self._take(tail)
        faded = min(len(self._fade_out), len(rest))
        rest[len(rest) - faded :] *= self._fade_out[len(self._fade_out) - faded :]
        return np.concatenate((rest, np.zeros(max(0, pause - (tail - sound_end)), np.float32)))

    def _judge(self, until: int) -> None:
        """Look for sound in the windows up to `until`; a last one that is not full counts as if silence followed."""
        loudness = _loudness(self._held[self._judged - self._first : until - self._first], self._window)
        if self.start is None:
            onset = np.flatnonzero(loudness >= self._onset)
            if len(onset):
                self.start = max(self._first, self._judged + int(onset[0]) * self._window - self._lead)
                self._drop(self.start)
        loud = np.flatnonzero(loudness >= 10 ** (_SILENCE_DBFS / 20))
        if self.start is not None and len(loud):
            self._sound_end = self._judged + int(loud[-1] + 1) * self._window
        self._judged = until

    def _drop(self, until: int) -> None:
        """Hold nothing before sample `until` of the piece."""
        if until > self._first:
            self._held = self._held[until - self._first :]
            self._first = until

    def _take(self, until: int) -> Samples:
        """A copy of what is held up to sample `until` of the piece, with its share of the fade in; it is no longer held."""
        assert self.start is not None
        taken = self._held[: max(0, until - self._first)].copy()
        ramp = self._fade_in[self._first - self.start :][: len(taken)]
        taken[: len(ramp)] *= ramp
        self._drop(until)
        return taken


class Mastering:
    """The pieces of a clause as they are played: `push` each one's sound, `end` it, and `flush` behind the last.

    Positions count samples of the clause at the rate asked for. The resampler holds 5 ms back."""

    def __init__(self, own_rate: int, rate: int, gain: float, *, prompt: bool = False) -> None:
        """From the voice's own rate to `rate`, in Hz. `prompt` where the clause begins a reply. Raises ValueError for rates that
        `StreamResampler` does not take."""
        self._resampler = StreamResampler(own_rate, rate)
        self._own_rate = own_rate
        self._rate = rate
        self._gain = np.float32(gain)
        self._trimmer = Trimmer(own_rate, prompt=prompt)
        # Samples at the voice's rate that pieces before this one have given, and all so far.
        self._before = self._kept = 0
        # Samples of the clause given so far.
        self.given = 0

    def push(self, samples: Samples) -> Pcm16:
        """The next of a piece's sound at the voice's own rate and level."""
        return self._play(self._trimmer.push(limit(samples * self._gain)))

    def position(self, sample: int) -> int | None:
        """Where sample `sample` of the piece will be; None while nothing of the piece has sounded. What is cut off at its start is at its
        start."""
        if self._trimmer.start is None:
            return None
        return round((self._before + max(0, sample - self._trimmer.start)) * self._rate / self._own_rate)

    def end(self, pause_ms: float) -> Pcm16:
        """The end of a piece, with the pause that follows it."""
        pcm = self._play(self._trimmer.end(round(self._own_rate * pause_ms / 1000)))
        self._trimmer = Trimmer(self._own_rate)
        self._before = self._kept
        return pcm

    @property
    def ended(self) -> int:
        """Where the last piece that has ended ends, its pause included."""
        return -(-self._before * self._rate // self._own_rate)

    def flush(self) -> Pcm16:
        """What the resampler has held back: the end of the clause."""
        pcm = to_pcm16(self._resampler.flush())
        self.given += len(pcm)
        return pcm

    def _play(self, kept: Samples) -> Pcm16:
        self._kept += len(kept)
        pcm = to_pcm16(self._resampler.push(kept))
        self.given += len(pcm)
        return pcm


def _loudness(samples: Samples, window: int) -> Samples:
    """RMS of each window, shape (windows,); the last one is filled with silence."""
    windows = np.zeros((-(-len(samples) // window), window), np.float32)
    windows.reshape(-1)[: len(samples)] = samples
    rms: Samples = np.sqrt(np.mean(windows**2, axis=1))
    return rms
