"""How often the agent interrupts itself where its voice comes back from a loudspeaker, with echo suppression and without.

    python -m benchmarks.echo [--data ../shared/data] [--list report] [--minutes 10] [--path -6,20 -12,120 -20,300] [--only with]
    python -m benchmarks.echo --path -6,60 --jump 80 --drift 100 --drive 4

One call in virtual time (`benchmarks.line`): callers' turns and the agent's replies by turns, every third reply spoken over by the caller.
The microphone hears the caller and, through a real room's response, what the loudspeaker has played (`benchmarks.rooms`): `--path` gives
the echo's level against what is played, in dB, and its delay in ms. The server owns playback, as over WebRTC or a telephone line.

Printed per ten minutes of the call: replies cut while the caller was silent, and turns that are believed to be the caller's in which they
said nothing, both self-interruptions; times that a reply was held while they were silent. Then: of replies spoken over, how many were cut,
and how long after the onset (p50, p95); words of the caller lost or wrong, by what the server told the client they said, in turns of
their own and over ours (Whisper's English normaliser); ERLE, the echo's energy before and after, while only the echo can be heard.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from agent.commands import Command, Cut, Hold, TranscriptionCompleted
from agent.settings import PlaybackOwner
from benchmarks.dialogues.sources import Reply, Sources
from benchmarks.line import FRAME, Line, RecordedVoice
from benchmarks.rooms import EchoPath, Speaker, room_response
from benchmarks.turn_taking import pocket_parts
from server.echo import EchoSuppressor
from server.eval.intervals import share
from server.eval.words import english_normaliser, word_distance
from streaming.audio import AudioFrame, Samples, decode_pcm16, to_samples
from streaming.echo_canceller import WebRtcEchoCanceller
from streaming.engine import Parts
from streaming.events import SAMPLE_RATE, CommitTurn, Respond, Say

__all__ = ["EchoingCall", "Exchange", "Result", "exchanges"]

_CALLER_DB: Final = -23.0
"""RMS of the caller at the microphone."""
_PATHS: Final = ("-6,20", "-12,120", "-20,300")
_HISS: Final = 10 ** (-70 / 20)
_OVER_EVERY: Final = 3
_BETWEEN: Final = 8 * SAMPLE_RATE // 10
"""Silence after a reply before the caller goes on."""
_UNANSWERED: Final = 6 * SAMPLE_RATE
"""Silence after a turn that nobody answers before the caller goes on."""
_AROUND: Final = SAMPLE_RATE // 2
"""What happens up to so long after the caller's last sample may be owed to them."""
_FOUND: Final = SAMPLE_RATE
"""The same, where they spoke over a reply: whether to cut it is decided late."""


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """What the caller says and what we answer; `over`, what they say over that, and after how many samples of it."""

    said: Samples
    text: str
    reply: Reply
    over: Samples | None = None
    over_text: str = ""
    over_after: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the caller said, from `start` to `end` of the call; `over` whether over a reply."""

    start: int
    end: int
    text: str
    over: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one call. Counts, and delays in ms."""

    seconds: float
    cut: int
    self_turns: int
    held: int
    over: int
    over_found: int
    over_ms: tuple[float, ...]
    words: int
    wrong: int
    words_over: int
    wrong_over: int
    erle_db: float | None
    given_up: str | None


def exchanges(sources: Sources, count: int) -> list[Exchange]:
    """So many, drawn from a list's turns, interruptions and replies."""
    rng = random.Random(f"echo/{sources.name}")
    made = []
    for number in range(count):
        voice = rng.choice(sources.list["voices"])
        text = rng.choice(sources.list["turns"])
        reply = sources.replies[number % len(sources.replies)]
        exchange = Exchange(_levelled(sources.kokoro.speak(text, voice), _CALLER_DB), text, reply)
        if number % _OVER_EVERY == _OVER_EVERY - 1:
            over = rng.choice(sources.list["interruptions"])
            after = rng.randrange(SAMPLE_RATE, len(reply.pcm) - 2 * SAMPLE_RATE)
            sound = _levelled(sources.kokoro.speak(over, voice), _CALLER_DB)
            exchange = replace(exchange, over=sound, over_text=over, over_after=after)
        made.append(exchange)
    return made


