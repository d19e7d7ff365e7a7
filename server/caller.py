"""A caller made of recordings: a client of `/v1/realtime` that speaks at microphone pace and notes when everything arrived.

`vivavoce talk` shows its calls, the benchmark counts them. It behaves like a good client with a person before it: the microphone never
stops (silence is sent between recordings), audio plays as it arrives, and when the caller is heard speaking over the agent it stops
playing and sends `conversation.item.truncate`. It offers no tools.

    async with call(url, api_key) as caller:
        async for arrival in caller.speak(load_recording(path)):
            ...                                       # every server event, as it comes
        print(caller.turns[-1].latency_ms)
"""

import asyncio
import base64
import binascii
import contextlib
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from server.caller_audio import CALLER_RATE, Recording, VirtualSpeaker
from server.caller_wire import HANDSHAKE_SECONDS, Arrival, CallError, JsonObject, error_line, number_of, open_connection, text_of
from streaming.audio import Pcm16, decode_pcm16, encode_pcm16

__all__ = ["Caller", "Stage", "Turn", "call"]

_CHUNK: Final = CALLER_RATE // 50
"""The microphone hands over 20 ms at a time."""

_ACK_CHUNKS: Final = 5
"""`vivavoce.playback` goes out every 100 ms."""

_PATIENCE_SECONDS: Final = 60.0
"""How long after the last word an answer may begin: the slowest machine on the longest question."""

_KEPT_ARRIVALS: Final = 20_000
"""Events waiting for `speak`'s reader: an hour of a slow display. More means nobody reads: the oldest go."""

_GRACE_SECONDS: Final = 3.0
"""An answer begun before the caller had finished counts as the answer if no other has begun so long after the last word."""

_TRUNCATE_ID: Final = "caller_truncate_"
"""Our truncates may lose a race (the item has just been cut by the server): their errors are no failure."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the server's latency ledger, in ms."""

    name: str
    ms: float


@dataclass(slots=True)
class Turn:
    """One recording spoken and what came of it; complete when `speak` has ended. Times are seconds of the event loop's clock."""

    recording: Recording
    # When the recording's last speech sample passed the microphone.
    speech_ended: float
    # When the first audible sample of the answer sounded.
    answered: float | None = None
    # The response that answered: the last that was not cancelled.
    response_id: str = ""
    # What the server understood: final transcripts of the items committed in this turn.
    transcript: str = ""
    # The answer's words.
    reply: str = ""
    stages: tuple[Stage, ...] = ()
    ledger_ms: float | None = None
    # Whether the server says that the answer had been prepared before the turn was known to be over; None where it says nothing.
    prepared: bool | None = None
    # Responses begun before the caller had finished: false cut-offs.
    false_starts: int = 0
    arrivals: list[Arrival] = field(default_factory=list)

    @property
    def latency_ms(self) -> float | None:
        """Last speech sample spoken to first audible sample heard; None where nothing was heard."""
        return None if self.answered is None else (self.answered - self.speech_ended) * 1000


@contextlib.asynccontextmanager
async def call(
    url: str,
    api_key: str | None = None,
    *,
    turn_detection: JsonObject | None = None,
    acks_playback: bool = True,
    speculation: bool = True,
    max_output_tokens: int | None = None,
    patience: float = 0.0,
) -> AsyncIterator["Caller"]:
    """Connects to `ws://HOST:PORT/v1/realtime` (http works too), agrees on the session and opens the microphone. `turn_detection` is
    the wire's object, semantic_vad by default; `acks_playback` turns on `vivavoce.playback`, `speculation`
    False turns off replies prepared at pauses; `max_output_tokens` bounds each answer; a server that is full is asked again for `patience`
    seconds. Raises CallError."""
    connection = await open_connection(url, api_key, patience)
    try:
        caller = Caller(connection, acks_playback=acks_playback, speculation=speculation)
        await caller.agree(turn_detection or {"type": "semantic_vad"}, max_output_tokens)
        caller.start()
        try:
            yield caller
        finally:
            await caller.stop()
    finally:
        await connection.close()


class _Dialogue:
    """Whose turn it is, as far as the events tell: when the recording has been spoken, is its answer complete?"""

    def __init__(self) -> None:
        self.heard_speech = False
        # When the newest response began.
        self.last_created = -math.inf
        # The caller has been heard and nothing has answered it yet.
        self._owed = False
        # Responses begun and not done.
        self._active: set[str] = set()
        # Committed items without their final transcript.
        self._untranscribed: set[str] = set()
        self._answered = False

    def settled(self) -> bool:
        """An answer is complete, no other is due or under way, and every word of the caller is known."""
        return self._answered and not (self._owed or self._active or self._untranscribed)

    def take(self, arrival: Arrival) -> None:
        event = arrival.event
        match arrival.kind:
            case "input_audio_buffer.speech_started":
                self.heard_speech = self._owed = True
            case "input_audio_buffer.committed":
                self._untranscribed.add(text_of(event, "item_id"))
            case "conversation.item.input_audio_transcription.completed" | "conversation.item.input_audio_transcription.failed":
                self._untranscribed.discard(text_of(event, "item_id"))
            case "response.created":
                self.last_created = arrival.at
                self._owed = self._answered = False
                self._active.add(text_of(event, "response", "id"))
            case "response.done":
                self._active.discard(text_of(event, "response", "id"))
                self._answered = text_of(event, "response", "status") != "cancelled"


