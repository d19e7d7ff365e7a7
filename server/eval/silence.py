"""What a running server makes of sound in which nobody speaks: turns begun, words written, answers begun, per minute.

Each recording is a call of its own over the Realtime protocol, sent faster than real time where `pace` is above 1, with 2 s of silence
behind it. Sound is counted, not waiting. The recogniser by itself and the decision that throws words away are measured by
`python -m benchmarks.no_speech`; this is the whole server, from outside, and any server that speaks the protocol.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from server.caller_wire import ROOM_SECONDS, CallError, JsonObject, open_connection, text_of
from server.eval.clips import Clip, load_clip
from server.eval.errors import EvalError
from streaming.audio import Samples, encode_pcm16, resample_clause, to_pcm16
from streaming.events import SAMPLE_RATE

__all__ = ["Overheard", "as_json", "overhear", "report_overheard"]

_WIRE_RATE: Final = 24_000
_CHUNK: Final = _WIRE_RATE // 10
_BEHIND_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 3.0
"""Without news after the last sound: it may be 30 s ahead of the engine, which hears it twenty times as fast on two idle cores."""
_PATIENCE_SECONDS: Final = 60.0
"""For the words of the last turns, of a machine that is busy."""


@dataclass(frozen=True, slots=True)
class Overheard:
    """What came of one recording. `turns` that were committed, `words` in their transcripts, `answers` begun."""

    clip: str
    kind: str
    seconds: float
    turns: int
    words: int
    answers: int
    texts: tuple[str, ...]


async def overhear(url: str, api_key: str | None, clips: Sequence[Clip], pace: float, done: Callable[[], object]) -> list[Overheard]:
    """Every recording, one call after another. Raises EvalError."""
    found = []
    for clip in clips:
        try:
            found.append(await _listen(url, api_key, clip, load_clip(clip), pace))
        except (CallError, ConnectionClosed, TimeoutError) as error:
            raise EvalError(f"{clip.name}: the call failed: {error or type(error).__name__}") from error
        done()
    return found


async def _listen(url: str, api_key: str | None, clip: Clip, pcm: Samples, pace: float) -> Overheard:
    silence = np.zeros(int(_BEHIND_SECONDS * SAMPLE_RATE), np.float32)
    sound = to_pcm16(resample_clause(np.concatenate([pcm, silence]), SAMPLE_RATE, _WIRE_RATE))
    connection = await open_connection(url, api_key, ROOM_SECONDS)
    try:
        session = {"type": "realtime", "audio": {"input": {"transcription": {}, "turn_detection": {"type": "semantic_vad"}}}}
        await connection.send(json.dumps({"type": "session.update", "session": session}))
        told = _Told()
        reader = asyncio.create_task(told.read(connection))
        try:
            for start in range(0, len(sound), _CHUNK):
                audio = base64.b64encode(encode_pcm16(sound[start : start + _CHUNK])).decode()
                await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                await asyncio.sleep(_CHUNK / _WIRE_RATE / pace)
            await told.settled()
        finally:
            reader.cancel()
    finally:
        await connection.close()
    texts = tuple(told.texts)
    seconds = len(pcm) / SAMPLE_RATE
    return Overheard(clip.name, clip.field("kind"), seconds, told.turns, sum(len(text.split()) for text in texts), told.answers, texts)


class _Told:
    """What a server has told of a call."""

    def __init__(self) -> None:
        self.turns = 0
        self.answers = 0
        self.texts: list[str] = []
        # Committed turns whose words are due.
        self._due = 0
        self._news = asyncio.Event()

    async def read(self, connection: ClientConnection) -> None:
        """Until the connection ends."""
        async for message in connection:
            self._take(json.loads(message))

    def _take(self, event: JsonObject) -> None:
        match text_of(event, "type"):
            case "input_audio_buffer.committed":
                self.turns += 1
                self._due += 1
            case "conversation.item.input_audio_transcription.completed":
                self._due -= 1
                self.texts.append(text_of(event, "transcript"))
            case "conversation.item.input_audio_transcription.failed":
                self._due -= 1
            case "response.created":
                self.answers += 1
            case _:
                return
        self._news.set()

    async def settled(self) -> None:
        """Until the server has caught up: nothing new for a while and the words of every turn there."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while True:
                    self._news.clear()
                    try:
                        async with asyncio.timeout(_QUIET_SECONDS):
                            await self._news.wait()
                    except TimeoutError:
                        if self._due <= 0:
                            return
        except TimeoutError:
            return


def report_overheard(found: Sequence[Overheard], console: Console) -> None:
    """A line a kind of sound, and one of all."""
    table = Table()
    for column in ("sound", "recordings", "minutes", "turns", "words", "answers", "words a minute"):
        table.add_column(column, justify="left" if column == "sound" else "right")
    kinds = list(dict.fromkeys(one.kind for one in found))
    for kind in [*kinds, *(["all"] if len(kinds) > 1 else [])]:
        mine = [one for one in found if kind in (one.kind, "all")]
        minutes, words = sum(one.seconds for one in mine) / 60, sum(one.words for one in mine)
        counts = (sum(one.turns for one in mine), words, sum(one.answers for one in mine))
        table.add_row(kind or "-", str(len(mine)), f"{minutes:.1f}", *map(str, counts), f"{words / minutes:.2f}")
    console.print(table)
    for one in found:
        if one.words:
            console.print(f"{one.clip}: {' | '.join(one.texts)}", markup=False)


def as_json(found: Sequence[Overheard]) -> dict[str, object]:
    """What came of each recording."""
    return {"recordings": [asdict(one) for one in found]}
