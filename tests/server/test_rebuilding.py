"""What rebuilds a session: on its own, and under a whole server whose engine is killed while a client talks."""

import asyncio
import multiprocessing
import os
import queue
import signal
from functools import partial

import numpy as np
import pytest

from agent.conversation import Conversation
from server.apology import APOLOGY, FixedSpeech, speak_fixed
from server.engine_link import Fact, FeedFrame, OpenSession, Request, TakeOrder
from server.engine_process import ProcessEngineLink
from server.rebuilding import SessionRecord
from streaming.audio import AudioFrame
from streaming.doors import SessionEvent
from streaming.events import (
    Abort,
    Adopt,
    AudioReady,
    CommitTurn,
    ConfigureEar,
    ContextMessage,
    DiscardTurn,
    Drop,
    EngineLost,
    FinishReason,
    Listened,
    ReplyRestarted,
    Respond,
    RespondOptions,
    ResponseFinished,
    Say,
    SessionSpec,
    SetHistory,
    Speculate,
    StartTurn,
    TextDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
    WordMark,
)
from streaming.fakes import ScriptedEngine, ScriptedReply, load_scripted

SPEC = SessionSpec(seed=3)
SORRY = FixedSpeech("Sorry.", np.ones(2_400, np.int16), (WordMark(6, 2_400),), True)
GONE = EngineLost("gone")
TEXT_ONLY = RespondOptions(audio=False)


def feed(record: SessionRecord, until: int, start: int = 0, size: int = 320) -> None:
    for at in range(start, until, size):
        record.feed(AudioFrame(np.full(min(size, until - at), at, np.float32), at))


def listen(record: SessionRecord, until: int, start: int = 0) -> list[Fact]:
    return [fact for at in range(start + 512, until + 1, 512) for fact in record.tell(SessionEvent("s", Listened(at)))]


def order(record: SessionRecord, *orders: object) -> list[Fact]:
    return [fact for one in orders for fact in record.order(one, SORRY)]


def say(record: SessionRecord, *events: object) -> list[Fact]:
    return [fact for event in events for fact in record.tell(SessionEvent("s", event))]


def orders(requests: list[Request]) -> list[object]:
    return [request.order for request in requests if isinstance(request, TakeOrder)]


def spans(requests: list[Request]) -> list[tuple[int, int]]:
    """The stretches of input that are fed."""
    frames = [request.frame for request in requests if isinstance(request, FeedFrame)]
    return [(frame.at, frame.at + len(frame.pcm)) for frame in frames]


@pytest.fixture
def record() -> SessionRecord:
    return SessionRecord("s", SPEC)


def test_settings_come_back_and_history_with_the_words_the_dead_engine_knew(record) -> None:
    heard, asked = ContextMessage("user", "a", None), ContextMessage("user", "b", None)
    order(record, ConfigureEar(0.4), ConfigureEar(0.6, language="de"), CommitTurn("a", 0, 320), CommitTurn("b", 320, 640, "Known."))
    say(record, TranscriptDone("a", "Heard.", 0.9, "en"))
    order(record, SetHistory((heard, asked, ContextMessage("assistant", "c", "Yes."))))
    record.lose("gone", SORRY)
    assert list(record.rebuild()) == [
        OpenSession("s", SPEC),
        TakeOrder("s", ConfigureEar(0.6, language="de")),
        TakeOrder(
            "s",
            SetHistory(
                (ContextMessage("user", "a", "Heard."), ContextMessage("user", "b", "Known."), ContextMessage("assistant", "c", "Yes."))
            ),
        ),
    ]


