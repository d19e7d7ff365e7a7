"""The recipe: from a list to dialogues. See the package's docstring for the kinds."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from benchmarks.dialogues.sources import Clip, Reply, Sources
from server.caller_audio import CALLER_RATE, speech_end
from streaming.audio import Pcm16, Samples, resample_clause, to_pcm16
from streaming.events import SAMPLE_RATE

__all__ = ["KINDS", "Dialogue", "Kind", "load"]

Kind = Literal["turn", "read", "pause", "backchannel", "noise", "others", "echo", "interruption"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_SILENCE: Final = 4 * SAMPLE_RATE
"""After the last sound: longer than the longest wait."""
_LEVEL_DB: Final = -23.0
"""RMS of a caller at the microphone, before their own variation of 6 dB."""
_ECHO_SHARE: Final = 1 / 3
"""Of interruptions and backchannels, those over a residual echo of ours, 18 to 30 dB down."""
_REPLY_AFTER: Final = 23 * SAMPLE_RATE // 10
"""From the caller's turn to the agent's reply: longer than the longest wait, so that the reply begins when the recipe says."""
_SYNTHETIC_TURNS: Final = 2
_SYNTHETIC_PAUSES: Final = 3
"""Voices that say each sentence."""
_EACH: Final = {"noise": 4, "others": 100, "echo": 120, "interruption": 6, "human interruption": 30}
"""Dialogues a noise clip, in all, in all, a sentence, and in all."""


@dataclass(frozen=True, slots=True, eq=False)
class Dialogue:
    """`pcm` float32 (n,) at 16 kHz is what the microphone hears. `speech_end` is where the caller's (last) turn ends; in kinds with a reply
    that is the turn before it. `pauses` are the silences we put into the turn (start, end). `reply` is what the agent says, and plays
    from `reply_at` on; `onset` and `event_end` are where what is heard over it begins and ends."""

    id: str
    kind: Kind
    pcm: Samples
    speech_end: int
    human: bool
    text: str
    pauses: tuple[tuple[int, int], ...] = ()
    reply: Reply | None = None
    reply_at: int = 0
    onset: int = 0
    event_end: int = 0


def load(name: Literal["tune", "report"], kind: Kind, data: Path) -> Iterator[Dialogue]:
    """The dialogues of a list and kind, in order, each from a seed of its own. Raises FileNotFoundError without the recordings and
    streaming.manifest.BundleError where Kokoro can't be fetched."""
    sources = _sources(name, data)
    for number, make in enumerate(_recipes(sources, kind)):
        ident = f"{kind}/{number:03}"
        yield make(ident, random.Random(f"{name}/{ident}"))


@cache
def _sources(name: str, data: Path) -> Sources:
    return Sources(name, data)


_Recipe = Callable[[str, random.Random], Dialogue]


def _recipes(sources: Sources, kind: Kind) -> Iterator[_Recipe]:
    match kind:
        case "turn":
            yield from (_human_turn(sources, kind, clip) for clip in sources.turns)
            yield from (_synthetic_turn(sources, text, n) for text in sources.list["turns"] for n in range(_SYNTHETIC_TURNS))
        case "read":
            yield from (_human_turn(sources, kind, clip) for clip in sources.readings)
        case "pause":
            yield from (
                _hesitation(sources, first, second, n) for first, second in sources.list["hesitations"] for n in range(_SYNTHETIC_PAUSES)
            )
            yield from (_parted_pair(sources, clip) for clip in sources.pairs)
        case "backchannel":
            yield from (
                _spoken_over(sources, kind, text, voice) for text in sources.list["backchannels"] for voice in sources.list["voices"]
            )
        case "interruption":
            yield from (
                _spoken_over(sources, kind, text, None) for text in sources.list["interruptions"] for _ in range(_EACH["interruption"])
            )
            yield from (_human_over(sources, clip) for clip in sources.turns[: _EACH["human interruption"]])
        case "noise":
            yield from (_noise_over(sources, clip) for clip in sources.noises for _ in range(_EACH["noise"]))
        case "others":
            yield from (_others_over(sources) for _ in range(_EACH["others"]))
        case "echo":
            yield from (_echo_over(sources) for _ in range(_EACH["echo"]))


