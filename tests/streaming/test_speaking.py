"""One reply's sound: numbered without gaps, in order, in turns with others, and over within a chunk of its abort."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from agent.heard import SpokenText
from streaming.doors import EngineOutput, SessionEvent, SynthesisedAudio
from streaming.events import AudioReady, FinishReason, RespondOptions, ResponseFinished, Usage, WordMark
from streaming.lane import Lane
from streaming.speaking import Speaker
from streaming.text import Clause, speakable
from streaming.tts import Speech

CHUNK, WORD = 100, 150
"""Samples. So a chunk holds the end of no word or of one."""


@dataclass
class SlowVoice:
    """Words of 150 samples in chunks of 100; `made` and `prompts` note what it was asked for. "boom" fails it when its turn comes, "?" has
    no sound."""

    made: list[str] = field(default_factory=list)
    prompts: list[tuple[str, bool]] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def speak(self, text: str, rate: int, speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:
        assert (rate, speed, name) == (8_000, 1.0, "ada")
        self.prompts.append((text, prompt))
        return self._chunks(text)

    def _chunks(self, text: str) -> Iterator[Speech]:
        words = text.strip("?").split()
        ends = np.cumsum([len(word) + 1 for word in words])
        marks = [WordMark(int(min(end, len(text))), WORD * (n + 1)) for n, end in enumerate(ends)]
        for start in range(0, WORD * len(words), CHUNK):
            end = min(start + CHUNK, WORD * len(words))
            self.made.append(text)
            self.meanwhile()
            if "boom" in text and start:
                raise RuntimeError("no breath")
            yield Speech(np.full(end - start, len(text), np.int16), tuple(mark for mark in marks if start < mark.end <= end), True)


@dataclass
class Stage:
    """A voice on an unthreaded lane and everything its speakers emit."""

    voice: SlowVoice = field(default_factory=SlowVoice)
    lane: Lane = field(default_factory=lambda: Lane("voice", threaded=False))
    outputs: list[EngineOutput] = field(default_factory=list)

    def speaker(self, name: str = "r", *, audio: bool = True) -> Speaker:
        options = RespondOptions(audio=audio, rate=8_000, voice="ada")
        return Speaker(self.lane, self.voice, self.outputs.append, f"session of {name}", name, options)

    def ready(self, name: str = "r") -> list[AudioReady]:
        events = [output.event for output in self.outputs if isinstance(output, SessionEvent)]
        return [event for event in events if isinstance(event, AudioReady) and event.response_id == name]

    def order(self) -> str:
        """Whose chunk (lower case) or end (upper case) was told, in order."""
        told = [output.event for output in self.outputs if isinstance(output, SessionEvent)]
        return "".join(event.response_id if isinstance(event, AudioReady) else event.response_id.upper() for event in told)


def clauses(*texts: str) -> list[Clause]:
    starts = np.cumsum([0, *(len(text) for text in texts)])
    return [speakable(text, int(start)) for text, start in zip(texts, starts, strict=False)]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_chunks_follow_each_other_and_each_tells_what_has_been_said(stage: Stage) -> None:
    speaker = stage.speaker()
    for clause in clauses("One two ", "*three*"):
        speaker.say(clause)
    speaker.finish(FinishReason.STOP, usage=Usage(1, 2, 3))
    assert stage.ready() == [
        AudioReady("r", 0, 100, 0, (), True),
        AudioReady("r", 100, 100, 4, (WordMark(4, 150),), True),
        AudioReady("r", 200, 100, 8, (WordMark(8, 300),), True),
        AudioReady("r", 300, 100, 8, (), True),
        AudioReady("r", 400, 50, 15, (WordMark(15, 450),), True),
    ]
    sounds = [(output.start, len(output.pcm)) for output in stage.outputs if isinstance(output, SynthesisedAudio)]
    assert sounds == [(ready.start, ready.samples) for ready in stage.ready()]
    # Each chunk's sound comes before its event, and the end last of all.
    assert [type(output) for output in stage.outputs] == [SynthesisedAudio, SessionEvent] * 5 + [SessionEvent]
    assert stage.outputs[-1] == SessionEvent("session of r", ResponseFinished("r", FinishReason.STOP, None, Usage(1, 2, 3)))


def test_what_was_heard_is_right_after_every_chunk(stage: Stage) -> None:
    speaker, text = stage.speaker(), "One two three four"
    speaker.say(*clauses(text))
    spoken = SpokenText(8_000)
    spoken.text = text
    heard = []
    for ready in stage.ready():
        spoken.add(ready)
        heard.append(text[: spoken.text_end(spoken.samples)])
    assert heard == ["", "One ", "One two ", "One two ", "One two three ", text]
    assert [text[: spoken.text_end(samples)] for samples in (149, 150, 299, 300, 600)] == ["", "One ", "One ", "One two ", text]


def test_only_the_first_clause_with_sound_is_prompt(stage: Stage) -> None:
    speaker = stage.speaker()
    for clause in clauses("?", "One ", "two"):
        speaker.say(clause)
    assert stage.voice.prompts == [("?", True), ("One ", True), ("two", False)]


def test_text_without_sound_goes_with_what_was_said_before(stage: Stage) -> None:
    speaker = stage.speaker()
    for clause in clauses("One ", "?"):
        speaker.say(clause)
    assert stage.ready()[-1] == AudioReady("r", 150, 0, 5)
    assert stage.ready()[-2].text_end == 4


def test_without_audio_nothing_is_spoken(stage: Stage) -> None:
    speaker = stage.speaker(audio=False)
    speaker.say(*clauses("One two"))
    speaker.finish(FinishReason.STOP)
    assert (stage.voice.made, stage.order()) == ([], "R")


def test_replies_take_turns_and_first_chunks_come_first(stage: Stage) -> None:
    a, b, c = (stage.speaker(name) for name in "abc")

    def start() -> None:
        a.say(*clauses("one two three four"))  # six chunks
        b.say(*clauses("one two"))  # three
        b.finish(FinishReason.STOP)

    def join() -> None:
        """While a's third chunk is made, another caller's reply begins."""
        if len(stage.voice.made) == 5:
            c.say(*clauses("one two"))

    stage.voice.meanwhile = join
    stage.lane.put(start)
    # c's first chunk comes right behind a's third, though b waits longer; then each in turn.
    assert stage.order() == "ababacbacBaca"


def test_a_later_clause_waits_for_the_one_before_it(stage: Stage) -> None:
    a, b = stage.speaker("a"), stage.speaker("b")

    def start() -> None:
        for clause in clauses("one two ", "three four"):
            a.say(clause)
        a.finish(FinishReason.STOP)
        b.say(*clauses("one two"))
        b.finish(FinishReason.STOP)

    stage.lane.put(start)
    assert [ready.start for ready in stage.ready("a")] == [0, 100, 200, 300, 400, 500]
    assert stage.order().startswith("ababab")
    assert stage.order().endswith("aA")


def test_an_abort_ends_it_within_a_chunk_and_before_the_turns_of_others(stage: Stage) -> None:
    a, b = stage.speaker("a"), stage.speaker("b")

    def start() -> None:
        b.say(*clauses("one two three four five six"))
        for clause in clauses("one two three four ", "five"):
            a.say(clause)

    def interrupt() -> None:
        if len(stage.voice.made) == 4:  # a's second chunk, thrown away
            a.abort()
            a.finish(FinishReason.ABORTED)

    stage.voice.meanwhile = interrupt
    stage.lane.put(start)
    assert stage.order() == "babA" + "b" * 7
    assert stage.voice.made.count("one two three four ") == 2
    assert [text for text, _ in stage.voice.prompts] == ["one two three four five six", "one two three four "]


def test_fixed_words_end_aborted_though_their_end_was_queued_before(stage: Stage) -> None:
    speaker = stage.speaker()

    def start() -> None:
        speaker.say(*clauses("one two"))
        speaker.finish(FinishReason.STOP)

    stage.voice.meanwhile = speaker.abort
    stage.lane.put(start)
    speaker.abort()
    assert stage.ready() == []
    assert stage.outputs == [SessionEvent("session of r", ResponseFinished("r", FinishReason.ABORTED))]


def test_a_failing_voice_ends_the_reply_with_what_it_said(stage: Stage) -> None:
    speaker = stage.speaker()
    for clause in clauses("One ", "boom boom ", "two"):
        speaker.say(clause)
    speaker.finish(FinishReason.STOP)
    assert [ready.start for ready in stage.ready()] == [0, 100, 150]
    error = "the voice failed: RuntimeError: no breath"
    assert stage.outputs[-1] == SessionEvent("session of r", ResponseFinished("r", FinishReason.ERROR, error))
    assert "two" not in stage.voice.made


def test_a_clause_waits_while_another_is_spoken(stage: Stage) -> None:
    speaker, waited = stage.speaker(), []
    first, second = clauses("One two. ", "Three four.")

    def meanwhile() -> None:
        if not waited:
            waited.append(speaker.waiting)
            speaker.say(second)
        waited.append(speaker.waiting)

    stage.voice.meanwhile = meanwhile
    speaker.say(first)
    assert waited == [False, True, True, True, False, False, False]
    assert not speaker.waiting


def test_a_voice_that_has_failed_says_so(stage: Stage) -> None:
    speaker = stage.speaker()
    assert not speaker.failed
    for clause in clauses("One boom."):
        speaker.say(clause)
    assert speaker.failed
