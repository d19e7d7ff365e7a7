"""The caller's end of the sound: recordings to be spoken, and a loudspeaker that plays what arrives. No clock, no socket.

All positions are samples at 24 kHz (`CALLER_RATE`), all times seconds of whatever clock the caller passes in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile

from streaming.audio import Pcm16, Samples, resample_clause, to_pcm16

__all__ = [
    "CALLER_RATE",
    "PlayedPart",
    "Recording",
    "RecordingError",
    "VirtualSpeaker",
    "load_recording",
    "render",
    "speech_end",
    "write_wav",
]

CALLER_RATE: Final = 24_000
"""Samples per second both ways: the Realtime protocol's PCM16."""

_AUDIBLE: Final = 328
"""A sample counts as audible from -40 dBFS on: above a voice's own hiss, below any spoken sound."""

_FRAME: Final = CALLER_RATE // 100
"""Loudness is measured over 10 ms."""

_BELOW_PEAK_DB: Final = 35.0
_ABOVE_FLOOR_DB: Final = 6.0
"""A frame is speech within 35 dB of the loudest and 6 dB above the noise floor (the tenth percentile of frames)."""

_SPEECH_FRAMES: Final = 3
"""Speech lasts at least 30 ms: a shorter sound is a click."""


class RecordingError(Exception):
    """A file can't be used as a recording; the message is one line for a person."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Speech to be played at microphone pace: `pcm` int16 shape (n,) at 24 kHz; `speech_end` is the position after its last speech
    sample."""

    name: str
    pcm: Pcm16
    speech_end: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.pcm) / CALLER_RATE


def load_recording(path: Path) -> Recording:
    """Any format soundfile reads, mixed to mono, at 24 kHz. Raises RecordingError where there is no such file, it can't be read or it
    holds no sound."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (n, channels)
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        raise RecordingError(f"{path}: not a recording that can be read ({str(error).rstrip('.')})") from error
    mono: Samples = np.ascontiguousarray(sound.mean(axis=1, dtype=np.float32))
    pcm = to_pcm16(resample_clause(mono, int(rate), CALLER_RATE))
    if not len(pcm):
        raise RecordingError(f"{path}: the recording is empty")
    return Recording(str(path), pcm, speech_end(pcm))


def speech_end(pcm: Pcm16) -> int:
    """The position after the last speech sample of a 24 kHz clip, to 10 ms, by loudness; the clip's end where nothing stands out (silence
    throughout, or a clip that was cut while somebody spoke)."""
    frames = pcm[: len(pcm) // _FRAME * _FRAME].astype(np.float64).reshape(-1, _FRAME)
    if not len(frames):
        return len(pcm)
    loudness = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1.0)  # (frames,) dB over one step of 16 bits
    threshold = max(float(loudness.max()) - _BELOW_PEAK_DB, float(np.percentile(loudness, 10)) + _ABOVE_FLOOR_DB)
    loud = loudness >= threshold
    # Frame i ends a run of 3 loud ones.
    runs = np.flatnonzero(loud[2:] & loud[1:-1] & loud[:-2]) + _SPEECH_FRAMES - 1 if len(loud) >= _SPEECH_FRAMES else np.zeros(0, np.intp)
    return int(runs[-1] + 1) * _FRAME if len(runs) else len(pcm)


@dataclass(frozen=True, slots=True, eq=False)
class PlayedPart:
    """A stretch of reply audio and when its first sample sounds, in seconds."""

    response_id: str
    at: float
    pcm: Pcm16

    @property
    def end(self) -> float:
        """When its last sample has sounded."""
        return self.at + len(self.pcm) / CALLER_RATE


class VirtualSpeaker:
    """Plays audio the moment it arrives and back to back, like a client without a jitter buffer; nothing is heard, all is accounted for.

    Holds every sample of the call (48 kB a second): a call is as long as its recordings.
    """

    def __init__(self) -> None:
        # In order of time, without overlap.
        self.parts: list[PlayedPart] = []

    def push(self, response_id: str, pcm: Pcm16, now: float) -> None:
        """Queue audio that arrived at `now`."""
        if len(pcm):
            self.parts.append(PlayedPart(response_id, max(now, self.busy_until()), pcm))

    def busy_until(self) -> float:
        """When everything queued has sounded; minus infinity before the first sound."""
        return self.parts[-1].end if self.parts else -np.inf

    def played(self, response_id: str, now: float) -> int:
        """Samples of the response that have sounded by `now`."""
        return sum(_sounded(part, now) for part in self.parts if part.response_id == response_id)

    def at(self, now: float) -> PlayedPart | None:
        """The part that sounds at `now`, or else the last one before."""
        return next((part for part in reversed(self.parts) if part.at <= now), None)

    def playing(self, now: float) -> str | None:
        """The response that is sounding at `now`."""
        part = self.at(now)
        return part.response_id if part is not None and now < part.end else None

    def cut(self, now: float) -> None:
        """Stop: what has not sounded by `now` never will."""
        while self.parts and self.parts[-1].end > now:
            part = self.parts.pop()
            heard = part.pcm[: _sounded(part, now)]
            if len(heard):
                self.parts.append(PlayedPart(part.response_id, part.at, heard))
                return

    def first_audible(self, response_id: str) -> float | None:
        """When the first audible sample of the response sounds, a voice's silence before it included; None where all was silent."""
        for part in self.parts:
            if part.response_id == response_id:
                loud = np.flatnonzero(np.abs(part.pcm.astype(np.int32)) >= _AUDIBLE)
                if len(loud):
                    return part.at + int(loud[0]) / CALLER_RATE
        return None


def _sounded(part: PlayedPart, now: float) -> int:
    return min(len(part.pcm), max(0, int((now - part.at) * CALLER_RATE)))


def render(parts: list[PlayedPart], start: float) -> Pcm16:
    """What was heard from `start` on, silence where there was none, shape (n,)."""
    if not parts:
        return np.zeros(0, np.int16)
    heard: npt.NDArray[np.int16] = np.zeros(max(0, round((parts[-1].end - start) * CALLER_RATE)) + 1, np.int16)
    for part in parts:
        first = round((part.at - start) * CALLER_RATE)
        pcm = part.pcm[max(0, -first) :]
        heard[max(0, first) : max(0, first) + len(pcm)] = pcm
    return heard


def write_wav(path: Path, pcm: Pcm16) -> None:
    """A 24 kHz mono 16-bit WAV file. Raises RecordingError where it can't be written."""
    try:
        soundfile.write(path, pcm, CALLER_RATE, subtype="PCM_16", format="WAV")
    except (OSError, RuntimeError) as error:
        raise RecordingError(f"{path}: can't be written ({str(error).rstrip('.')})") from error