# ------------------------------------------------------------------------------------------------------------- turns


def _human_turn(sources: Sources, kind: Kind, clip: Clip) -> _Recipe:
    def make(ident: str, rng: random.Random) -> Dialogue:
        pcm = sources.read(str(clip["path"]))
        end = speech_end(_at_caller_rate(pcm)) * SAMPLE_RATE // CALLER_RATE
        return Dialogue(ident, kind, _with_room_tone(sources, pcm, rng), end, human=True, text=str(clip["text"]))

    return make


def _synthetic_turn(sources: Sources, text: str, number: int) -> _Recipe:
    def make(ident: str, rng: random.Random) -> Dialogue:
        pcm = _levelled(sources.kokoro.speak(text, _voice(sources, text, number)), _level(rng))
        pcm, end = _placed([pcm])
        return Dialogue(ident, "turn", _with_room_tone(sources, pcm, rng), end, human=False, text=text)

    return make


def _hesitation(sources: Sources, first: str, second: str, number: int) -> _Recipe:
    def make(ident: str, rng: random.Random) -> Dialogue:
        voice, level = _voice(sources, first, number), _level(rng)
        parts = [_levelled(sources.kokoro.speak(text, voice), level) for text in (first, second)]
        return _parted(sources, ident, parts, rng, text=f"{first} {second}")

    return make


def _parted_pair(sources: Sources, clip: Clip) -> _Recipe:
    """The longer sentence of a pair, parted where the shorter one ends: its melody says that it goes on."""
    short = next(c for c in sources.clips if c.get("pair") == clip["pair"] and c["size"] == "short" and c["set"] == "turn_pairs")

    def make(ident: str, rng: random.Random) -> Dialogue:
        pcm = _levelled(sources.read(str(clip["path"])), _level(rng))
        starts, words = clip["starts"], short["words"]
        assert isinstance(starts, list)
        assert isinstance(words, list)
        cut = int(float(starts[len(words)]) * SAMPLE_RATE)
        return _parted(sources, ident, [_faded(pcm[:cut]), _faded(pcm[cut:])], rng, text=str(clip["text"]))

    return make


def _parted(sources: Sources, ident: str, parts: Sequence[Samples], rng: random.Random, text: str) -> Dialogue:
    gap = int(min(max(rng.lognormvariate(np.log(500), 0.6), 200), 2_000) * SAMPLE_RATE / 1_000)
    lead = SAMPLE_RATE // 2
    # The true pause is between the audible ends, not between the files'.
    start = lead + _audible_end(parts[0])
    end = lead + len(parts[0]) + gap + _audible_start(parts[1])
    pcm, last = _placed([parts[0], np.zeros(gap, np.float32), parts[1]])
    noisy = _with_room_tone(sources, pcm, rng)
    return Dialogue(ident, "pause", noisy, last, human=False, text=text, pauses=((start, end),))


# ---------------------------------------------------------------------------------------------------------- overlaps


def _spoken_over(sources: Sources, kind: Kind, text: str, voice: str | None) -> _Recipe:
    """Somebody says `text` while the agent speaks: the caller themself, so in the voice of their turn before."""

    def make(ident: str, rng: random.Random) -> Dialogue:
        who = voice or _voice(sources, text, int(ident[-3:]))
        level = _level(rng)
        drop = rng.uniform(0, 8) if kind == "backchannel" else rng.uniform(-3, 3)
        said = _levelled(sources.kokoro.speak(text, who), level - drop)
        return _over_reply(sources, ident, kind, said, rng, caller=(who, level), text=text)

    return make


def _human_over(sources: Sources, clip: Clip) -> _Recipe:
    """A recorded sentence as the interruption; the turn before is another voice's at the same level."""

    def make(ident: str, rng: random.Random) -> Dialogue:
        level = _level(rng)
        pcm = sources.read(str(clip["path"]))
        said = _levelled(_faded(pcm[max(0, _audible_start(pcm) - 800) : _audible_end(pcm) + 800]), level)
        caller = (rng.choice(sources.list["voices"]), level)
        return _over_reply(sources, ident, "interruption", said, rng, caller=caller, text=str(clip["text"]), human=True)

    return make


