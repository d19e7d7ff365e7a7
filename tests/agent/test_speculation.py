"""A reply prepared in a pause: when it is ordered, what drops it, and what is seen of it when it was right."""

from dataclasses import replace

import pytest

from agent.commands import (
    ArgumentsDone,
    Cut,
    InputCommitted,
    InputSpeechStopped,
    ItemAdded,
    ItemDone,
    OpenPlayout,
    Release,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    TranscriptionCompleted,
)
from agent.events import ClearInput, CreateItem, DeleteItem, RetrieveItem, UpdateSession
from agent.items import ContentPart, Message, PartKind
from agent.settings import SemanticVad, ServerVad, SessionKind, ToolChoice
from streaming.events import (
    Abort,
    Adopt,
    AudioReady,
    CommitTurn,
    ContextMessage,
    Drop,
    EndOfTurnScore,
    EngineFailed,
    EngineLost,
    FinishReason,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    ToolCallReady,
    ToolSpec,
    TranscriptProvisional,
    Usage,
)

ORDERS = (Speculate, Adopt, Drop)
WORDS = "What is a tortoise?"


def paused(talk, text: str = WORDS, reply: str = "A tortoise is slow."):
    """The caller pauses; a reply is prepared and its first clause spoken."""
    talk.speech(800)
    talk.provisional(text)
    talk.clause(reply)
    return talk


def ordered(talk) -> list[str]:
    return [type(command).__name__ for command in talk.all(ORDERS)]


# ------------------------------------------------------------------------------------------------------------ adopted


def test_what_was_prepared_leaves_in_the_moment_the_turn_ends(play, shown) -> None:
    talk = play()
    talk.speech(800)
    assert talk.provisional() == [Speculate(talk.ordered(), talk.conversation._turns.open_item_id, WORDS, talk.last(Speculate).options)]
    assert talk.clause("A tortoise is slow.") == []
    commands = talk.wait(500)
    kinds = (InputSpeechStopped, CommitTurn, InputCommitted, ItemAdded, ItemDone, ResponseCreated, TranscriptionCompleted, SetHistory)
    assert shown(commands)[: len(kinds) + 1] == [*(kind.__name__ for kind in kinds), "Adopt"]
    assert shown(commands, OpenPlayout, Release) == ["OpenPlayout", "Release"]
    assert talk.last(Release).until == 4 * 4_800
    assert talk.last(CommitTurn).transcript == WORDS
    assert talk.believed() == [("user", WORDS)]
    assert not talk.all((Respond, Say))


def test_it_goes_on_like_any_reply(play) -> None:
    talk = paused(play())
    talk.wait(500)
    talk.clause(" Very slow.", before="A tortoise is slow.")
    talk.finish()
    talk.played(6)
    assert talk.done().status is ResponseStatus.COMPLETED
    assert talk.done().usage == Usage(9, 3, 5)
    assert talk.turn("And a hare?") is not None
    assert talk.believed() == [("user", WORDS), ("assistant", "A tortoise is slow. Very slow."), ("user", "And a hare?")]


def test_it_is_asked_for_as_a_reply_to_the_turn_would_be(play) -> None:
    tool = ToolSpec("f", "", "{}")
    fields = {"tools": (tool,), "voice": "amy", "speed": 1.2, "temperature": 0.3, "max_output_tokens": 50, "instructions": "Be brief."}
    talk = paused(play(**fields))
    plain = play(speculation=False, **fields)
    plain.turn()
    assert talk.last(Speculate).options == plain.last(Respond).options


def test_a_transcript_that_comes_all_the_same_changes_nothing(play) -> None:
    talk = paused(play())
    talk.wait(500)
    assert talk.transcript("Other words.") == []
    assert talk.believed() == [("user", WORDS)]


def test_a_score_that_ends_the_turn_adopts_it_too(play) -> None:
    talk = paused(play(turn_detection=SemanticVad()), "Tell me more.")
    talk.wait(200)
    assert not talk.all(Adopt)
    talk.tell(EndOfTurnScore(talk.now, 0.99))
    assert talk.last(Adopt).response_id == talk.last(Release).response_id


