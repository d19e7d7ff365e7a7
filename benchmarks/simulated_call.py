"""A call without a network, in time that leaps: a real session (`server.session`, codec and playout with it), an engine, and a client whose
messages are delayed both ways, in order. What its loudspeaker has played is the truth of what was heard.

The client behaves as ours and the published ones do: it flushes when `speech_started` comes, drops what still comes of what it flushed, and
says by `conversation.item.truncate` how far it had played, as late as it likes, or never. Nothing here draws: delays are handed in.

Where the server owns playback the client stands for a transport of ours: without delay, and what it has not played is dropped by a cut.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from agent.conversation import Conversation
from agent.settings import PlaybackOwner, ServerVad, SessionSettings
from benchmarks.said_reply import RATE, SaidReply
from server.limits import Limits
from server.realtime.codec import Codec
from server.realtime.dialect import Dialect
from server.session import Session, SessionParts
from streaming.audio import AudioFrame
from streaming.doors import Engine, EngineLoad, SynthesisedAudio
from streaming.events import AudioReady, ContextMessage, EngineEvent, EngineOrder, Listened, SessionSpec, SetHistory, TextDelta

__all__ = ["Act", "Caller", "Quiet", "SimulatedCall"]

_SESSION: Final = "sess_simulated"
_MICROPHONE_MS: Final = 40
"""Sound a message of the caller."""
_ENGINE_MS: Final = 20
"""How often the engine steps."""
_REPORT_MS: Final = 100
"""`vivavoce.playback` goes out this often (docs/clients.md)."""
_REPLY_TOKENS: Final = 60
"""Of a reply, so that a model with random weights ends."""
_QUIET_SECONDS: Final = 1.5
"""Silence after which nothing more comes of what was said: the end of a turn (200 ms of silence) and the longest way to and fro."""
_PATIENCE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A client and its network. Each `..._ms` function gives the next delay. `truncate_ms` None: it never truncates."""

    owner: PlaybackOwner
    down_ms: Callable[[], float]
    up_ms: Callable[[], float]
    truncate_ms: Callable[[], float] | None = None
    sound_card_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Act:
    """What the caller does: speaks or waits for `ms`, writes a message and asks for its answer, stops the reply by hand, or waits until
    everything that was begun has come to its end."""

    kind: Literal["speak", "wait", "write", "stop", "settle"]
    ms: int = 0


@dataclass(frozen=True, slots=True)
class Quiet:
    """A moment at which nobody speaks and nothing is on its way: `replies` with a message, oldest first, and
    the `messages` that the model was told."""

    now: float
    replies: tuple[SaidReply, ...]
    messages: tuple[ContextMessage, ...]


class _Wire:
    """One way of the network: messages arrive in order, each after its delay."""

    def __init__(self, delay_ms: Callable[[], float], deliver: Callable[[str], None]) -> None:
        self._delay_ms = delay_ms
        self._deliver = deliver
        self._last = 0.0

    def send(self, text: str) -> None:
        loop = asyncio.get_running_loop()
        self._last = max(self._last + 1e-6, loop.time() + self._delay_ms() / 1_000)
        loop.call_at(self._last, self._deliver, text)


