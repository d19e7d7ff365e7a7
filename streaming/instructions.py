"""What a language model is told where nobody tells it anything."""

from typing import Final

__all__ = ["SPOKEN_INSTRUCTIONS"]

SPOKEN_INSTRUCTIONS: Final = (
    "You are a friendly voice assistant talking with a person. Answer in one or two short, plain spoken sentences. "
    "Do not use lists, headings, symbols or markup."
)
"""What the model is told where a session gives no instructions of its own; a bundle may bring others."""