def test_input_is_fed_from_before_what_is_owed_at_the_old_windows(record) -> None:
    feed(record, 64_000)
    listen(record, 63_488)
    order(record, CommitTurn("a", 20_000, 40_000), StartTurn("b", 50_000))
    feed(record, 70_000, 64_000)
    record.lose("gone", SORRY)
    requests = list(record.rebuild())
    fed = spans(requests)
    assert fed[0][0] <= 12_000
    assert (63_488 - fed[0][0]) % 512 == 0
    assert fed[-1][1] == 70_000
    assert [end for _, end in fed[:-1]] == [start for start, _ in fed[1:]]
    pcm = np.concatenate([request.frame.pcm for request in requests if isinstance(request, FeedFrame)])
    assert np.array_equal(pcm, np.arange(fed[0][0], 70_000) // 320 * 320)
    # The orders stand where they came: after all that had been fed by then.
    kinds = [type(one.order) if isinstance(one, TakeOrder) else one.frame.at for one in requests[1:]]
    assert kinds[kinds.index(CommitTurn) :] == [CommitTurn, StartTurn, 64_000]


def test_a_committed_turn_is_fed_no_more_once_its_words_are_known(record) -> None:
    feed(record, 64_000)
    listen(record, 63_488)
    order(record, StartTurn("a", 20_000), CommitTurn("a", 20_000, 60_000))
    say(record, TranscriptDone("a", "So.", 0.9, "en"))
    record.lose("gone", SORRY)
    requests = list(record.rebuild())
    assert orders(requests) == [SetHistory(())]
    assert spans(requests)[0][0] == 63_488 - 512 * -(-(63_488 - 52_000) // 512)


def test_a_discarded_turn_is_forgotten(record) -> None:
    feed(record, 32_000)
    order(record, StartTurn("a", 1_000), DiscardTurn(20_000))
    record.lose("gone", SORRY)
    assert orders(list(record.rebuild())) == [SetHistory(())]


def test_of_more_than_is_held_the_newest_is_fed(record) -> None:
    feed(record, 40 * 16_000)
    listen(record, 40 * 16_000 - 512 * 3)
    order(record, StartTurn("a", 0))
    record.lose("gone", SORRY)
    (first, _), *_ = spans(list(record.rebuild()))
    assert 10 * 16_000 - 320 <= first < 10 * 16_000 + 512
    assert (40 * 16_000 - 512 * 3 - first) % 512 == 0


def test_words_of_a_turn_that_is_heard_again_are_told_at_its_end_only(record) -> None:
    order(record, StartTurn("a", 0))
    first = TranscriptDelta("a", "So", 0.9, "en")
    assert say(record, first) == [first]
    record.lose("gone", SORRY)
    list(record.rebuild())
    done = TranscriptDone("a", "So it is.", 0.9, "en")
    other = TranscriptDelta("b", "And", 0.9, "en")
    assert say(record, TranscriptDelta("a", "So", 0.9, "en"), done, other) == [done, other]


def test_a_turn_that_kills_two_engines_is_given_up(record) -> None:
    order(record, CommitTurn("a", 0, 320))
    assert record.lose("gone", SORRY) == [GONE]
    list(record.rebuild())
    assert record.lose("gone", SORRY) == [TranscriptFailed("a", "gone"), GONE]
    assert orders(list(record.rebuild())) == [SetHistory(())]


def test_a_reply_that_kills_two_engines_is_given_up(record) -> None:
    order(record, Respond("r", RespondOptions()))
    assert [type(fact).__name__ for fact in record.lose("gone", SORRY)] == ["TextDelta", "SynthesisedAudio", "AudioReady", "EngineLost"]
    assert orders(list(record.rebuild()))[-1] == Respond("r", RespondOptions())
    assert record.lose("gone", SORRY) == [ResponseFinished("r", FinishReason.ERROR, "gone"), GONE]


def test_what_is_said_after_the_apology_stands_after_it(record) -> None:
    order(record, Respond("r", RespondOptions(rate=8_000)))
    say(record, TextDelta("r", "It is"))
    taken_back, delta, sound, ready, _ = record.lose("gone", SORRY)
    assert taken_back == ReplyRestarted("r", 0)  # nobody has heard it
    assert delta == TextDelta("r", "Sorry. ")
    assert (sound.start, len(sound.pcm)) == (0, 800)
    assert ready == AudioReady("r", 0, 800, 7, (WordMark(7, 800),), True)
    list(record.rebuild())
    told = say(record, TextDelta("r", "It."), AudioReady("r", 0, 100, 3, (WordMark(3, 100),)), ResponseFinished("r", FinishReason.STOP))
    assert told == [TextDelta("r", "It."), AudioReady("r", 800, 100, 10, (WordMark(10, 900),)), ResponseFinished("r", FinishReason.STOP)]


def test_a_text_reply_waits_and_one_that_has_begun_ends(record) -> None:
    order(record, Respond("new", TEXT_ONLY), Respond("begun", TEXT_ONLY))
    say(record, TextDelta("begun", "So"))
    assert record.lose("gone", SORRY) == [ResponseFinished("begun", FinishReason.ERROR, "gone"), GONE]
    assert orders(list(record.rebuild()))[-1] == Respond("new", TEXT_ONLY)


def test_a_tool_is_not_called_twice(record) -> None:
    order(record, Respond("r", RespondOptions()))
    say(record, ToolCallReady("r", 0, "pay", "{}"))
    assert record.lose("gone", SORRY) == [ResponseFinished("r", FinishReason.ERROR, "gone"), GONE]


def test_a_reply_that_is_over_or_aborted_is_not_made_again(record) -> None:
    order(record, Respond("over", RespondOptions()), Respond("aborted", RespondOptions()), Abort("aborted"))
    say(record, ResponseFinished("over", FinishReason.STOP))
    assert record.lose("gone", SORRY) == [ResponseFinished("aborted", FinishReason.ABORTED), GONE]
    assert orders(list(record.rebuild())) == [SetHistory(())]


def test_what_is_ordered_while_there_is_no_engine(record) -> None:
    record.lose("gone", SORRY)
    assert [type(fact).__name__ for fact in order(record, Say("r", "Hello.", RespondOptions()))] == [
        "TextDelta",
        "SynthesisedAudio",
        "AudioReady",
    ]
    assert order(record, Respond("t", TEXT_ONLY), Respond("x", TEXT_ONLY)) == []
    assert order(record, Abort("x")) == [ResponseFinished("x", FinishReason.ABORTED)]
    assert orders(list(record.rebuild()))[1:] == [Say("r", "Hello.", RespondOptions()), Respond("t", TEXT_ONLY)]


def test_words_from_elsewhere_are_said_again_with_what_came_since(record) -> None:
    order(record, Say("r", "Well, ", RespondOptions(), more=True))
    record.lose("gone", SORRY)
    assert order(record, Say("r", "here ", RespondOptions(), more=True)) == []
    assert orders(list(record.rebuild()))[1:] == [Say("r", "Well, here ", RespondOptions(), more=True)]


def test_a_speculation_is_made_again_only_when_adopted(record) -> None:
    order(record, Speculate("kept", "a", "Yes?", RespondOptions()))
    assert record.lose("gone", SORRY) == [GONE]
    assert [type(fact).__name__ for fact in order(record, Adopt("kept"))] == ["TextDelta", "SynthesisedAudio", "AudioReady"]
    assert orders(list(record.rebuild()))[-1] == Respond("kept", RespondOptions())


def test_a_speculation_that_is_not_adopted_ends(record) -> None:
    order(record, Speculate("dropped", "a", "Yes?", RespondOptions()))
    record.lose("gone", SORRY)
    assert order(record, Drop("dropped")) == [ResponseFinished("dropped", FinishReason.ABORTED)]
    assert order(record, Speculate("one", "a", "Yes?", RespondOptions())) == []
    assert order(record, Drop("one")) == [ResponseFinished("one", FinishReason.ABORTED)]
    assert orders(list(record.rebuild())) == [SetHistory(())]


def test_a_speculation_whose_sound_is_known_ends_where_it_was(record) -> None:
    order(record, Speculate("r", "a", "Yes?", RespondOptions()))
    say(record, TextDelta("r", "Yes."))
    record.tell(next(one for one in SORRY.as_reply("s", "r", 24_000) if not isinstance(one, TextDelta | AudioReady)))
    record.lose("gone", SORRY)
    (finish,) = order(record, Adopt("r"))
    assert finish.reason is FinishReason.ERROR


def test_an_engine_that_dies_before_it_was_told_of_a_session_takes_nothing_of_it(record) -> None:
    order(record, Respond("r", RespondOptions()))
    record.lose("gone", SORRY)
    assert record.lose("gone again", SORRY) == []
    assert orders(list(record.rebuild()))[-1] == Respond("r", RespondOptions())


def test_a_session_that_came_while_there_was_none() -> None:
    record = SessionRecord("s", SPEC, dead=True)
    order(record, Respond("t", TEXT_ONLY))
    assert next(record.rebuild()) == OpenSession("s", SPEC)


def test_fixed_speech_is_whole_and_leaves_nothing_behind() -> None:
    engine = ScriptedEngine()
    speech = speak_fixed(engine, queue.SimpleQueue())
    assert (speech.text, len(speech.pcm), speech.words[-1]) == (APOLOGY, 4 * 60 * 24, WordMark(len(APOLOGY), 4 * 60 * 24))
    assert not engine.busy()
    delta, sound, ready = speech.as_reply("s", "r", 48_000)
    assert delta.text == f"{APOLOGY} "
    assert len(sound.pcm) == ready.samples == ready.words[-1].end == 4 * 60 * 48
    assert ready.text_end == ready.words[-1].text_end == len(delta.text)


def test_a_voice_that_cannot_say_it_is_an_error() -> None:
    class Mute(ScriptedEngine):
        def order(self, session_id: str, order: object) -> None:
            super().order(session_id, Say(order.response_id, order.text, TEXT_ONLY))

    with pytest.raises(RuntimeError, match="there was no sound"):
        speak_fixed(Mute(), queue.SimpleQueue())


# ------------------------------------------------------------------------------------------------------- under a server


def kill_the_engine() -> None:
    (engine,) = multiprocessing.active_children()
    os.kill(engine.pid, signal.SIGKILL)


async def ask(client, speech) -> None:
    sound = np.concatenate((speech(800), np.zeros(24 * 900, np.int16)))
    for start in range(0, len(sound), 2_400):
        await client.append(sound[start : start + 2_400])


def transcript(done: dict) -> str:
    return done["response"]["output"][0]["content"][0]["transcript"]


@pytest.mark.parametrize(
    "script",
    [
        {"transcripts": [None]},
        {"replies": [ScriptedReply("Well, it is", stall_after=0)]},
        {"replies": [ScriptedReply("Well, it is", stall_after=2)]},
    ],
    ids=["awaiting its transcript", "being answered", "decoded and not yet spoken"],
)
async def test_the_caller_hears_an_apology_and_then_the_answer(start, dial, in_turn, speech, script) -> None:
    link = ProcessEngineLink(in_turn(partial(load_scripted, **script), partial(load_scripted)))
    served = await start(link=link, factory=Conversation)
    client, other = await dial(served), await dial(served)
    await ask(client, speech)
    await client.until("response.created")
    kill_the_engine()
    done = await client.until("response.done")
    assert (done["response"]["status"], transcript(done)) == ("completed", f"{APOLOGY} This is reply 1.")
    assert len(client.audio()) == 2 * 8 * 60 * 24
    assert (await served.get("/healthz")).status_code == 200
    for one in (other, client):
        await ask(one, speech)
        assert transcript(await one.until("response.done")).startswith("This is reply")
    assert not any(event["type"] == "error" for event in client.got)


async def test_a_reply_that_is_cut_by_death_fails_and_the_next_one_comes(start, dial, in_turn, speech) -> None:
    long = ScriptedReply("one two three four five six seven eight nine ten", stall_after=9)
    link = ProcessEngineLink(in_turn(partial(load_scripted, replies=[long]), partial(load_scripted)))
    client = await dial(await start(link=link, factory=Conversation))
    await ask(client, speech)
    await client.until("response.output_audio.delta")
    kill_the_engine()
    assert (await client.until("response.done"))["response"]["status"] == "failed"
    await ask(client, speech)
    assert transcript(await client.until("response.done")) == "This is reply 1."


async def test_new_calls_are_refused_while_there_is_no_engine(start, in_turn) -> None:
    link = ProcessEngineLink(in_turn(partial(load_scripted), partial(len), partial(load_scripted)))
    served = await start(link=link)
    kill_the_engine()
    async with asyncio.timeout(10):
        while (response := await served.get("/healthz")).status_code == 200:
            pass
    assert (response.json()["status"], response.headers["retry-after"]) == ("engine_restarting", "5")
