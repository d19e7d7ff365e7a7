"""Echo suppression: our own voice taken out of a caller's sound, on its way from the wire to the engine. Pure.

For clients without echo cancellation. We made the far end, so it is known to the sample; when it is heard is known as well as playout knows
(`server.loudspeaker`), and the canceller finds the rest of the delay. Positions stay what they are: the filter's delay is taken out, and
where nothing of ours has sounded for a second the sound passes untouched and at once.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

import numpy as np

from server.loudspeaker import Loudspeaker
from server.playout import Playout
from streaming.audio import AudioFrame, Samples
from streaming.echo_canceller import FRAME, EchoCanceller
from streaming.events import SAMPLE_RATE

__all__ = ["EchoNews", "EchoSuppressor", "EchoSwitch"]

_TAIL: Final = SAMPLE_RATE
"""An echo is over a second after what caused it: 600 ms of buffers and network, 400 ms of room."""
_WARM_UP: Final = 4 * FRAME
"""Sound the filter is given before the first that is taken from it: its windows still hold what was there when it last ran."""
_STRETCH: Final = SAMPLE_RATE // 4
_STRETCHES: Final = 4
"""The input's lag is the least of the last second: a network is late for tens of milliseconds, seldom for longer."""
_JUMP: Final = SAMPLE_RATE // 10
"""A change of the lag that counts while we are heard: the input stood still, or came all in one go."""
_JUDGED: Final = 5 * SAMPLE_RATE
_WORSE: Final = 2.0
"""Energy left over energy heard, over five seconds with us in it: a filter that adds as much as there was has lost its way."""


class _Lag:
    """How much later than its position, in session time, the input comes. It changes in steps, and where it can while nothing of ours is
    heard: for the filter every step is a jump of the echo's delay. Too great a lag only adds to that delay, too small a one could put the
    echo before its cause; so it is the least that counts, as sound comes late often and early never."""

    def __init__(self) -> None:
        # The least of each stretch, the newest last, and where that one began.
        self._least: deque[int] = deque(maxlen=_STRETCHES)
        self._began = 0
        self.ticks = 0

    def note(self, until: int, now: int, *, heard: bool) -> None:
        """The input up to `until` came at `now`; whether something of ours may be `heard` in it."""
        lag = now - until
        if not self._least:
            self.ticks = lag
        if not self._least or until - self._began >= _STRETCH:
            self._least.append(lag)
            self._began = until
        else:
            self._least[-1] = min(self._least[-1], lag)
        least = min(self._least)
        if not heard or abs(least - self.ticks) > _JUMP:
            self.ticks = least


