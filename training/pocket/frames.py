"""What Whisper's encoder makes of clips, kept in the cache folder some clips a file, so that a run that was stopped goes on.

A file is written under another name and then renamed: one that is there is whole. Frames are float16, 51 kB a second of sound.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.batching import completed
from streaming.encoder import BlockPlan, EncoderStation, SoundStream
from streaming.events import SAMPLE_RATE
from training.pocket.clips import Clip, DataError
from training.pocket.microphone import Microphone

__all__ = ["CHUNK", "WHOLE", "Heard", "encoded", "hear", "stored"]

CHUNK: Final = 100
"""Clips a file."""

WHOLE: Final = BlockPlan(first=1_400)
"""All of a clip at once, with silence behind it: what the encoder was trained for."""

_LONGEST: Final = 27 * SAMPLE_RATE
_SHORTEST: Final = SAMPLE_RATE // 5


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A clip as the encoder heard it: `frames` float16 (n, width), and what was said, perhaps nothing."""

    frames: npt.NDArray[np.float16]
    text: str
    source: str
    speaker: str


def encoded(station: EncoderStation, plan: BlockPlan, pcm: Samples) -> Tensor:
    """The frames (n, width) of a sound that comes in block by block, those behind the last block and some silence among them."""
    stream = SoundStream(station, plan)
    stream.push(pcm)
    parts = []
    while (frames := completed(stream.commit())) is not None:
        parts.append(frames)
    parts.append(completed(stream.provisional()))
    return torch.cat(parts)


def hear(
    folder: Path, start: int, clips: Sequence[Clip], station: EncoderStation, plans: Sequence[BlockPlan], microphone: Microphone, seed: int
) -> None:
    """Makes the file of the `CHUNK` clips from `start` on, where it is not there. Clips that are too long for the encoder, or hardly there,
    are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{start:06}.npz"
    if not path.is_file():
        _write(path, [heard for clip in clips[start : start + CHUNK] if (heard := _heard(clip, station, plans, microphone, seed))])


def stored(folder: Path) -> Iterator[Heard]:
    """What the files of a folder hold. Raises DataError, naming the file, for one that can't be read."""
    for path in sorted(folder.glob("*.npz")):
        try:
            with path.open("rb") as stream, np.load(stream) as kept:
                frames, ends = kept["frames"], kept["ends"]
                said = json.loads(bytes(kept["said"]).decode())
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(f"{path} can't be read ({error}): delete it, and it is made again") from error
        for end, count, (text, source, speaker) in zip(ends.tolist(), np.diff(ends, prepend=0).tolist(), said, strict=True):
            yield Heard(frames[end - count : end], text, source, speaker)


def recipe(*parts: Mapping[str, Any] | Sequence[Any] | str | int) -> str:
    """A name for what was made by these settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _heard(clip: Clip, station: EncoderStation, plans: Sequence[BlockPlan], microphone: Microphone, seed: int) -> Heard | None:
    rng = np.random.default_rng([seed, int(hashlib.sha256(clip.name.encode()).hexdigest()[:8], 16)])
    pcm = microphone.hear(clip.words(), rng) if clip.text else microphone.nothing(float(rng.uniform(1.5, 6.0)), rng)
    if not _SHORTEST <= len(pcm) <= _LONGEST:
        return None
    frames = encoded(station, plans[int(rng.integers(len(plans)))], pcm)
    return Heard(frames.float().numpy().astype(np.float16), clip.text, clip.source, clip.speaker)


def _write(path: Path, heard: Sequence[Heard]) -> None:
    said = json.dumps([(one.text, one.source, one.speaker) for one in heard]).encode()
    frames = np.concatenate([one.frames for one in heard]) if heard else np.zeros((0, 0), np.float16)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
        try:
            np.savez(stream, frames=frames, ends=np.cumsum([len(one.frames) for one in heard]), said=np.frombuffer(said, np.uint8))
        except OSError as error:
            Path(stream.name).unlink()
            raise DataError(f"{path} can't be written ({error.strerror}): make room and start again, it goes on from there") from error
    os.replace(stream.name, path)
