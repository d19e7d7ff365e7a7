"""Opus decoded by libopus itself. FFmpeg's wrapper, which PyAV and the WebRTC library decode with, can neither conceal a lost packet nor
read the copy of it that the next one may carry (RFC 6716, sections 2.1.7 and 4.4); libopus does both, and PyAV's wheel has it.
"""

import ctypes
import ctypes.util
import functools
from pathlib import Path
from typing import Final

import av
import numpy as np

from streaming.audio import Pcm16

__all__ = ["RATE", "OpusDecoder", "OpusError", "carries_copy", "library_problem"]

RATE: Final = 48_000
"""Opus's own rate: nothing is resampled on the way."""
_LONGEST: Final = RATE * 120 // 1_000
"""Samples that one packet may hold."""
_STEP: Final = RATE // 400
"""Sound is concealed in multiples of 2.5 ms."""
_OK: Final = 0
# A packet's first byte: five bits of mode and length, one of stereo, two of the number of frames.
_SEVERAL_FRAMES: Final = 3
_STEREO: Final = 4
_CELT: Final = 16
"""From this mode on a packet is not SILK's at all, and has no copy."""
_TWENTIES: Final = (1, 1, 2, 3) * 3
"""Of SILK's own modes: how many times 20 ms a frame has."""


class OpusError(Exception):
    """A packet that can't be decoded, or no libopus to decode with."""


class OpusDecoder:
    """One stream, mono; a stereo packet is mixed down."""

    def __init__(self) -> None:
        """Raises OpusError where libopus is not found."""
        self._library = _library()
        error = ctypes.c_int()
        self._state: int | None = self._library.opus_decoder_create(RATE, 1, ctypes.byref(error))
        if error.value != _OK or not self._state:
            raise OpusError(f"libopus makes no decoder: error {error.value}.")
        self._sound = np.zeros(_LONGEST, np.int16)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_decoder_destroy(self._state)
            self._state = None

    def decode(self, packet: bytes) -> Pcm16:
        """What the packet holds, shape (n,). Raises OpusError."""
        return self._run(packet, _LONGEST, recover=False)

    def conceal(self, samples: int) -> Pcm16:
        """What may have been in `samples` that are lost: the voice goes on and fades within some 100 ms."""
        return self._run(None, _whole(samples), recover=False)

    def recover(self, packet: bytes, samples: int) -> Pcm16:
        """The `samples` before `packet`, from the copy in it where it has one, else concealed. `packet` is to be decoded next. Raises
        OpusError."""
        return self._run(packet, _whole(samples), recover=True)

    def _run(self, packet: bytes | None, room: int, *, recover: bool) -> Pcm16:
        size = len(packet) if packet is not None else 0
        made: int = self._library.opus_decode(self._state, packet, size, self._sound.ctypes.data, room, int(recover))
        if made < 0:
            raise OpusError(f"A packet of {size} bytes is no Opus: error {made}.")
        return self._sound[:made].copy()


def carries_copy(packet: bytes) -> bool:
    """Whether a packet of one frame, which is what everybody sends, has a copy of the one before it: a flag behind those for speech, of
    which there is one for each 20 ms (RFC 6716, sections 3.1 and 4.2.3)."""
    if len(packet) < 2 or packet[0] & _SEVERAL_FRAMES or packet[0] >> 3 >= _CELT:
        return False
    twenties = _TWENTIES[packet[0] >> 3] if packet[0] >> 3 < len(_TWENTIES) else 1
    middle, side = packet[1] >> (7 - twenties), packet[1] >> (6 - 2 * twenties)
    return bool((middle | side) & 1 if packet[0] & _STEREO else middle & 1)


def library_problem() -> str | None:
    """Why nothing can be decoded on this system; None where it can."""
    try:
        _library()
    except OpusError as error:
        return str(error)
    return None


def _whole(samples: int) -> int:
    return min(max(samples // _STEP, 1) * _STEP, _LONGEST)


@functools.cache
def _library() -> ctypes.CDLL:
    """libopus with the types of what is called."""
    path = _find()
    if path is None:
        raise OpusError("libopus is neither in PyAV's wheel nor on this system: install PyAV's wheel, or the system's package of libopus.")
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise OpusError(f"libopus at {path} can't be loaded: {error}.") from error
    library.opus_decoder_create.restype = ctypes.c_void_p
    library.opus_decoder_create.argtypes = [ctypes.c_int32, ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
    library.opus_decoder_destroy.restype = None
    library.opus_decoder_destroy.argtypes = [ctypes.c_void_p]
    library.opus_decode.restype = ctypes.c_int
    library.opus_decode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    return library


def _find() -> str | None:
    """The library beside PyAV (where wheels of Linux and Windows, and of macOS, keep theirs), else the system's."""
    package = Path(av.__file__).parent
    for folder in (package.parent / "av.libs", package / ".dylibs"):
        for found in sorted(folder.glob("*opus*")):
            return str(found)
    return ctypes.util.find_library("opus")
