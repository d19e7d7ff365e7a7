"""Whisper's encoder over a stream: blocks of audio frames are committed once, the rest is provisional and computed when asked for.

Whisper was trained with every frame attending to a whole clip of 30 s, most of it silence. Here a block attends to the cached keys and
values of what was committed before it, to itself, to a lookahead that is computed with it and thrown away (computed again, as a block,
when its own lookahead has come), and from there on to silence, whose keys and values are computed once for all streams (`hear_silence`)
and thinned (`models.whisper.Silence`). So the model sees its 30 s at the price of the frames that hold sound; without the silence its
decoder does not know where the end is and repeats itself. Blocks are cut at fixed positions, so any split of the same sound commits the
same frames. What follows the last block is the provisional tail: there the encoder sees what a full one sees, but for the blocks being as
they were when committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np
import torch
from torch import Tensor

from streaming.audio import Samples
from streaming.batching import Call, Work
from streaming.features import HOP, SILENCE, Features, LogMel
from streaming.models.whisper import AttentionCache, Silence, Span, WhisperEncoder
from streaming.transfer import sent

__all__ = [
    "AFTER",
    "BEFORE",
    "FRAME_MEL",
    "FRAME_SAMPLES",
    "BlockPlan",
    "Encode",
    "EncoderStation",
    "EncoderStream",
    "Ending",
    "SoundStream",
    "WhisperSound",
    "hear_silence",
    "silent_mel",
]

FRAME_MEL: Final = 2
"""Mel frames per audio frame."""

FRAME_SAMPLES: Final = 320
"""Samples per audio frame: 20 ms."""

BEFORE: Final = 2
"""Mel frames the convolutions reach to the left of an audio frame's first one."""

AFTER: Final = 1
"""And to the right of its last one."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Where blocks are cut, in audio frames of 20 ms. Raises ValueError where a block could never be committed.

    `first` is longer than `block`: the first seconds are the least certain, and most turns end before they are committed, and are then
    encoded as in full. `silence` is computed behind the tail, where silence still differs from silence that follows silence.
    """

    first: int = 160
    block: int = 96
    lookahead: int = 64
    silence: int = 25

    def __post_init__(self) -> None:
        if self.first < 1 or self.block < 1 or self.lookahead < 0 or self.silence < 1:
            raise ValueError(f"{self}: blocks and silence have at least one frame, lookahead none or more")


class Ending(Enum):
    """What the provisional frames of a sound end with."""

    PAUSE = auto()
    """Some silence, `BlockPlan.silence`."""

    SOUND = auto()
    """The sound: the frame of its last sample is the last."""

    WHOLE_FRAMES = auto()
    """The last frame of 10 ms that the sound fills, made an even number; behind it is nothing, not even silence."""

    CLIP = auto()
    """The model's last position: silence up to there, 30 s in all."""


_FRAMES_AT_ONCE: Final = 256
"""Frames of one batch on a CPU: 50 ms on one core. Frames are arithmetic, so more at once saves nothing there."""

_DEVICE_FRAMES: Final = 6_000
"""The same on a GPU."""


def silent_mel(model: WhisperEncoder) -> Tensor:
    """The mel frames of silence at every position, with what the convolutions reach around them."""
    mel = torch.full((BEFORE + FRAME_MEL * model.shape.audio_positions + AFTER, model.shape.mels), SILENCE, device=model.positions.device)
    mel[:BEFORE] = 0
    mel[-AFTER:] = 0
    return mel


@torch.inference_mode()
def hear_silence(model: WhisperEncoder) -> tuple[AttentionCache, Tensor]:
    """What the model makes of silence at each of its positions: keys and values, and output (positions, width)."""
    cache = model.new_cache()
    output: Tensor = model(model.stem(silent_mel(model), 0), [Span(cache.capacity, 0, cache)])
    return cache, output


@dataclass(slots=True, eq=False)
class Encode:
    """A `Call`: mel frames (2n + 3, mels) to audio frames (n, width) standing at `start`, found in `frames`. Several pieces of work may
    wait for it: it is made once."""

    station: "EncoderStation"
    mel: Tensor
    start: int
    cache: AttentionCache
    frames: Tensor | None = None
    # Mel frames behind which nothing stands; None where it is not known.
    ends: int | None = None

    @property
    def rows(self) -> int:
        """Audio frames."""
        return (len(self.mel) - BEFORE - AFTER) // FRAME_MEL


class EncoderStation:
    """The encoder as a `Station`."""

    def __init__(self, model: WhisperEncoder, silence: Silence | None) -> None:
        """`silence` follows what was heard; None for models that were trained to see nothing behind the sound."""
        self.model: Final = model
        self._silence = silence

    @property
    def rows_at_once(self) -> int:
        """See `Station`."""
        return _FRAMES_AT_ONCE if self.model.positions.device.type == "cpu" else _DEVICE_FRAMES

    @torch.inference_mode()
    def run(self, calls: Sequence[Call]) -> None:
        """See `Station`."""
        encodes = list(dict.fromkeys(call for call in calls if isinstance(call, Encode) and call.frames is None))
        if not encodes:
            return
        stems = [self.model.stem(call.mel, call.start, call.ends) for call in encodes]
        spans = [Span(len(stem), call.start, call.cache, self._silence) for stem, call in zip(stems, encodes, strict=True)]
        frames = self.model(torch.cat(stems), spans)
        for call, part in zip(encodes, torch.split(frames, [span.count for span in spans]), strict=True):
            call.frames = part


