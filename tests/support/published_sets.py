"""Sound as it stands in the fields of published data sets."""

import io

import numpy as np
import soundfile

__all__ = ["sound"]


def sound(seconds: float = 0.5, rate: int = 16_000) -> dict[str, object]:
    """A field of sound as Hugging Face's files have it."""
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(int(seconds * rate)) / 9) * 0.3, rate, format="WAV")
    return {"bytes": file.getvalue(), "path": "clip.wav"}
