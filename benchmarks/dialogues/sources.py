"""What a list's dialogues are mixed from: its half of the recordings, its voices, rooms and replies."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.kokoro import Kokoro
from streaming.audio import Samples, resample_clause
from streaming.bundle import default_places
from streaming.events import SAMPLE_RATE
from streaming.models.piper import Noise
from streaming.text import ClauseCutter
from streaming.tts import PhonemeVoice, Speech

__all__ = ["Clip", "Reply", "Sources", "list_of", "read_recording", "spoken_reply"]

Clip = Mapping[str, object]
"""A line of the recordings' manifest."""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What the agent says, and each of its clauses with its sound and words at 16 kHz, as the voice gives them."""

    text: str
    clauses: tuple[tuple[str, Speech], ...]

    @property
    def pcm(self) -> Samples:
        """All of its sound, float32 (m,)."""
        return np.concatenate([speech.pcm for _, speech in self.clauses]).astype(np.float32) / np.float32(32_768)


class Sources:
    """The sounds of one list."""

    def __init__(self, name: str, data: Path) -> None:
        manifest = data / "manifest.jsonl"
        if not manifest.is_file():
            raise FileNotFoundError(f"{manifest} is missing: --data names the folder of the recordings")
        self.name = name
        self.data = data
        self.list = list_of(name)
        self.clips = [clip for clip in map(json.loads, manifest.read_text().splitlines()) if clip["part"] == "dev"]

    @cached_property
    def kokoro(self) -> Kokoro:
        return Kokoro.load()

    @cached_property
    def replies(self) -> list[Reply]:
        """What the agent says, cut into clauses as the engine cuts it."""
        voice = PhonemeVoice.load(default_places().cache / "parts" / "piper-en-us-joe", noise=Noise(0.0, 0.0))
        return [spoken_reply(voice, text) for text in self.list["replies"]]

    @cached_property
    def rooms(self) -> list[Samples]:
        """Impulse responses of unit energy, the direct sound first."""
        rooms = []
        for path in self.list["rooms"]:
            room = self.read(path)
            room = room[int(np.argmax(np.abs(room))) :]
            rooms.append((room / np.sqrt(np.sum(room**2))).astype(np.float32))
        return rooms

    def half(self, keep: Callable[[Clip], bool], same: Callable[[Clip], str]) -> list[Clip]:
        """This list's half of the clips that `keep` names; those for which `same` gives the same are in the same half."""
        kept = [clip for clip in self.clips if keep(clip)]
        mine = list(dict.fromkeys(map(same, kept)))[self.name == "report" :: 2]
        return [clip for clip in kept if same(clip) in mine]

    @cached_property
    def turns(self) -> list[Clip]:
        """People who talk to a machine."""
        return self._by("speakers")

    @cached_property
    def readings(self) -> list[Clip]:
        """Learners of English, many of them children, who read a sentence aloud."""
        return self._by("readers")

    def _by(self, who: str) -> list[Clip]:
        """Clips of this list's `who`, and those it names; a sentence that both lists have is the report's."""
        reported = list_of("report")[who]
        theirs = {_bare(clip) for clip in self.clips if clip.get("speaker") in reported} if self.name == "tune" else set()
        named = self.list["clips"] if who == "speakers" else []
        mine = [clip for clip in self.clips if clip.get("speaker") in self.list[who] or clip["path"] in named]
        return [clip for clip in mine if _bare(clip) not in theirs]

    @cached_property
    def pairs(self) -> list[Clip]:
        """The longer ones of `turn_pairs`."""
        return self.half(lambda clip: clip["set"] == "turn_pairs" and clip["size"] == "long", _bare)

    @cached_property
    def noises(self) -> list[Clip]:
        """Sounds that nobody says. Takes of one recording differ in the letter or digit that ends their name."""
        return self.half(
            lambda clip: (clip["set"] in ("esc10", "noise_misc") and clip["kind"] != "ambience") or clip.get("event") == "laughter",
            lambda clip: re.sub(r"(-[A-Z]|\d)?\.opus$", "", str(clip["path"])),
        )

    def read(self, path: str) -> Samples:
        return read_recording(self.data / path)


def spoken_reply(voice: PhonemeVoice, text: str) -> Reply:
    """`text` as the voice says it, cut into clauses as the engine cuts it."""
    return Reply(text, tuple((clause, _whole(voice, clause)) for clause in _clauses(text)))


def _clauses(text: str) -> list[str]:
    cutter = ClauseCutter()
    return [clause.spoken for clause in (*cutter.push(text), *cutter.flush())]


def _whole(voice: PhonemeVoice, clause: str) -> Speech:
    """A clause in one piece."""
    parts = [*voice.speak(clause, SAMPLE_RATE)]
    words = tuple(word for part in parts for word in part.words)
    return Speech(np.concatenate([part.pcm for part in parts]), words, exact=all(part.exact for part in parts))


def list_of(name: str) -> Mapping[str, list[str]]:
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text())


def _bare(clip: Clip) -> str:
    """A clip's words alone."""
    return "".join(letter for letter in str(clip["text"]).lower() if letter.isalnum() or letter == " ")


@cache
def read_recording(path: Path) -> Samples:
    """A recording in mono, float32 (n,) at 16 kHz; kept, so not to be written to."""
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample_clause(np.ascontiguousarray(sound.mean(axis=1, dtype=np.float32)), int(rate), SAMPLE_RATE)