class EncoderStream:
    """One sequence of at most the model's positions (1,500: 30 s), the silence behind it included. Holds keys and values of its sound:
    12 kB a frame for Whisper base in bfloat16, 18 MB for 30 s."""

    def __init__(self, station: EncoderStation, plan: BlockPlan | None = None) -> None:
        self._station = station
        self._model = station.model
        self._plan = plan or BlockPlan()
        # Made when there is something to encode.
        self._cache: AttentionCache | None = None
        # Mel frames from `BEFORE` before the first that is not committed: at most a block, its lookahead and what was pushed since.
        self._mel: Features = np.zeros((BEFORE, self._model.shape.mels), np.float32)
        self._committed = 0

    @property
    def committed(self) -> int:
        """Audio frames committed so far."""
        return self._committed

    def push(self, mel: Features) -> None:
        """Take mel frames (n, mels). Cheap: call `commit` until it gives None before the next push, or when there is time."""
        self._mel = np.concatenate((self._mel, mel))

    def commit(self) -> Work[Tensor | None]:
        """The next block's frames (n, width), final; None where its lookahead has not been heard."""
        block = self._plan.block if self._committed else self._plan.first
        needed = BEFORE + FRAME_MEL * (block + self._plan.lookahead) + AFTER
        if len(self._mel) < needed:
            return None
        frames = (yield from self._run(self._mel[:needed]))[:block]
        self._mel = self._mel[FRAME_MEL * block :]
        self._committed += block
        return frames

    def provisional(self, tail: Features, end: int | None = None, *, bare: bool = False) -> Work[Tensor]:
        """The frames after the last block, (n, width), as if what was pushed were followed by `tail` (`LogMel.tail`) and silence: those
        before frame `end`, or with None all and the plan's silence. With `bare` nothing stands behind frame `end`. Changes nothing that is
        committed. Raises ValueError where the sequence is longer than the model's positions."""
        heard = len(self._mel) - BEFORE + len(tail)
        frames = -(-heard // FRAME_MEL) + self._plan.silence if end is None else end - self._committed
        if frames < 1:
            return torch.zeros(0, self._model.shape.width, device=self._model.positions.device)
        wanted = BEFORE + FRAME_MEL * frames + AFTER
        quiet = np.full((max(0, wanted - BEFORE - heard), self._mel.shape[1]), SILENCE, np.float32)
        mel = np.concatenate((self._mel, tail, quiet))[:wanted]
        if bare or end == self._model.shape.audio_positions:
            mel[-AFTER:] = 0  # there the reference pads with zeros, not with silence
        return (yield from self._run(mel))

    def _run(self, mel: Features) -> Work[Tensor]:
        """Audio frames (n, width) from the first that is not committed on; their keys and values stand in the cache."""
        cache = self._cache = self._cache or self._model.new_cache()
        call = Encode(self._station, sent(torch.from_numpy(mel), self._model.positions.device), self._committed, cache)
        yield call
        assert call.frames is not None
        return call.frames


class SoundStream:
    """An `AudioStream`: features and encoder of one sequence."""

    def __init__(self, station: EncoderStation, plan: BlockPlan | None = None, ending: Ending = Ending.PAUSE) -> None:
        self._features = LogMel(mels=station.model.shape.mels)
        self._encoder = EncoderStream(station, plan)
        self._ending = ending
        self._positions = station.model.shape.audio_positions
        # Samples pushed so far.
        self._samples = 0

    @property
    def committed(self) -> int:
        """See `AudioStream`."""
        return self._encoder.committed

    def push(self, pcm: Samples) -> None:
        """See `AudioStream`. Costs the features only, 1 % of real time."""
        self._samples += len(pcm)
        self._encoder.push(self._features.push(pcm))

    def commit(self) -> Work[Tensor | None]:
        """See `AudioStream`: a block."""
        return (yield from self._encoder.commit())

    def provisional(self) -> Work[Tensor]:
        """See `AudioStream`. Raises ValueError where the sequence is longer than the model's positions."""
        end = {
            Ending.PAUSE: None,
            Ending.SOUND: -(-self._samples // FRAME_SAMPLES),
            Ending.WHOLE_FRAMES: -(-(self._samples // HOP) // FRAME_MEL),
            Ending.CLIP: self._positions,
        }[self._ending]
        return (yield from self._encoder.provisional(self._features.tail(), end, bare=self._ending is Ending.WHOLE_FRAMES))


class WhisperSound:
    """Whisper's encoder as an `AudioEncoder`: streams of at most 30 s."""

    def __init__(self, station: EncoderStation, plan: BlockPlan | None = None) -> None:
        self._station = station
        self._plan = plan

    @property
    def width(self) -> int:
        """See `AudioEncoder`."""
        return self._station.model.shape.width

    @property
    def row_samples(self) -> int:
        """See `AudioEncoder`."""
        return FRAME_SAMPLES

    def stream(self) -> SoundStream:
        """See `AudioEncoder`."""
        return SoundStream(self._station, self._plan)
