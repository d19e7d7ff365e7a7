"""What leaves as sound, and when, and what of it has been heard. Pure: time is an argument, in 1/16000 s; nothing here sleeps.

Three kinds of playback (design.md 6, "Who owns playback"). A client that owns it gets audio as it is made, at most 10 s ahead of real time,
and what it has heard is estimated from time; one that acknowledges it gets 400 ms ahead, and says what it has heard; where we own it, two
frames are ahead and time tells exactly. The client plays responses one after the other: one clock, `_clock`, says when everything sent so
far will have been played.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from agent.commands import Cut, Duck, Hold, OpenPlayout, PartRef, PlayoutOrder, Release, Resume
from agent.events import PlaybackProgress
from agent.settings import AudioEncoding, AudioFormat, PlaybackOwner
from streaming.audio import encode_alaw, encode_pcm16, encode_ulaw
from streaming.doors import SynthesisedAudio
from streaming.events import SAMPLE_RATE

if TYPE_CHECKING:
    from server.loudspeaker import Loudspeaker

__all__ = ["AudioDelta", "FirstHeard", "Playout", "PlayoutOverflowError"]

_Pcm = npt.NDArray[np.int16]

_MILLISECOND: Final = SAMPLE_RATE // 1000
_LEAD: Final = {
    PlaybackOwner.CLIENT: 10 * SAMPLE_RATE,
    PlaybackOwner.ACKED: 400 * _MILLISECOND,
    PlaybackOwner.SERVER: 20 * _MILLISECOND,
}
"""How far what is sent may be ahead of what is played. A client that owns playback expects faster than real time, but what it holds can't
be taken back; one that acknowledges gets enough for a network's hiccup; where we own it nothing is ahead but the frame that plays and the
next."""
_CHUNK_MS: Final = {PlaybackOwner.CLIENT: 200, PlaybackOwner.ACKED: 100, PlaybackOwner.SERVER: 20}
_LATENCY: Final = {PlaybackOwner.CLIENT: 60 * _MILLISECOND, PlaybackOwner.ACKED: 0, PlaybackOwner.SERVER: 0}
"""Network and sound card of a client we know nothing about: what was sent this long ago is heard now. Who acknowledges says so; a transport
of our own counts what has left."""
_REPORT_EVERY: Final = SAMPLE_RATE // 10
_ACK_PATIENCE: Final = 2 * SAMPLE_RATE
"""An acknowledging client that is this late is believed to have played everything, so that a lost report can't hold a turn."""
_DUCKED: Final = 0.25
"""Gain while ducked: -12 dB, quiet enough to speak over and loud enough to follow."""
_RAMP_SECONDS: Final = 0.02
_MAX_SECONDS: Final = 1200
"""Audio of one response that may wait: far beyond the longest reply; a voice that does not stop ends the session, not the server."""
_TOMBSTONES: Final = 64
"""Ids of cut and dropped responses that are remembered, because their audio may still be on its way from the engine."""


class PlayoutOverflowError(Exception):
    """A response has more audio waiting than any reply can have."""


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """Samples `start` to `start + samples` of the response `part.response_id`, coded as `payload`."""

    part: PartRef
    start: int
    samples: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class FirstHeard:
    """The first sample of a response was heard at session time `at`: as the client has `reported` (at the latest, for its report was on
    its way) or our own transport, or as is estimated from what was sent."""

    response_id: str
    at: int
    reported: bool