@pytest.mark.parametrize(("words", "ended"), [("It is so.", False), ("It is here.", True)])
def test_words_that_are_whole_end_a_turn_that_is_scored_as_open(play, words: str, ended: bool) -> None:
    talk = paused(play(turn_detection=SemanticVad()), words)
    talk.wait(900)
    talk.tell(EndOfTurnScore(talk.now, 0.3))
    assert bool(talk.all(CommitTurn)) is ended


def test_it_is_adopted_before_anything_has_come_of_it(play, shown) -> None:
    talk = play()
    talk.speech(800)
    talk.provisional()
    assert shown(talk.wait(500))[-1] == "Adopt"
    talk.clause("A tortoise is slow.")
    assert talk.last(Release).response_id == talk.last(Adopt).response_id


@pytest.mark.parametrize("output_audio", [True, False])
def test_a_reply_that_was_made_whole_keeps_the_belief_it_began_with(play, output_audio: bool) -> None:
    talk = play(output_audio=output_audio)
    talk.speech(800)
    talk.provisional()
    talk.clause("Slow.") if output_audio else talk.decode("Slow.")
    talk.finish()
    talk.wait(500)
    if output_audio:
        talk.played(1)
    adopted = talk.commands.index(talk.last(Adopt))
    assert talk.commands[adopted - 1] == SetHistory((ContextMessage("user", talk.last(CommitTurn).item_id, WORDS),))
    assert talk.believed() == [("user", WORDS), ("assistant", "Slow.")]
    assert talk.done().status is ResponseStatus.COMPLETED


def test_a_caller_who_speaks_over_it_cuts_it_to_what_was_heard(play, shown) -> None:
    talk = paused(play(), reply="A tortoise is a slow animal.")
    talk.wait(500)
    talk.now += 16_000
    talk.played(2.5, 6)
    talk.tell(SpeechStarted(talk.now, 0.9))
    assert shown(talk.wait(300), Abort, Cut, ResponseDone) == ["Abort", "Cut", "ResponseDone"]
    assert talk.done().status is ResponseStatus.CANCELLED
    assert talk.believed()[1][0] == "assistant"
    assert "A tortoise is a slow animal.".startswith(talk.believed()[1][1])
    assert talk.decode("more", talk.done().id) == []


def test_it_can_be_cancelled_while_it_is_being_made(play, shown) -> None:
    talk = paused(play())
    talk.wait(500)
    assert shown(talk.cancel(), Abort, Cut, ResponseDone) == ["Abort", "Cut", "ResponseDone"]


@pytest.mark.parametrize("fields", [{}, {"output_audio": False}, {"transcription": None}, {"turn_detection": SemanticVad()}])
def test_the_client_sees_the_same_with_and_without(play, fields: dict) -> None:
    talks = [play(speculation=speculation, **fields) for speculation in (True, False)]
    for talk in talks:
        for question, reply in (("Who are you?", "I am Joe."), (WORDS, "A tortoise is slow.")):
            talk.speech(800)
            talk.provisional(question)
            if talk is talks[0]:
                talk.clause(reply)
            talk.wait(1_000)
            if talk is talks[1]:
                talk.transcript(question)
                talk.clause(reply)
            talk.finish()
            talk.played(0, len(reply.split()))
            talk.now += 32_000
            talk.played(len(reply.split()))
    assert talks[0].told()[1:] == talks[1].told()[1:]  # the first tells the settings
    assert ordered(talks[0]) == ["Speculate", "Adopt"] * 2
    assert ordered(talks[1]) == []


# ------------------------------------------------------------------------------------------------------------ dropped