class EchoSuppressor:
    """One session's. `push` takes the input; what is played is told to `loudspeaker`."""

    def __init__(self, canceller: EchoCanceller) -> None:
        self.loudspeaker = Loudspeaker()
        # Why it has given up; None while it works.
        self.failure: str | None = None
        self._canceller = canceller
        self._lag = _Lag()
        # Input from position `_raw_at` on: what has not been given on, and what the filter is warmed up with.
        self._raw: Samples = np.zeros(0, np.float32)
        self._raw_at = 0
        # The end of what has been given on, and of what has been decided on, frame by frame.
        self._given = 0
        self._done = 0
        # Whether an echo was possible in the last frame.
        self._active = False
        # Energy before and after the filter, and samples of it, since it was last judged; and all there ever was.
        self._heard = self._left = 0.0
        self._judged = 0

    def push(self, frame: AudioFrame, now: int) -> AudioFrame | None:
        """A frame of input that came at `now` (1/16000 s); what can be given on, contiguous with what was given before."""
        if not len(self._raw):
            self._raw_at = self._given = self._done = frame.at
        self._raw = np.concatenate((self._raw, frame.pcm))
        end = frame.at + len(frame.pcm)
        self._lag.note(end, now, heard=self._active)
        parts: list[Samples] = []
        while self.failure is None and end - self._done >= FRAME:
            parts.append(self._next())
        if not self._active:
            parts.append(self._pass(end))
        return self._given_on(parts)

    def flush(self) -> AudioFrame | None:
        """What is held back, as it came: the client ends its turn here."""
        return self._given_on([self._pass(self._raw_at + len(self._raw))])

    def _next(self) -> Samples:
        """Decide on the next FRAME samples."""
        start, self._done = self._done, self._done + FRAME
        time = start + self._lag.ticks
        was, self._active = self._active, self.loudspeaker.sounds(time - _TAIL, time + FRAME)
        if not self._active:
            return self._pass(self._done)
        try:
            if not was:
                for earlier in range(start - _WARM_UP, start, FRAME):
                    if earlier >= self._raw_at:
                        self._filter(earlier)
            return self._take(self._filter(start), start - self._canceller.delay)
        except Exception as error:  # noqa: BLE001 - whatever it was, the call goes on without
            return self._give_up(f"{type(error).__name__}: {error}")

    def _filter(self, start: int) -> Samples:
        first = start - self._raw_at
        return self._canceller.push(self._raw[first : first + FRAME], self.loudspeaker.between(start + self._lag.ticks, FRAME))

    def _take(self, clean: Samples, at: int) -> Samples:
        """Of what the filter gave, and what begins at `at`, that which has not been given on."""
        clean = clean[max(0, self._given - at) :]
        if not len(clean):
            return clean
        raw = self._pass(self._given + len(clean))
        self._heard += float(np.dot(raw, raw))
        self._left += float(np.dot(clean, clean))
        self._judged += len(clean)
        if self._judged >= _JUDGED:
            if self._left > _WORSE * self._heard:
                return self._give_up("the filter made it worse", raw)
            self._heard = self._left = 0.0
            self._judged = 0
        return clean

    def _give_up(self, why: str, given: Samples | None = None) -> Samples:
        self.failure, self._active = why, False
        return np.zeros(0, np.float32) if given is None else given

    def _pass(self, end: int) -> Samples:
        """The input up to `end` as it is."""
        raw = self._raw[self._given - self._raw_at : max(0, end - self._raw_at)]
        self._given = max(self._given, end)
        return raw

    def _given_on(self, parts: list[Samples]) -> AudioFrame | None:
        keep = min(self._given, self._done) - _WARM_UP - self._raw_at
        if keep > 0:
            self._raw, self._raw_at = self._raw[keep:], self._raw_at + keep
        sound = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return AudioFrame(sound, self._given - len(sound)) if len(sound) else None


class EchoNews(Enum):
    """What operations wants to know of it."""

    BEGUN = "begun"
    FAILED = "failed"


class EchoSwitch:
    """A session's suppression, switched on and off, on the way of its input to `feed`. Where it fails the sound goes on without, until it
    is asked for anew; `report` is told that it began, or failed and why."""

    def __init__(
        self,
        playout: Playout,
        new_canceller: Callable[[], EchoCanceller],
        feed: Callable[[AudioFrame], None],
        report: Callable[[EchoNews, str], None],
    ) -> None:
        self._playout = playout
        self._new_canceller = new_canceller
        self._feed = feed
        self._report = report
        self._wanted = False
        self._suppressor: EchoSuppressor | None = None

    def turn(self, wanted: bool) -> None:
        """On or off; what was held back is fed."""
        if wanted is self._wanted:
            return
        self.flush()
        self._wanted, self._suppressor, self._playout.loudspeaker = wanted, None, None
        if not wanted:
            return
        try:
            self._suppressor = EchoSuppressor(self._new_canceller())
        except Exception as error:  # noqa: BLE001 - whatever it was, the call goes on without
            self._report(EchoNews.FAILED, f"{type(error).__name__}: {error}")
        else:
            self._playout.loudspeaker = self._suppressor.loudspeaker
            self._report(EchoNews.BEGUN, "")

    def push(self, frame: AudioFrame, now: int) -> None:
        """A frame of input that came at `now`."""
        if self._suppressor is None:
            self._feed(frame)
            return
        self._pass_on(self._suppressor.push(frame, now))
        if (why := self._suppressor.failure) is not None:
            self._suppressor = self._playout.loudspeaker = None
            self._report(EchoNews.FAILED, why)

    def flush(self) -> None:
        """The client ends its turn here: what is held back belongs to it."""
        if self._suppressor is not None:
            self._pass_on(self._suppressor.flush())

    def _pass_on(self, frame: AudioFrame | None) -> None:
        if frame is not None:
            self._feed(frame)