@dataclass(slots=True)
class _Voice:
    """The sound of one response. Positions in samples at its own rate, times in 1/16000 s."""

    part: PartRef | None = None
    format: AudioFormat = field(default_factory=AudioFormat)
    # Synthesised and not sent.
    waiting: deque[_Pcm] = field(default_factory=deque)
    received: int = 0
    until: int = 0
    sent: int = 0
    # When its first sample left, when the client will begin to play it, and whether it has been heard.
    sent_at: int = 0
    starts_at: int = 0
    heard: bool = False
    # When the client will have played what has been sent; and when it would have, if nothing else had been before it.
    ends_at: int = 0
    ends_alone_at: int = 0
    # Ticks of its end that the client has thrown away, as far as what follows has been moved up.
    skipped: int = 0
    # What the client has said, or time has shown, that it played; never goes back.
    played: int = 0
    gain: float = 1.0
    target: float = 1.0
    # Silent for now: nothing leaves, and the place is kept.
    held: bool = False
    finished: bool = False
    # What the conversation was told last, and when.
    reported: tuple[int, int] = (0, 0)
    reported_at: int = 0

    @property
    def ready(self) -> int:
        """Samples that may leave now."""
        return min(self.received, self.until) - self.sent if self.part is not None and not self.held else 0

    @property
    def playing(self) -> bool:
        """Whether the client is believed to play it still."""
        return self.played < self.sent

    @property
    def over(self) -> bool:
        """Whether everything has been made, sent, played and reported."""
        return self.finished and self.sent == self.received and not self.playing and self.reported == (self.sent, self.played)