def _noise_over(sources: Sources, clip: Clip) -> _Recipe:
    def make(ident: str, rng: random.Random) -> Dialogue:
        pcm = sources.read(str(clip["path"]))
        loud = np.flatnonzero(np.abs(pcm) > 0.05 * np.max(np.abs(pcm)))
        first = min(int(loud[0]), max(0, len(pcm) - SAMPLE_RATE))
        length = rng.randrange(SAMPLE_RATE // 2, 3 * SAMPLE_RATE)
        noise = _levelled(_faded(pcm[first : first + length]), _LEVEL_DB - rng.uniform(-3, 12))
        text = str(clip.get("event") or clip["kind"])
        return _over_reply(sources, ident, "noise", noise, rng, caller=(rng.choice(sources.list["voices"]), _LEVEL_DB), text=text)

    return make


def _others_over(sources: Sources) -> _Recipe:
    """Somebody else in the room, 12 to 20 dB below the caller, through a real room."""

    def make(ident: str, rng: random.Random) -> Dialogue:
        clip = rng.choice([*sources.turns, *sources.readings])
        pcm = sources.read(str(clip["path"]))
        speech = pcm[_audible_start(pcm) :][: rng.randrange(SAMPLE_RATE, 3 * SAMPLE_RATE)]
        far = _in_room(speech, rng.choice(sources.rooms))[: len(speech) + SAMPLE_RATE // 4]
        level = _level(rng)
        side = _levelled(_faded(far), level - rng.uniform(12, 20))
        voice = rng.choice(sources.list["voices"])
        return _over_reply(sources, ident, "others", side, rng, caller=(voice, level), text=str(clip["text"]))

    return make


def _echo_over(sources: Sources) -> _Recipe:
    """Our own voice, through a real room, 20 to 160 ms late and 6 to 30 dB down: what a canceller leaves, or what there is without one."""

    def make(ident: str, rng: random.Random) -> Dialogue:
        reply = rng.choice(sources.replies)
        said = reply.pcm
        delay = int(rng.uniform(0.02, 0.16) * SAMPLE_RATE)
        room = rng.choice(sources.rooms)
        echo = _in_room(said, room)[: len(said)] * np.float32(10 ** (-rng.uniform(6, 30) / 20))
        voice = rng.choice(sources.list["voices"])
        return _over_reply(sources, ident, "echo", echo, rng, caller=(voice, _level(rng)), text="", reply=reply, after=delay)

    return make


def _over_reply(
    sources: Sources,
    ident: str,
    kind: Kind,
    event: Samples,
    rng: random.Random,
    *,
    caller: tuple[str, float],
    text: str,
    reply: Reply | None = None,
    after: int | None = None,
    human: bool = False,
) -> Dialogue:
    """The caller's turn, the agent's reply after it, and `event` `after` so many samples of the reply (drawn, where None: from
    800 ms on, and so that the reply goes on for a second and a half behind its onset)."""
    voice, level = caller
    # One of the turns that this voice says anyway.
    question = rng.choice([text for text in sources.list["turns"] if voice in _voices(sources, text)] or sources.list["turns"])
    turn, end = _placed([_levelled(sources.kokoro.speak(question, voice), level)])
    reply = reply or rng.choice(sources.replies)
    length = len(reply.pcm)
    if after is None:
        after = rng.randrange(8 * SAMPLE_RATE // 10, length - 3 * SAMPLE_RATE // 2)
    reply_at = end + _REPLY_AFTER
    onset = reply_at + after
    pcm = np.zeros(max(reply_at + length, onset + len(event)) + 2 * SAMPLE_RATE, np.float32)
    pcm[:end] += turn[:end]
    pcm[onset : onset + len(event)] += event
    if kind in ("interruption", "backchannel") and rng.random() < _ECHO_SHARE:
        residual = _in_room(reply.pcm, rng.choice(sources.rooms))[:length] * np.float32(10 ** (-rng.uniform(18, 30) / 20))
        heard_from = reply_at + int(rng.uniform(0.02, 0.16) * SAMPLE_RATE)
        pcm[heard_from : heard_from + length] += residual[: len(pcm) - heard_from]
    begins = onset + _audible_start(event)
    ends = onset + _audible_end(event)
    noisy = _with_room_tone(sources, pcm, rng, silence=0)
    return Dialogue(
        ident,
        kind,
        noisy,
        end,
        human=human or kind in ("noise", "others"),
        text=text,
        reply=reply,
        reply_at=reply_at,
        onset=begins,
        event_end=ends,
    )


# ------------------------------------------------------------------------------------------------------------- sound


def _voices(sources: Sources, text: str) -> list[str]:
    """The voices in which a turn is rendered."""
    return [_voice(sources, text, number) for number in range(_SYNTHETIC_TURNS)]


def _in_room(pcm: Samples, room: Samples) -> Samples:
    """Convolved with the room's response, (n,) and (m,) to (n + m - 1,)."""
    length = len(pcm) + len(room) - 1
    size = 1 << (length - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(room, size), size)[:length].astype(np.float32)


def _voice(sources: Sources, text: str, number: int) -> str:
    """A voice of the list for the `number`-th rendering of a sentence: the same in every run."""
    voices = sources.list["voices"]
    first = random.Random(text).randrange(len(voices))
    return str(voices[(first + 5 * number) % len(voices)])


def _level(rng: random.Random) -> float:
    return _LEVEL_DB + rng.uniform(-6, 6)


def _levelled(pcm: Samples, decibels: float) -> Samples:
    """With this RMS over its audible part, but never clipped."""
    heard = pcm[_audible_start(pcm) : _audible_end(pcm)]
    rms = float(np.sqrt(np.mean(np.square(heard, dtype=np.float64)))) + 1e-9
    gain = min(10 ** (decibels / 20) / rms, 0.99 / (float(np.max(np.abs(pcm))) + 1e-9))
    return (pcm * np.float32(gain)).astype(np.float32)


def _audible_start(pcm: Samples) -> int:
    """The first sample within 35 dB of the loudest."""
    loud = np.flatnonzero(np.abs(pcm) > 0.018 * float(np.max(np.abs(pcm), initial=1e-9)))
    return int(loud[0]) if len(loud) else 0


def _audible_end(pcm: Samples) -> int:
    loud = np.flatnonzero(np.abs(pcm) > 0.018 * float(np.max(np.abs(pcm), initial=1e-9)))
    return int(loud[-1]) + 1 if len(loud) else len(pcm)


def _faded(pcm: Samples) -> Samples:
    """With 5 ms of fade at both ends, so that a cut does not click."""
    ramp = np.linspace(0, 1, SAMPLE_RATE // 200, dtype=np.float32)
    faded = pcm.copy()
    if len(faded) > 2 * len(ramp):
        faded[: len(ramp)] *= ramp
        faded[-len(ramp) :] *= ramp[::-1]
    return faded


def _placed(parts: Sequence[Samples]) -> tuple[Samples, int]:
    """The parts after half a second of silence, and where the last audible sample of the last one ends."""
    lead = np.zeros(SAMPLE_RATE // 2, np.float32)
    pcm = np.concatenate((lead, *parts))
    return pcm, len(pcm) - len(parts[-1]) + _audible_end(parts[-1])


def _with_room_tone(sources: Sources, pcm: Samples, rng: random.Random, silence: int = _SILENCE) -> Samples:
    """With silence behind it and, for half of the dialogues, a recorded room 20 to 35 dB below the caller; -70 dB of hiss for all."""
    pcm = np.concatenate((pcm, np.zeros(silence, np.float32)))
    seed = rng.randrange(1 << 32)
    tone = np.random.default_rng(seed).normal(0, 10 ** (-70 / 20), len(pcm)).astype(np.float32)
    if rng.random() < 0.5:
        room = sources.read(rng.choice(sources.list["ambiences"]))
        start = rng.randrange(max(1, len(room) - len(pcm)))
        piece = np.resize(room[start:], len(pcm)).astype(np.float32)
        rms = float(np.sqrt(np.mean(piece**2))) + 1e-9
        tone = tone + piece * np.float32(10 ** ((_LEVEL_DB - rng.uniform(20, 35)) / 20) / rms)
    return np.clip(pcm + tone, -1.0, 1.0).astype(np.float32)


def _at_caller_rate(pcm: Samples) -> Pcm16:
    return to_pcm16(resample_clause(pcm, SAMPLE_RATE, CALLER_RATE))