class Caller:
    """A call in progress. `call` makes one: `agree`, `start`, any number of `speak`, `stop`."""

    def __init__(self, connection: ClientConnection, *, acks_playback: bool, speculation: bool) -> None:
        self._connection = connection
        self._acks_playback = acks_playback
        self._speculation = speculation
        # Whether the server knows our extension: it then sends a ledger.
        self.extended = False
        # What has been heard, and when.
        self.speaker = VirtualSpeaker()
        # One per `speak`, in order.
        self.turns: list[Turn] = []
        # Clock time of the microphone's sample 0, and how many samples have been sent.
        self._epoch = 0.0
        self._sent = 0
        # The rest of the recording being spoken.
        self._to_speak: Pcm16 = np.zeros(0, np.int16)
        self._inbox: deque[Arrival] = deque(maxlen=_KEPT_ARRIVALS)
        self._arrived = asyncio.Event()
        # Why nothing more will arrive.
        self._failure: CallError | None = None
        self._state = _Dialogue()
        # The assistant item of each response, for truncating.
        self._items: dict[str, str] = {}
        self._truncates = 0
        # The last (response_id, played_ms) reported.
        self._reported = ("", 0)
        self._tasks: list[asyncio.Task[None]] = []

    async def agree(self, turn_detection: JsonObject, max_output_tokens: int | None = None) -> None:
        """Settles the session: audio both ways, transcripts, our extension events. Raises CallError."""
        sound = {"type": "audio/pcm", "rate": CALLER_RATE}
        heard = {"format": sound, "transcription": {"model": "whisper-1"}, "turn_detection": turn_detection}
        session: dict[str, object] = {
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {"input": heard, "output": {"format": sound}},
            "vivavoce": {"playback": self._acks_playback, "ledger": True, "speculation": self._speculation},
        }
        if max_output_tokens is not None:
            session["max_output_tokens"] = max_output_tokens
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self._send({"type": "session.update", "session": session})
                while True:
                    event = json.loads(await self._connection.recv())
                    if event.get("type") == "error":
                        raise CallError(f"the server refuses the session: {error_line(event)}")
                    if event.get("type") == "session.updated":
                        self.extended = "vivavoce" in (event.get("session") or {})
                        return
        except TimeoutError:
            raise CallError(f"the server did not confirm the session within {HANDSHAKE_SECONDS:.0f} seconds") from None
        except (ConnectionClosed, json.JSONDecodeError, AttributeError) as error:
            raise CallError(f"the server does not speak the Realtime protocol ({error})") from None

    def start(self) -> None:
        """Opens the microphone and listens."""
        self._epoch = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._read(), name="caller-reader"),
            asyncio.create_task(self._send_microphone(), name="caller-microphone"),
        ]

    async def stop(self) -> None:
        """Closes the microphone; the connection is whoever's who opened it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def speak(self, recording: Recording) -> AsyncIterator[Arrival]:
        """Says `recording` and yields server events as they arrive, until the answer has been played to its end; the account is
        `turns[-1]`. Raises CallError where the server reports an error, closes, or gives no answer within a minute."""
        turn = Turn(recording, self._epoch + (self._sent + recording.speech_end) / CALLER_RATE)
        self.turns.append(turn)
        self._to_speak = recording.pcm
        self._state = _Dialogue()
        while True:
            while self._inbox:
                arrival = self._inbox.popleft()
                self._note(turn, arrival)
                yield arrival
            if self._failure is not None:
                raise self._failure
            wait = self._remaining(turn)
            if wait <= 0:
                break
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), wait)
        turn.answered = self.speaker.first_audible(turn.response_id)

    def _remaining(self, turn: Turn) -> float:
        """Seconds to wait before the turn can be over; 0 when it is."""
        now = asyncio.get_running_loop().time()
        if len(self._to_speak):
            return len(self._to_speak) / CALLER_RATE
        if self._state.settled():
            grace = 0.0 if self._state.last_created >= turn.speech_ended else turn.speech_ended + _GRACE_SECONDS - now
            return max(0.0, grace, self.speaker.busy_until() - now)
        patience = turn.speech_ended + turn.recording.seconds + _PATIENCE_SECONDS - now
        if patience <= 0:
            heard = "the server heard no speech in it" if not self._state.heard_speech else "no answer came"
            raise CallError(f"{turn.recording.name}: {heard} within {_PATIENCE_SECONDS:.0f} seconds")
        return patience

    def _note(self, turn: Turn, arrival: Arrival) -> None:
        """Keeps the turn's account."""
        event = arrival.event
        turn.arrivals.append(arrival)
        self._state.take(arrival)
        match arrival.kind:
            case "response.created":
                turn.response_id, turn.reply = text_of(event, "response", "id"), ""
                turn.false_starts += arrival.at < turn.speech_ended
            case "response.output_audio_transcript.delta" if text_of(event, "response_id") == turn.response_id:
                turn.reply += text_of(event, "delta")
            case "conversation.item.input_audio_transcription.completed":
                turn.transcript = f"{turn.transcript} {text_of(event, 'transcript')}".strip()
            case "response.done" if text_of(event, "response", "status") == "failed":
                reason = text_of(event, "response", "status_details", "error", "message") or "no reason given"
                self._failure = CallError(f"the server could not answer: {reason}")
            case "vivavoce.ledger" if text_of(event, "response_id") == turn.response_id:
                turn.ledger_ms = number_of(event, "total_ms")
                turn.stages = _stages(event.get("stages_ms"))
                prepared = event.get("speculated")
                turn.prepared = prepared if isinstance(prepared, bool) else None
            case "error" if not text_of(event, "error", "event_id").startswith(_TRUNCATE_ID):
                self._failure = CallError(f"the server reports an error: {error_line(event)}")

    # -- the wire

    async def _send(self, event: JsonObject) -> None:
        await self._connection.send(json.dumps(event))

    async def _read(self) -> None:
        """Notes every event the moment it arrives; the work is left to `speak`."""
        clock = asyncio.get_running_loop().time
        try:
            async for frame in self._connection:
                event = json.loads(frame)
                self._inbox.append(await self._play(event, clock()))
                self._arrived.set()
            self._fail("the server closed the call")
        except ConnectionClosed as closed:
            received = closed.rcvd
            self._fail(f"the connection was lost ({received.code} {received.reason})" if received else "the connection was lost")
        except (ValueError, AttributeError, binascii.Error) as error:
            self._fail(f"the server sent a frame that is not an event ({error})")

    def _fail(self, message: str) -> None:
        self._failure = self._failure or CallError(message)
        self._arrived.set()

    async def _play(self, event: dict[str, object], now: float) -> Arrival:
        """Puts audio on the loudspeaker; stops it when the caller is heard."""
        match event.get("type"):
            case "response.output_audio.delta":
                pcm = decode_pcm16(base64.b64decode(text_of(event, "delta"), validate=True))
                self.speaker.push(text_of(event, "response_id"), pcm, now)
                del event["delta"]
            case "response.output_item.added" if text_of(event, "item", "type") == "message":
                self._items[text_of(event, "response_id")] = text_of(event, "item", "id")
            case "input_audio_buffer.speech_started":
                await self._stop_playing(now)
        return Arrival(now, event)

    async def _stop_playing(self, now: float) -> None:
        response_id = self.speaker.playing(now)
        if response_id is None:
            return
        played = self.speaker.played(response_id, now)
        self.speaker.cut(now)
        self._truncates += 1
        await self._send(
            {
                "type": "conversation.item.truncate",
                "event_id": f"{_TRUNCATE_ID}{self._truncates}",
                "item_id": self._items.get(response_id, ""),
                "content_index": 0,
                "audio_end_ms": played * 1000 // CALLER_RATE,
            }
        )

    async def _send_microphone(self) -> None:
        """20 ms every 20 ms, on deadlines of its own, so that lateness does not add up."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                await asyncio.sleep(max(0.0, self._epoch + (self._sent + _CHUNK) / CALLER_RATE - clock()))
                audio = base64.b64encode(encode_pcm16(self._next_chunk())).decode()
                await self._send({"type": "input_audio_buffer.append", "audio": audio})
                if self._acks_playback and self._sent // _CHUNK % _ACK_CHUNKS == 0:
                    await self._acknowledge(clock())
        except ConnectionClosed:
            pass  # the reader says why

    def _next_chunk(self) -> Pcm16:
        spoken, self._to_speak = self._to_speak[:_CHUNK], self._to_speak[_CHUNK:]
        self._sent += _CHUNK
        if len(spoken) and not len(self._to_speak):
            self._arrived.set()
        return np.concatenate((spoken, np.zeros(_CHUNK - len(spoken), np.int16)))

    async def _acknowledge(self, now: float) -> None:
        """Reports what has sounded since the last report, the last of a response included."""
        part = self.speaker.at(now)
        if part is None:
            return
        report = (part.response_id, self.speaker.played(part.response_id, now) * 1000 // CALLER_RATE)
        if report != self._reported:
            self._reported = report
            await self._send({"type": "vivavoce.playback", "response_id": report[0], "played_ms": report[1]})


def _stages(value: object) -> tuple[Stage, ...]:
    """The ledger's stages in order; what is not one is left out."""
    stages = value.items() if isinstance(value, Mapping) else ()
    return tuple(Stage(str(name), float(ms)) for name, ms in stages if isinstance(ms, int | float))