class Playout:
    """The sound of one session. After anything that may change what can leave, call `next_delta` until it returns None, then `progress`;
    and again when `deadline` has come."""

    def __init__(self) -> None:
        # By response id, in the order their audio first came.
        self._voices: dict[str, _Voice] = {}
        self._closed: deque[str] = deque(maxlen=_TOMBSTONES)
        # When the client will have played everything sent so far.
        self._clock = 0
        # Replies whose first sample has been heard since `take_heard` was last asked.
        self._heard: list[FirstHeard] = []
        # Who owns playback.
        self.owner = PlaybackOwner.CLIENT
        # Is told what sounds and when, where somebody wants to know.
        self.loudspeaker: Loudspeaker | None = None

    @property
    def queued_samples(self) -> int:
        """Samples synthesised and not sent, over all responses."""
        return sum(voice.received - voice.sent for voice in self._voices.values())

    @property
    def silent(self) -> bool:
        """Whether nothing of the conversation waits and nothing plays: what has been prepared and may be dropped does not count."""
        return all(voice.part is None for voice in self._voices.values())

    # -- what comes in

    def push(self, audio: SynthesisedAudio) -> None:
        """Audio of the engine; waits for the conversation's `OpenPlayout` and `Release`. Raises PlayoutOverflowError."""
        if audio.response_id in self._closed:
            return
        voice = self._voices.setdefault(audio.response_id, _Voice())
        if audio.start != voice.received:
            raise ValueError(f"audio of {audio.response_id} at {audio.start}, expected {voice.received}")
        voice.waiting.append(audio.pcm)
        voice.received += len(audio.pcm)
        if voice.received - voice.sent > _MAX_SECONDS * voice.format.rate:
            raise PlayoutOverflowError(f"{audio.response_id} has more than {_MAX_SECONDS} s of audio waiting")

    def finish(self, response_id: str) -> None:
        """The engine makes no more audio of it."""
        voice = self._voices.get(response_id)
        if voice is None:
            return
        voice.finished = True
        if not voice.received:
            self._close(response_id)

    def forget(self, response_id: str) -> None:
        """A speculation was dropped, or a response aborted before it had a voice. What is open is ended by `Cut`."""
        voice = self._voices.get(response_id)
        if voice is None or voice.part is None:
            self._close(response_id)

    def order(self, order: PlayoutOrder, now: int) -> None:
        """Obey the conversation."""
        match order:
            case OpenPlayout(part, wire):
                if part.response_id not in self._closed:
                    voice = self._voices.setdefault(part.response_id, _Voice())
                    voice.part, voice.format = part, wire
            case Release(response_id, until):
                if (voice_or_none := self._voices.get(response_id)) is not None:
                    voice_or_none.until = max(voice_or_none.until, until)
            case Duck(response_id) | Hold(response_id) | Resume(response_id):
                if (voice_or_none := self._voices.get(response_id)) is not None:
                    voice_or_none.target = 1.0 if isinstance(order, Resume) else _DUCKED
                    voice_or_none.held = isinstance(order, Hold)
            case Cut(response_id):
                self._cut(response_id, now)

    def acknowledge(self, response_id: str, played_ms: int, now: int) -> None:
        """The client says how much of a response it has played."""
        voice = self._voices.get(response_id)
        if voice is None:
            return
        voice.played = max(voice.played, min(voice.sent, played_ms * voice.format.rate // 1000))
        if voice.played:
            self._note_heard(response_id, voice, now - _ticks(voice.played, voice.format.rate), reported=True)
        if voice.playing and voice.ends_at == self._clock:
            voice.ends_at = self._clock = now + _ticks(voice.sent - voice.played, voice.format.rate)
        voice.reported_at = now - _REPORT_EVERY  # tell the conversation at once

    def flushed(self, item_id: str, played_ms: int, now: int) -> None:
        """The client has truncated the item: it dropped what it had not played, so what came after it was heard sooner, and what comes next
        is heard at once."""
        for voice in self._voices.values():
            if voice.part is not None and voice.part.item_id == item_id:
                unplayed = _ticks(voice.sent - played_ms * voice.format.rate // 1000, voice.format.rate)
                self._skip(voice, unplayed - voice.skipped, now)
                voice.skipped = max(voice.skipped, unplayed)
                if self.loudspeaker is not None:
                    self.loudspeaker.cut(voice.part.response_id, now)

    # -- what goes out

    def next_delta(self, now: int) -> AudioDelta | None:
        """The next audio that may leave now."""
        if self._clock - now >= self._lead:
            return None
        return self._next_ready(now, max(self._clock, now))

    def next_frame(self, now: int) -> AudioDelta | None:
        """What sounds in the frame of 20 ms that leaves now, on a transport that asks for each when its time has come: less than a frame
        where no more is ready, None for silence. The transport's clock tells when it is heard."""
        return self._next_ready(now, now)

    def progress(self, now: int, *, fresh: bool = False) -> list[PlaybackProgress]:
        """What the conversation should know: after every send, and every 100 ms while something plays; with `fresh` everything that has
        changed, for a decision that depends on it."""
        reports = []
        for response_id, voice in list(self._voices.items()):
            self._advance(response_id, voice, now)
            state = (voice.sent, voice.played)
            due = voice.sent != voice.reported[0] or not voice.playing or now - voice.reported_at >= _REPORT_EVERY
            if state != voice.reported and (due or fresh):
                voice.reported, voice.reported_at = state, now
                reports.append(PlaybackProgress(response_id, voice.sent, voice.played))
            if voice.over:
                self._close(response_id)
        return reports

    def take_heard(self) -> list[FirstHeard]:
        """What has begun to be heard, once each: after `progress`. Nothing of a response that was cut before."""
        heard, self._heard = self._heard, []
        return heard

    def deadline(self, *, room: bool = True) -> int | None:
        """When to look again; `room` False says that the transport takes no audio now, and will say when it does."""
        times = []
        for voice in self._voices.values():
            if voice.ready > 0 and room:
                times.append(self._clock - self._lead + 1)
            if voice.playing:
                times.append(voice.ends_at + _ACK_PATIENCE if self._acked else self._next_report(voice))
        return min(times, default=None)

    def _next_report(self, voice: _Voice) -> int:
        """When an estimate has changed enough to tell: it must have, or the session would wake for nothing again and again."""
        heard = voice.ends_at + _LATENCY[self.owner]
        begins = heard - _ticks(voice.sent - voice.played, voice.format.rate) + _MILLISECOND
        return min(heard, max(begins, voice.reported_at + _REPORT_EVERY))

    @property
    def _acked(self) -> bool:
        return self.owner is PlaybackOwner.ACKED

    @property
    def _lead(self) -> int:
        return _LEAD[self.owner]

    def _next_ready(self, now: int, begins: int) -> AudioDelta | None:
        """The next audio of the first voice that has any; the client will begin to play it at `begins`."""
        for voice in self._voices.values():
            if voice.ready > 0:
                return self._take(voice, now, begins)
        return None

    def _take(self, voice: _Voice, now: int, begins: int) -> AudioDelta:
        assert voice.part is not None
        rate = voice.format.rate
        self._advance(voice.part.response_id, voice, now)  # what was sent before a gap has been heard by now
        count = min(voice.ready, rate * _CHUNK_MS[self.owner] // 1000)
        pcm = _with_gain(voice, _pop(voice.waiting, count))
        delta = AudioDelta(voice.part, voice.sent, count, _encode(pcm, voice.format))
        if self.loudspeaker is not None:
            # A transport of ours fills its frame with silence; the next one begins after that.
            lacking = rate * _CHUNK_MS[self.owner] // 1000 - count if self.owner is PlaybackOwner.SERVER else 0
            self.loudspeaker.play(voice.part.response_id, begins, np.pad(pcm, (0, lacking)), rate)
        if not voice.sent:
            voice.sent_at, voice.starts_at = now, begins
        voice.sent += count
        self._clock = voice.ends_at = begins + _ticks(count, rate)
        voice.ends_alone_at = max(voice.ends_alone_at, now) + _ticks(count, rate)
        return delta

    def _advance(self, response_id: str, voice: _Voice, now: int) -> None:
        """Let time play what has been sent."""
        if self._acked and now < voice.ends_at + _ACK_PATIENCE:
            return
        left = 0 if self._acked else _samples(max(0, voice.ends_at + _LATENCY[self.owner] - now), voice.format.rate)
        voice.played = max(voice.played, voice.sent - left)
        if voice.played and not self._acked:  # of one that should report and does not, nothing is known
            exact = self.owner is PlaybackOwner.SERVER
            self._note_heard(response_id, voice, voice.starts_at + _LATENCY[self.owner], reported=exact)

    def _note_heard(self, response_id: str, voice: _Voice, at: int, *, reported: bool) -> None:
        if not voice.heard:
            voice.heard = True
            self._heard.append(FirstHeard(response_id, max(voice.sent_at, at), reported))

    def _cut(self, response_id: str, now: int) -> None:
        """The client drops what it has not played, so what would have come after it comes sooner."""
        voice = self._voices.get(response_id)
        if voice is not None and voice.sent:
            self._skip(voice, min(voice.ends_at - now, _ticks(voice.sent - voice.played, voice.format.rate)), now)
        if self.loudspeaker is not None:
            self.loudspeaker.cut(response_id, now)
        self._close(response_id)

    def _skip(self, voice: _Voice, unplayed: int, now: int) -> None:
        """The last `unplayed` ticks of it are not heard: what follows comes sooner by so much, but not before it was sent."""
        unplayed = max(0, unplayed)
        others = [other for other in self._voices.values() if other.ends_at > voice.ends_at]
        for other in others:
            sooner = max(0, min(unplayed, other.ends_at - other.ends_alone_at))
            other.starts_at -= sooner
            other.ends_at -= sooner
        self._clock = max(now, self._clock - unplayed, *(other.ends_at for other in others))

    def _close(self, response_id: str) -> None:
        self._voices.pop(response_id, None)
        self._closed.append(response_id)


def _ticks(samples: int, rate: int) -> int:
    return samples * SAMPLE_RATE // rate


def _samples(ticks: int, rate: int) -> int:
    """Rounded up: a sample that is not quite over has not been heard."""
    return -(-ticks * rate // SAMPLE_RATE)


def _pop(waiting: deque[_Pcm], count: int) -> _Pcm:
    """The first `count` samples, shape (count,)."""
    parts: list[_Pcm] = []
    while count:
        first = waiting.popleft()
        if len(first) > count:
            waiting.appendleft(first[count:])
            first = first[:count]
        parts.append(first)
        count -= len(first)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _with_gain(voice: _Voice, pcm: _Pcm) -> _Pcm:
    """Ramp from the present gain to the wanted one, linear, so that a duck does not click."""
    if voice.gain == voice.target == 1.0:
        return pcm
    step = (1.0 - _DUCKED) / (_RAMP_SECONDS * voice.format.rate)
    ramp = step * np.arange(1, len(pcm) + 1)
    gains = np.maximum(voice.gain - ramp, voice.target) if voice.target < voice.gain else np.minimum(voice.gain + ramp, voice.target)
    voice.gain = float(gains[-1])
    scaled: _Pcm = np.rint(pcm * gains).astype(np.int16)
    return scaled


def _encode(pcm: _Pcm, wire: AudioFormat) -> bytes:
    match wire.encoding:
        case AudioEncoding.PCM16:
            return encode_pcm16(pcm)
        case AudioEncoding.PCMU:
            return encode_ulaw(pcm)
        case AudioEncoding.PCMA:
            return encode_alaw(pcm)