class EchoingCall:
    """One call, its caller and their room. `run` plays it for `seconds`."""

    def __init__(
        self,
        parts: Parts,
        voice: RecordedVoice,
        script: Sequence[Exchange],
        path: EchoPath,
        room: Samples,
        seconds: float,
        suppressor: EchoSuppressor | None,
    ) -> None:
        self.spoken: list[Spoken] = []
        # Samples in which only an echo can be heard: energy at the microphone, and of what the engine was given.
        self.energy = (0.0, 0.0)
        self._script = list(script)
        self._seconds = seconds
        self._speaker = Speaker(path, room, seconds)
        self._suppressor = suppressor
        size = int(seconds * SAMPLE_RATE) + FRAME
        self._caller: Samples = np.zeros(size, np.float32)
        self._heard: Samples = np.zeros(size, np.float32)
        self._echo: Samples = np.zeros(size, np.float32)
        self._given: Samples = np.zeros(size, np.float32)
        self._exchange: Exchange | None = None
        # When the caller speaks next, and when they speak over the reply; None while that depends on us.
        self._speaks_at: int | None = SAMPLE_RATE // 2
        self._over_at: int | None = None
        self._quiet_since = 0
        self._replying = False
        voice.clauses = {clause: speech for exchange in script for clause, speech in exchange.reply.clauses}
        self.line = Line(parts, PlaybackOwner.SERVER, self._answer, echo=suppressor, transcribes=True, fed=self._feed)

    def run(self) -> Result:
        """Play it to its end."""
        rng = np.random.default_rng(11)
        while self.line.now + FRAME <= self._seconds * SAMPLE_RATE:
            now = self.line.now
            self._speak(now)
            self._echo[now : now + FRAME] = self._speaker.echo(now, FRAME)
            hiss = rng.normal(0, _HISS, FRAME).astype(np.float32)
            heard = np.clip(self._caller[now : now + FRAME] + self._echo[now : now + FRAME] + hiss, -1.0, 1.0)
            self._heard[now : now + FRAME] = heard
            self.line.hear(heard)
            played = len(self.line.played)
            self.line.play()
            for at, delta in self.line.played[played:]:
                self._speaker.play(at, to_samples(decode_pcm16(delta.payload)))
                if self._replying and self._over_at is None and self._exchange is not None and self._exchange.over is not None:
                    self._over_at = at + self._exchange.over_after
                self._replying = False
                self._quiet_since = at + delta.samples
        return self._result()

    def _speak(self, now: int) -> None:
        """The caller says what is due."""
        exchange = self._exchange
        if exchange is not None and exchange.over is not None and self._over_at is not None and now >= self._over_at:
            if now - self._quiet_since < SAMPLE_RATE // 4:  # the reply still sounds
                self._say(now, exchange.over, exchange.over_text, over=True)
            self._exchange = replace(exchange, over=None)
            self._over_at = None
        if self._speaks_at is None:
            said = self.spoken[-1].end
            answered = self._quiet_since > said
            if now >= max(self._quiet_since, said) + (_BETWEEN if answered else _UNANSWERED):
                self._speaks_at = now
        if self._speaks_at is not None and now >= self._speaks_at and self._script:
            self._exchange = self._script.pop(0)
            self._speaks_at, self._over_at = None, None
            self._say(now, self._exchange.said, self._exchange.text, over=False)

    def _say(self, now: int, pcm: Samples, text: str, *, over: bool) -> None:
        end = min(len(self._caller), now + len(pcm))
        self._caller[now:end] += pcm[: end - now]
        audible = np.flatnonzero(np.abs(pcm) > 0.018 * np.abs(pcm).max())
        self.spoken.append(Spoken(now + int(audible[0]), now + int(audible[-1]), text, over))

    def _answer(self, order: Respond) -> Say:
        """The reply of the exchange; nothing where the turn was none of the caller's."""
        text = "" if self._exchange is None else self._exchange.reply.text
        self._replying = True
        return Say(order.response_id, text, order.options)

    def _feed(self, frame: AudioFrame) -> None:
        self._given[frame.at : frame.at + len(frame.pcm)] = frame.pcm

    # ------------------------------------------------------------------------------------------------ what came of it

    def _silent(self, at: int) -> bool:
        """Whether nothing that happens at `at` is owed to the caller."""
        return not any(spoken.start <= at <= spoken.end + (_FOUND if spoken.over else _AROUND) for spoken in self.spoken)

    def _result(self) -> Result:
        orders = self.line.ordered
        over = [spoken for spoken in self.spoken if spoken.over]
        after = [self._cut_after(spoken, orders) for spoken in over]
        words, wrong = self._words(over=False)
        words_over, wrong_over = self._words(over=True)
        return Result(
            seconds=self.line.now / SAMPLE_RATE,
            cut=sum(isinstance(order, Cut) and self._silent(at) for at, order in orders),
            self_turns=sum(isinstance(order, CommitTurn) and not self._turn_of(order) for _, order in orders),
            held=sum(isinstance(order, Hold) and self._silent(at) for at, order in orders),
            over=len(over),
            over_found=sum(ms is not None for ms in after),
            over_ms=tuple(ms for ms in after if ms is not None),
            words=words,
            wrong=wrong,
            words_over=words_over,
            wrong_over=wrong_over,
            erle_db=self._erle(),
            given_up=None if self._suppressor is None else self._suppressor.failure,
        )

    @staticmethod
    def _cut_after(spoken: Spoken, orders: Sequence[tuple[int, Command]]) -> float | None:
        cut = next((at for at, order in orders if isinstance(order, Cut) and spoken.start <= at <= spoken.end + _FOUND), None)
        return None if cut is None else (cut - spoken.start) * 1_000 / SAMPLE_RATE

    def _turn_of(self, order: CommitTurn) -> list[Spoken]:
        """What the caller said in a turn."""
        return [spoken for spoken in self.spoken if spoken.start < order.end and order.start < spoken.end + _AROUND]

    def _words(self, *, over: bool) -> tuple[int, int]:
        """Words the caller said, and errors in what they are believed to have said."""
        normalise = english_normaliser()
        texts = {order.item_id: order.transcript for _, order in self.line.ordered if isinstance(order, TranscriptionCompleted)}
        believed: dict[int, str] = {}
        for _, order in self.line.ordered:
            if isinstance(order, CommitTurn) and (said := self._turn_of(order)):
                key = said[-1].start
                believed[key] = f"{believed.get(key, '')} {texts.get(order.item_id, '')}"
        told = [spoken for spoken in self.spoken if spoken.over is over and spoken.end < self.line.now - _FOUND]
        pairs = [(normalise(spoken.text).split(), normalise(believed.get(spoken.start, "")).split()) for spoken in told]
        return sum(len(truth) for truth, _ in pairs), sum(word_distance(heard, truth) for truth, heard in pairs)

    def _erle(self) -> float | None:
        only = np.abs(self._echo) > 0
        for spoken in self.spoken:
            only[max(0, spoken.start - _AROUND) : spoken.end + _AROUND] = False
        only[: self.line.now] &= True
        heard, given = (float(np.sum(np.square(sound[only], dtype=np.float64))) for sound in (self._heard, self._given))
        return 10 * float(np.log10(heard / given)) if heard and given else None