class SimulatedCall:
    """One call. `run` plays a script; `replies` and `quiet` are what came of it. Raises AssertionError where the server sends what it may
    not: sound of a reply that was cut, a sample twice, words ahead of their sound."""

    def __init__(self, caller: Caller, engine: Engine, *, on_quiet: Callable[[Quiet], None] = lambda _: None) -> None:
        self._caller = caller
        self._engine = engine
        self._on_quiet = on_quiet
        self._down = _Wire(caller.down_ms, self._arrive)
        self._up = _Wire(caller.up_ms, self._reach)
        self._inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self._sink: Callable[[EngineEvent | SynthesisedAudio], None] = lambda _: None
        self.replies: dict[str, SaidReply] = {}
        # Codes of the errors the client was told.
        self.refused: list[str] = []
        self._by_item: dict[str, SaidReply] = {}
        # What the model was told last.
        self._messages: tuple[ContextMessage, ...] = ()
        self._open: set[str] = set()
        # Responses as the client knows them: not yet done, and stopped by hand.
        self._known: set[str] = set()
        self._dropped: set[str] = set()
        self._over: set[str] = set()
        # What the server sent that it may not.
        self._broken: list[str] = []
        # Replies of which nothing but a frame may still leave, and how many have left.
        self._stopped: dict[str, int] = {}
        # When the loudspeaker has played everything it holds.
        self._speaker_ends = 0.0
        self._speaking_until = 0.0
        self._truncations = 0
        # Items whose `conversation.item.retrieved` is awaited.
        self._asked: set[str] = set()
        self._answered = asyncio.Event()
        self._reported: tuple[str, int] = ("", 0)
        # When anything last happened that may have consequences.
        self._stirred = 0.0

    # -- the server's side: what `server.session.Session` asks of its channel and of its link to the engine

    async def accept(self) -> None:
        """The client is there."""

    async def receive(self) -> str | None:
        """The next message of the client."""
        return await self._inbox.get()

    async def send(self, text: str) -> None:
        """A message leaves: what must be true of every one is looked at here."""
        event = json.loads(text)
        match event["type"]:
            case "response.output_audio.delta":
                self._broken += self._check_audio(event)
            case "response.output_audio_transcript.delta":
                self._broken += self._check_words(event)
            case "response.created":
                self._open.add(event["response"]["id"])
            case "response.done":
                self._open.discard(event["response"]["id"])
                self._over.add(event["response"]["id"])
                # A cut takes back what waits in the outbox, and the words of that may be out.
                reply = self.replies.get(event["response"]["id"])
                if reply is not None and reply.ahead and event["response"]["status"] != "cancelled":
                    self._broken.append("words ran ahead of their sound")
            case "input_audio_buffer.speech_started":
                self._stopped = dict.fromkeys([*self._stopped, *(reply for reply in self.replies if self.replies[reply].sent)], 0)
        self._stirred = self._now()
        self._down.send(text)

    def open(self, session_id: str, spec: SessionSpec, sink: Callable[[EngineEvent | SynthesisedAudio], None]) -> None:
        self._sink = sink
        self._engine.open(session_id, spec)

    def feed(self, session_id: str, frame: AudioFrame) -> None:
        self._engine.feed(session_id, frame)

    def order(self, session_id: str, order: EngineOrder) -> None:
        if isinstance(order, SetHistory):
            self._messages = order.messages
        self._engine.order(session_id, order)

    def close(self, session_id: str) -> None:
        self._engine.close(session_id)

    def _check_audio(self, event: dict[str, str]) -> list[str]:
        reply = self.replies[event["response_id"]]
        reply.item_id = event["item_id"]
        self._by_item[reply.item_id] = reply
        pcm = np.frombuffer(base64.b64decode(event["delta"]), "<i2").tolist()
        made = reply.pcm[reply.sent : reply.sent + len(pcm)]
        reply.sent += len(pcm)
        if reply.response_id in self._stopped:
            self._stopped[reply.response_id] += 1
        # Where the server ducks, samples are other than made.
        broken = {
            "a sample was sent that is not the next": len(made) != len(pcm) or (self._caller.owner is PlaybackOwner.CLIENT and made != pcm),
            "sound of a response was sent that is over": reply.response_id in self._over,
            "sound of a reply was sent that was cut": self._stopped.get(reply.response_id, 0) > 1,
        }
        return [rule for rule, is_broken in broken.items() if is_broken]

    def _check_words(self, event: dict[str, str]) -> list[str]:
        reply = self.replies[event["response_id"]]
        reply.given += event["delta"]
        reply.ahead = reply.sent < len(reply.pcm) and len(reply.given) > len(reply.words_within(reply.sent))
        return [] if reply.text.startswith(reply.given) else ["other words were given than were said"]

    async def _step(self) -> None:
        while True:
            await asyncio.sleep(_ENGINE_MS / 1_000)
            if not self._engine.busy():
                continue
            for output in self._engine.step():
                if isinstance(output, EngineLoad):
                    continue
                fact = output if isinstance(output, SynthesisedAudio) else output.event
                if not isinstance(fact, Listened):
                    self._stirred = self._now()
                self._note(fact)
                self._sink(fact)

    def _note(self, fact: EngineEvent | SynthesisedAudio) -> None:
        if isinstance(fact, TextDelta | AudioReady | SynthesisedAudio):
            reply = self.replies.setdefault(fact.response_id, SaidReply(fact.response_id))
            match fact:
                case TextDelta(_, text):
                    reply.text += text
                case AudioReady():
                    reply.add(fact)
                case SynthesisedAudio():
                    reply.pcm += fact.pcm.tolist()

    def _reach(self, text: str) -> None:
        """A message of the client has reached the server."""
        event = json.loads(text)
        if event["type"] == "conversation.item.truncate":
            self._by_item[event["item_id"]].truncated = True
            self._truncations -= 1
        self._inbox.put_nowait(text)

    # -- the client's side

    def _arrive(self, text: str) -> None:
        """A message of the server has reached the client."""
        event = json.loads(text)
        match event["type"]:
            case "response.created":
                self._known.add(event["response"]["id"])
            case "response.done":
                self._known.discard(event["response"]["id"])
                if event["response"]["status"] == "cancelled" and self._caller.truncate_ms is None:
                    self._flush()
            case "response.output_audio.delta":
                self._play(self.replies[event["response_id"]], len(base64.b64decode(event["delta"])) // 2)
            case "input_audio_buffer.speech_started":
                self._flush()
            case "conversation.item.truncated":
                self._tell("conversation.item.retrieve", event_id="truncated", item_id=event["item_id"])
            case "conversation.item.retrieved":
                item = event["item"]
                reply = self._by_item[item["id"]]
                reply.retrieved = item["content"][0]["transcript"] if item["content"] else ""
                if reply.retrieved_after_truncation is None and reply.truncated:
                    reply.retrieved_after_truncation = reply.retrieved
                self._asked.discard(item["id"])
                if not self._asked:
                    self._answered.set()
            case "error":
                self.refused.append(event["error"]["code"])

    def _tell(self, kind: str, **fields: object) -> None:
        self._stirred = self._now()
        self._up.send(json.dumps({"type": kind, **fields}))

    def _play(self, reply: SaidReply, samples: int) -> None:
        if reply.flushed or reply.response_id in self._dropped:
            reply.flushed = True
            return
        start = max(self._speaker_ends, self._now() + self._caller.sound_card_ms / 1_000)
        reply.play(start, samples)
        self._speaker_ends = start + samples / RATE

    def _playing(self) -> SaidReply | None:
        """The reply that sounds, or is the next to."""
        return next((reply for reply in self.replies.values() if reply.sounds(self._now())), None)

    def _starved(self) -> SaidReply | None:
        """The reply that would sound if more of it had come."""
        begun = [self.replies[known] for known in self._known if known in self.replies and self.replies[known].played]
        return begun[-1] if begun and not begun[-1].flushed else None

    def _flush(self) -> None:
        """Silence at once, and a word about it to the server."""
        now, current = self._now(), self._playing() or self._starved()
        for reply in self.replies.values():
            if reply is current or reply.sounds(now):
                reply.flush(now)
        self._speaker_ends = now
        if current is None or self._caller.truncate_ms is None:
            return
        played_ms = current.heard_samples(now) * 1_000 // RATE
        self._truncations += 1
        fields = {"item_id": current.item_id, "content_index": 0, "audio_end_ms": played_ms}
        delay = self._caller.truncate_ms() / 1_000
        asyncio.get_running_loop().call_later(delay, lambda: self._tell("conversation.item.truncate", **fields))

    async def _report(self) -> None:
        """What a client that acknowledges says of its playback."""
        playing: SaidReply | None = None
        while self._caller.owner is PlaybackOwner.ACKED:
            await asyncio.sleep(_REPORT_MS / 2_000)
            reply = self._playing() or playing
            playing = self._playing()
            if reply is None or reply.flushed:
                continue
            played_ms = reply.heard_samples(self._now()) * 1_000 // RATE
            response_id, before = self._reported
            if response_id != reply.response_id or played_ms - before >= _REPORT_MS or playing is None:
                self._reported = (reply.response_id, played_ms)
                self._up.send(json.dumps({"type": "vivavoce.playback", "response_id": reply.response_id, "played_ms": played_ms}))

    async def _speak(self) -> None:
        """The microphone: noise while the caller speaks."""
        count = RATE * _MICROPHONE_MS // 1_000
        loud = (np.sin(np.arange(count) * 2 * np.pi * 300 / RATE) * 8_000).astype("<i2")
        sounds = [base64.b64encode(pcm.tobytes()).decode() for pcm in (np.zeros(count, "<i2"), loud)]
        while True:
            await asyncio.sleep(_MICROPHONE_MS / 1_000)
            sound = sounds[self._now() < self._speaking_until]
            self._up.send(json.dumps({"type": "input_audio_buffer.append", "audio": sound}))

    # -- the script

    async def run(self, acts: Sequence[Act]) -> None:
        """Play the script, to the end of everything it leads to."""
        loop = asyncio.get_running_loop()
        settings = SessionSettings(
            turn_detection=ServerVad(silence_duration_ms=200), playback=self._caller.owner, max_output_tokens=_REPLY_TOKENS
        )
        limits = Limits()
        parts = SessionParts(
            _SESSION, 7, settings, Conversation(_SESSION, 7), Codec(_SESSION, Dialect.GA, limits, 0), self, limits,  # type: ignore[arg-type]
            loop.time, on_turn=lambda _: None, on_speculation=lambda _, __: None,
        )  # fmt: skip
        others = [asyncio.create_task(work) for work in (self._step(), self._speak(), self._report())]
        session = asyncio.create_task(Session(parts).run(self))
        for act in (*acts, Act("settle")):
            await self._act(act)
            assert not self._broken, self._broken[0]
        self._inbox.put_nowait(None)
        end = await session
        assert end.code is None, end
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _act(self, act: Act) -> None:
        match act.kind:
            case "speak":
                self._speaking_until = self._now() + act.ms / 1_000
                await asyncio.sleep(act.ms / 1_000)
            case "wait":
                await asyncio.sleep(act.ms / 1_000)
            case "write":
                if self._caller.truncate_ms is not None:
                    self._flush()
                content = [{"type": "input_text", "text": "Go on."}]
                self._tell("conversation.item.create", item={"type": "message", "role": "user", "content": content})
                if not self._known:
                    self._tell("response.create")
            case "stop":
                if self._known:
                    self._tell("response.cancel")
                if self._caller.truncate_ms is not None:
                    self._flush()
                    self._dropped |= self._known
            case "settle":
                await self._settle()

    async def _settle(self) -> None:
        begun = self._now()
        while (
            self._open or self._truncations or self._now() < max(self._stirred, self._speaker_ends, self._speaking_until) + _QUIET_SECONDS
        ):
            await asyncio.sleep(0.1)
            assert self._now() < begun + _PATIENCE_SECONDS, "it is never quiet"
        self._asked = {reply.item_id for reply in self.replies.values() if reply.item_id}
        for item_id in self._asked:
            self._tell("conversation.item.retrieve", item_id=item_id)
        if self._asked:
            self._answered.clear()
            await self._answered.wait()
        said = tuple(reply for reply in self.replies.values() if reply.item_id)
        told = {message.item_id: message.text or "" for message in self._messages}
        for reply in said:
            reply.believed = told.get(reply.item_id, "")
        self._on_quiet(Quiet(self._now(), said, self._messages))

    def _now(self) -> float:
        """Seconds since the beginning of the call."""
        return asyncio.get_running_loop().time()
