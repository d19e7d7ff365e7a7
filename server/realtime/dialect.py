"""Which of the two spellings of the OpenAI Realtime protocol a connection speaks: GA, or the retired beta that many clients still send.

The handshake decides, or else the first `session.update`; from then on it is fixed. Input is accepted in either spelling always.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

__all__ = ["SUBPROTOCOL", "Dialect", "handshake_dialect", "update_dialect"]

SUBPROTOCOL: Final = "realtime"
"""The only subprotocol ever selected; the others a browser offers carry keys and versions."""

_BETA_SUBPROTOCOL: Final = "openai-beta.realtime-v1"
_BETA_KEYS: Final = frozenset(
    {
        "modalities",
        "voice",
        "speed",
        "temperature",
        "turn_detection",
        "input_audio_format",
        "output_audio_format",
        "input_audio_transcription",
        "input_audio_noise_reduction",
        "input_audio_echo_cancellation",
        "max_response_output_tokens",
    }
)
"""Keys that stand at the top of a session in beta only; GA keeps them under `audio` or under another name."""


class Dialect(Enum):
    """The spelling of everything the server sends."""

    GA = "ga"
    BETA = "beta"


def handshake_dialect(beta_header: str, subprotocols: Sequence[str]) -> Dialect | None:
    """What the upgrade request implies, from its `OpenAI-Beta` header and offered subprotocols; None leaves it to the first update."""
    if "realtime=v1" in beta_header or _BETA_SUBPROTOCOL in subprotocols:
        return Dialect.BETA
    return None


def update_dialect(session: Mapping[str, object]) -> Dialect:
    """What the first `session.update` shows: beta has no `type` and flat keys."""
    if "type" not in session and "audio" not in session and not _BETA_KEYS.isdisjoint(session):
        return Dialect.BETA
    return Dialect.GA