def test_a_caller_who_goes_on_drops_it(play) -> None:
    talk = paused(play())
    first = talk.ordered()
    assert talk.tell(SpeechStarted(talk.now, 0.9)) == [Drop(first)]
    assert talk.decode("late", first) == []
    assert talk.finish(FinishReason.ABORTED, first) == []
    talk.wait(300)
    talk.tell(SpeechStopped(talk.now, 0.1))
    talk.provisional("What is a tortoise, and a hare?")
    talk.clause("Two animals.")
    talk.wait(500)
    assert ordered(talk) == ["Speculate", "Drop", "Speculate", "Adopt"]
    assert talk.last(CommitTurn).transcript == "What is a tortoise, and a hare?"
    assert [c.response.id for c in talk.all(ResponseCreated)] == [talk.last(Adopt).response_id]


def text_item(item_id: str = "") -> Message:
    return Message(item_id, "user", (ContentPart(PartKind.INPUT_TEXT, "Hello"),))


CHANGES = {
    "the input is cleared": lambda talk: talk.tell(ClearInput(None, talk.now)),
    "the client commits": lambda talk: talk.commit(),
    "another pause": lambda talk: talk.tell(SpeechStopped(talk.now, 0.1)),
    "instructions": lambda talk: talk.tell(UpdateSession(None, replace(talk.conversation.settings, instructions="Sing."))),
    "voice": lambda talk: talk.tell(UpdateSession(None, replace(talk.conversation.settings, speed=1.5))),
    "push to talk": lambda talk: talk.tell(UpdateSession(None, replace(talk.conversation.settings, turn_detection=None))),
    "switched off": lambda talk: talk.tell(UpdateSession(None, replace(talk.conversation.settings, speculation=False))),
    "an item is created": lambda talk: talk.tell(CreateItem(None, text_item(), None)),
    "an item is deleted": lambda talk: talk.tell(DeleteItem(None, "written")),
    "a reply is truncated": lambda talk: talk.truncate(talk.message_id(), 200),
    "a response is created": lambda talk: talk.ask(),
    "the engine dies": lambda talk: talk.tell(EngineFailed("it died")),
    "the engine can't": lambda talk: talk.finish(FinishReason.ERROR, error="out of memory"),
    "the engine gave it up": lambda talk: talk.finish(FinishReason.ABORTED),
    "a tool is called": lambda talk: talk.tell(ToolCallReady(talk.ordered(), 0, "f", "{}")),
    "too much came": lambda talk: [c for _ in range(1_001) for c in talk.decode("x", talk.ordered())],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_would_change_the_reply_drops_it(play, change) -> None:
    talk = play(turn_detection=ServerVad(interrupt_response=False))
    talk.tell(CreateItem(None, text_item("written"), None))
    talk.turn()
    talk.answer()
    speculated = paused(talk, "And a hare?").ordered()
    commands = change(talk)
    assert commands[0] == Drop(speculated)
    assert [command for command in commands if isinstance(command, ORDERS)] == [Drop(speculated)]
    talk.wait(600)
    assert talk.last(CommitTurn).transcript is None
    assert talk.tell(TextDelta(speculated, "late")) == talk.tell(ResponseFinished(speculated, FinishReason.ABORTED)) == []
    assert speculated not in [c.response.id for c in talk.all(ResponseCreated)]
    assert not any(c.response_id == speculated for c in talk.all(Release))
    assert not talk.all(ArgumentsDone)


@pytest.mark.parametrize(
    "act",
    [
        lambda talk: talk.tell(RetrieveItem(None, "written")),
        lambda talk: talk.tell(DeleteItem(None, "none")),
        lambda talk: talk.cancel(),
        lambda talk: talk.ask(in_conversation=False, output_audio=False, input=()),
        lambda talk: talk.tell(UpdateSession(None, replace(talk.conversation.settings))),
        lambda talk: talk.provisional(),
        lambda talk: talk.tell(SpeechStarted(0, 0.9)),
    ],
)
def test_what_leaves_the_reply_as_it_is_does_not(play, act) -> None:
    talk = play()
    talk.tell(CreateItem(None, text_item("written"), None))
    talk.turn()
    talk.answer()
    paused(talk, reply="Slow.")
    act(talk)
    talk.wait(500)
    assert ordered(talk) == ["Speculate", "Adopt"]


def test_other_words_of_the_same_pause_replace_it(play) -> None:
    talk = paused(play(), "What is a tortoise")
    first = talk.ordered()
    commands = talk.provisional()
    assert commands == [Drop(first), talk.last(Speculate)]
    talk.clause("It is slow.")
    talk.wait(500)
    assert talk.last(CommitTurn).transcript == WORDS
    assert talk.last(Adopt).response_id == talk.last(Release).response_id == commands[1].response_id


def test_words_that_turn_out_to_be_none_drop_it(play) -> None:
    talk = paused(play())
    assert talk.provisional(" ") == [Drop(talk.ordered())]


def test_it_is_prepared_again_where_the_words_come_again(play) -> None:
    talk = paused(play())
    talk.write("Hello")
    talk.provisional()
    talk.wait(500)
    assert ordered(talk) == ["Speculate", "Drop", "Speculate", "Adopt"]
    assert talk.believed() == [("user", "Hello"), ("user", WORDS)]


# --------------------------------------------------------------------------------------------------------- not at all


@pytest.mark.parametrize(
    "fields",
    [
        {"speculation": False},
        {"kind": SessionKind.TRANSCRIPTION},
        {"turn_detection": ServerVad(create_response=False)},
        {"turn_detection": None},
        {"tools": (ToolSpec("f", "", "{}"),), "tool_choice": ToolChoice("required")},
        {"tools": (ToolSpec("f", "", "{}"),), "tool_choice": ToolChoice("function", "f")},
    ],
)
def test_a_session_in_which_nothing_may_be_prepared(play, fields: dict) -> None:
    talk = play(**fields)
    talk.speech(800)
    assert talk.provisional() == []
    talk.wait(500)
    assert all(commit.transcript is None for commit in talk.all(CommitTurn))
    assert not talk.all(ORDERS)


def test_a_turn_without_words_is_asked_back(play) -> None:
    talk = play()
    talk.speech(800)
    assert talk.provisional("") == []
    talk.wait(500)
    talk.transcript("")
    assert talk.last(Say).text == "Sorry, I did not catch that."


def test_words_of_no_pause_of_the_open_turn_are_late(play) -> None:
    talk = play()
    talk.speech(800)
    item_id, at = talk.conversation._turns.open_item_id, talk.log[-1][1].at
    for late in (TranscriptProvisional("item_x", at, WORDS, 0.9), TranscriptProvisional(item_id, at + 1, WORDS, 0.9)):
        assert talk.tell(late) == []
    talk.wait(500)
    assert talk.provisional() == []  # the turn has ended
    talk.tell(SpeechStarted(talk.now, 0.9))
    assert talk.tell(TranscriptProvisional(item_id, at, WORDS, 0.9)) == []


def test_while_a_reply_is_being_made_none_is_prepared(play) -> None:
    talk = play(turn_detection=ServerVad(interrupt_response=False))
    talk.turn()
    talk.clause("A tortoise is slow.")
    talk.speech(800)
    assert talk.provisional("And a hare?") == []


def test_while_the_words_of_an_earlier_turn_are_awaited_none_is_prepared(play) -> None:
    talk = play()
    talk.turn(None)
    talk.cancel()
    talk.speech(800)
    assert talk.provisional("And a hare?") == []
    talk.tell(AudioReady("resp_x", 0, 1, 1))
    assert not talk.all(ORDERS)


def test_a_turn_that_would_push_the_oldest_item_out_is_not_prepared_for(dialogue_of: type) -> None:
    talk = dialogue_of()
    talk.conversation._history._max_items = 1
    talk.write("Hello")
    talk.speech(800)
    assert talk.provisional() == []
    talk.recorded.clear()  # the limit is in no log, so this can't be replayed


def test_an_engine_that_dies_takes_it_along_and_the_turn_is_answered_by_the_next(play) -> None:
    talk = paused(play())
    assert ordered(talk) == ["Speculate"]
    talk.tell(EngineLost("gone"))
    assert ordered(talk) == ["Speculate", "Drop"]
    talk.wait(1_000)
    assert ordered(talk) == ["Speculate", "Drop"]
    talk.transcript(WORDS)
    assert talk.all(Respond)