def _levelled(pcm: Samples, decibels: float) -> Samples:
    loud = pcm[np.abs(pcm) > 0.018 * np.abs(pcm).max()]
    rms = float(np.sqrt(np.mean(np.square(loud, dtype=np.float64))))
    return np.clip(pcm * np.float32(10 ** (decibels / 20) / rms), -0.99, 0.99).astype(np.float32)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with manifest.jsonl")
    parser.add_argument("--list", choices=("tune", "report"), default="report", help="whose rooms, voices and sentences")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each call")
    parser.add_argument("--path", action="append", help="level in dB and delay in ms, as -6,20; may be given again")
    parser.add_argument("--only", choices=("with", "without"), help="with suppression only, or without")
    parser.add_argument("--jump", type=int, default=0, help="ms by which the delay grows halfway")
    parser.add_argument("--drift", type=float, default=0.0, help="ppm by which the microphone's clock runs faster")
    parser.add_argument("--drive", type=float, default=0.0, help="how far the loudspeaker is driven into clipping; 4 is far")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sources = Sources(options.list, options.data)
    rooms = [room_response(room) for room in sources.rooms]
    script = exchanges(sources, round(options.minutes * 10))
    voice = RecordedVoice()
    parts = replace(pocket_parts(answers=False), voice=voice)
    print(f"{options.minutes:g} minutes a call, list {options.list}; counts per ten minutes")
    widths = (23, 11, 6, 6, 6, 27, 11, 19, 19)
    heads = ("path", "suppression", "cut", "turns", "held", "over: cut", "after, ms", "words wrong", "over ours")
    print("  " + " ".join(f"{head:{width}}" for head, width in zip(heads, widths, strict=True)), "ERLE")
    for number, text in enumerate(options.path or _PATHS):
        level, delay = text.split(",")
        path = EchoPath(float(level), int(delay), options.jump, options.drift, options.drive)
        for suppressed in (False, True):
            if options.only in (None, "with" if suppressed else "without"):
                suppressor = EchoSuppressor(WebRtcEchoCanceller()) if suppressed else None
                call = EchoingCall(parts, voice, script, path, rooms[number % len(rooms)], options.minutes * 60, suppressor)
                print(_row(path, suppressed, call.run()), flush=True)


def _row(path: EchoPath, suppressed: bool, result: Result) -> str:
    each = 600 / result.seconds
    counts = " ".join(f"{count * each:6.1f}" for count in (result.cut, result.self_turns, result.held))
    after = f"{np.median(result.over_ms):.0f} {np.percentile(result.over_ms, 95):.0f}" if result.over_ms else "-"
    erle = "-" if result.erle_db is None else f"{result.erle_db:.1f} dB"
    columns = (
        f"{path.level_db:g} dB, {path.delay_ms} ms".ljust(23),
        ("with" if suppressed else "without").ljust(11),
        counts,
        f"{share(result.over_found, result.over)}".ljust(27),
        after.ljust(11),
        f"{result.wrong} of {result.words}".ljust(19),
        f"{result.wrong_over} of {result.words_over}".ljust(19),
        erle,
    )
    return "  " + " ".join(columns) + (f"  gave up: {result.given_up}" if result.given_up else "")


if __name__ == "__main__":
    main()
