"""From the frames of Whisper's encoder to rows of a language model: the projectors of the audio language models.

Each makes one row of `stack` frames and of nothing else, so a stretch that begins at a multiple of `stack` has the rows of the whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from torch import Tensor
from torch.nn import functional

__all__ = ["GatedProjector", "PooledProjector", "Projector", "StackedProjector", "Take", "gated", "pooled", "stacked"]

Take = Callable[[str, tuple[int, ...]], Tensor]
"""The projector's tensor of this name and this shape. Raises WeightsError where there is none."""

_EPSILON: Final = 1e-6
"""Of Ultravox's norms."""


class Projector(Protocol):
    """Frames (n, width of the encoder) to rows, one for each `stack` frames, (rows, `width`)."""

    @property
    def stack(self) -> int:
        """Frames of a row."""

    @property
    def width(self) -> int:
        """Of a row."""

    def __call__(self, frames: Tensor) -> Tensor:
        """The rows of some frames. What is left over at their end is as the reference has it."""


@dataclass(frozen=True, slots=True, eq=False)
class PooledProjector:
    """Qwen2-Audio (Chu et al. 2024): the mean of two frames, the encoder's last norm, one linear layer. An odd last frame is dropped."""

    norm: tuple[Tensor, Tensor]
    linear: tuple[Tensor, Tensor]
    stack: int = 2

    @property
    def width(self) -> int:
        return len(self.linear[0])

    def __call__(self, frames: Tensor) -> Tensor:
        pairs = frames[: len(frames) // 2 * 2].view(-1, 2, frames.shape[1]).mean(dim=1)  # (n / 2, width)
        return functional.linear(functional.layer_norm(pairs, pairs.shape[1:], *self.norm), *self.linear)


@dataclass(frozen=True, slots=True, eq=False)
class StackedProjector:
    """Voxtral (Liu et al. 2025): frames beside each other, two linear layers with GELU between. What does not fill a row is dropped."""

    first: Tensor
    second: Tensor
    stack: int

    @property
    def width(self) -> int:
        return len(self.second)

    def __call__(self, frames: Tensor) -> Tensor:
        rows = frames[: len(frames) // self.stack * self.stack].reshape(-1, self.stack * frames.shape[1])
        return functional.linear(functional.gelu(functional.linear(rows, self.first)), self.second)


@dataclass(frozen=True, slots=True, eq=False)
class GatedProjector:
    """Ultravox: frames beside each other, a norm, a gated linear layer (the second half is the gate), another norm in the middle (since
    version 0.5) or at the end (before), and a linear layer. The last row is filled up with zeros."""

    before: Tensor
    first: Tensor
    between: Tensor | None
    second: Tensor
    after: Tensor | None
    stack: int

    @property
    def width(self) -> int:
        return len(self.second)

    def __call__(self, frames: Tensor) -> Tensor:
        filled = functional.pad(frames, (0, 0, 0, -len(frames) % self.stack))
        values, gates = functional.linear(_normed(filled.reshape(-1, len(self.before)), self.before), self.first).chunk(2, dim=-1)
        rows = functional.linear(_normed(functional.silu(gates) * values, self.between), self.second)
        return _normed(rows, self.after)


def _normed(rows: Tensor, weight: Tensor | None) -> Tensor:
    return rows if weight is None else functional.rms_norm(rows, weight.shape, weight, _EPSILON)


def pooled(take: Take, norm: tuple[Tensor, Tensor], width: int) -> PooledProjector:
    """Qwen2-Audio's to rows of `width`; `norm` is weight and bias of the encoder's last one."""
    return PooledProjector(norm, (take("linear.weight", (width, len(norm[0]))), take("linear.bias", (width,))))


def stacked(take: Take, frame_width: int, stack: int, width: int) -> StackedProjector:
    """Voxtral's: rows of `stack` frames of `frame_width` to rows of `width`."""
    return StackedProjector(take("linear_1.weight", (width, stack * frame_width)), take("linear_2.weight", (width, width)), stack)


def gated(take: Take, frame_width: int, stack: int, hidden: int, width: int, *, middle: bool) -> GatedProjector:
    """Ultravox's: `hidden` is the width before the gate, `middle` where the second norm stands."""
    return GatedProjector(
        before=take("ln_pre.weight", (stack * frame_width,)),
        first=take("linear_1.weight", (hidden, stack * frame_width)),
        between=take("ln_mid.weight", (hidden // 2,)) if middle else None,
        second=take("linear_2.weight", (width, hidden // 2)),
        after=None if middle else take("ln_post.weight", (width,)),
        stack=stack,
    )
