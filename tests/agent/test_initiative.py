"""What the agent says by itself, and when."""

from dataclasses import replace

import pytest

from agent.commands import Cut, EndCall, InputTimeoutTriggered
from agent.events import EndRequested, InterjectionWanted, Tick, UpdateSession
from agent.settings import Initiative, PlaybackOwner, SemanticVad, ServerVad, SessionKind
from streaming.events import (
    CommitTurn,
    Listened,
    Respond,
    Say,
    Speculate,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TranscriptDone,
    TranscriptProvisional,
)

PATIENT = Initiative(idle_prompts=("Hello?", "Anybody?"), idle_ms=5_000, goodbye="Goodbye.")
ASIDE = Initiative(interjects=True)


@pytest.fixture
def until():
    """`until(dialogue)` lets time pass to the next deadline, in silence."""

    def pass_time(dialogue) -> list[object]:
        deadline = dialogue.conversation.deadline()
        dialogue.now = max(dialogue.now, deadline)
        return dialogue.tell(Listened(dialogue.now)) + dialogue.tell(Tick())

    return pass_time


def said(dialogue) -> list[str]:
    return [say.text for say in dialogue.all(Say)]


# ----------------------------------------------------------------------------------------------------------- greeting


def test_where_the_transport_is_ours_the_greeting_is_the_first_thing_said(play) -> None:
    dialogue = play(initiative=Initiative(greeting="Good day."), playback=PlaybackOwner.SERVER)
    assert said(dialogue) == ["Good day."]
    dialogue.answer("Good day.")
    assert dialogue.believed() == [("assistant", "Good day.")]


def test_a_client_may_first_say_how_it_wants_to_hear_us(play, until) -> None:
    dialogue = play(initiative=Initiative(greeting="Good day."))
    assert said(dialogue) == []
    assert dialogue.conversation.deadline() == 8_000
    dialogue.tell(UpdateSession(None, replace(dialogue.conversation.settings, voice="amy")))
    assert dialogue.last(Say).options.voice == "amy"
    slow = play(initiative=Initiative(greeting="Good day."))
    until(slow)
    slow.tell(UpdateSession(None, slow.conversation.settings))
    assert said(slow) == ["Good day."]


def test_a_client_brings_its_greeting_in_its_first_update(play) -> None:
    dialogue = play()
    dialogue.tell(UpdateSession(None, replace(dialogue.conversation.settings, initiative=Initiative(greeting="Hi."))))
    assert said(dialogue) == ["Hi."]


def test_who_speaks_first_is_not_greeted(play) -> None:
    dialogue = play(initiative=Initiative(greeting="Good day."))
    dialogue.turn(milliseconds=300)
    dialogue.answer()
    dialogue.wait(2_000)
    assert said(dialogue) == []


def test_a_greeting_that_is_due_while_the_caller_speaks_asks_for_no_tick(play) -> None:
    dialogue = play(initiative=Initiative(greeting="Good day."))
    dialogue.speech(1_000)
    assert dialogue.conversation.deadline() is None
    answered = play(initiative=Initiative(greeting="Good day."))
    answered.ask()
    assert answered.conversation.deadline() is None


def test_where_all_prompts_have_been_said_no_tick_is_asked_for(play) -> None:
    dialogue = play(initiative=Initiative(idle_prompts=("Are you there?",), idle_ms=2_000))
    dialogue.turn()
    dialogue.answer()
    dialogue.wait(2_100)
    dialogue.tell(Tick())
    dialogue.answer("Are you there?")
    dialogue.wait(2_100)
    dialogue.tell(Tick())
    assert said(dialogue) == ["Are you there?"]
    assert dialogue.conversation.deadline() is None


def test_the_greeting_can_be_interrupted(play) -> None:
    dialogue = play(initiative=Initiative(greeting="Good day to you."), playback=PlaybackOwner.SERVER)
    response_id = dialogue.ordered()
    dialogue.clause("Good day to you.", response_id)
    dialogue.finish(response_id=response_id)
    dialogue.played(0, 4, response_id)
    dialogue.wait(450)
    dialogue.played(2, 4, response_id)
    dialogue.speech(600)
    assert Cut(response_id) in dialogue.commands


def test_a_transcription_session_says_nothing(play, until) -> None:
    dialogue = play(kind=SessionKind.TRANSCRIPTION, initiative=replace(PATIENT, greeting="Good day."))
    until(dialogue)
    assert said(dialogue) == []
    assert dialogue.conversation.deadline() is None


# ------------------------------------------------------------------------------------------------------------ silence


def test_prompts_follow_one_another_and_then_the_goodbye_ends_the_call(play, until) -> None:
    dialogue = play(initiative=PATIENT)
    dialogue.turn()
    dialogue.answer("A tortoise is slow.")
    for words in ("Hello?", "Anybody?", "Goodbye."):
        heard = dialogue.now
        until(dialogue)
        assert dialogue.now == heard + 80_000
        assert dialogue.last(Say).text == words
        assert dialogue.all(EndCall) == []
        dialogue.answer(words)
    assert dialogue.all(EndCall) == [EndCall("the caller is silent")]
    assert dialogue.conversation.deadline() is None


def test_words_of_the_caller_begin_the_prompts_anew_and_noise_does_not(play, until) -> None:
    dialogue = play(initiative=PATIENT)
    dialogue.turn()
    dialogue.answer("A tortoise is slow.")
    until(dialogue)
    dialogue.answer("Hello?")
    dialogue.turn("")
    dialogue.answer("Sorry, I did not catch that.")
    until(dialogue)
    assert said(dialogue)[-1] == "Anybody?"
    dialogue.answer("Anybody?")
    dialogue.turn("I am here.")
    dialogue.answer("Good.")
    until(dialogue)
    assert said(dialogue)[-1] == "Hello?"


def test_a_caller_who_speaks_into_the_goodbye_keeps_the_call(play, until) -> None:
    dialogue = play(initiative=replace(PATIENT, idle_prompts=("Hello?",)))
    dialogue.turn()
    dialogue.answer("A tortoise is slow.")
    until(dialogue)
    dialogue.answer("Hello?")
    until(dialogue)
    response_id = dialogue.ordered()
    dialogue.clause("Goodbye.", response_id)
    dialogue.turn("Wait, I am here.")
    dialogue.answer("Good.")
    assert dialogue.all(EndCall) == []
    until(dialogue)
    assert said(dialogue)[-1] == "Hello?"


def test_prompts_without_a_goodbye_come_to_an_end(play, until) -> None:
    dialogue = play(initiative=replace(PATIENT, goodbye=""))
    dialogue.turn()
    dialogue.answer("A tortoise is slow.")
    for words in ("Hello?", "Anybody?"):
        until(dialogue)
        dialogue.answer(words)
    dialogue.wait(60_000)
    assert said(dialogue) == ["Hello?", "Anybody?"]
    assert dialogue.all(EndCall) == []


def test_the_clients_timeout_says_the_agents_prompts(play, until) -> None:
    dialogue = play(initiative=PATIENT, turn_detection=ServerVad(idle_timeout_ms=3_000))
    dialogue.turn()
    dialogue.answer("A tortoise is slow.")
    until(dialogue)
    assert len(dialogue.all(InputTimeoutTriggered)) == 1
    assert said(dialogue) == ["Hello?"]


# ------------------------------------------------------------------------------------------------------ unclear words


def test_words_that_are_not_sure_are_asked_back_and_never_twice_in_the_same_words(play) -> None:
    dialogue = play()
    for _ in range(4):
        dialogue.turn(None)
        dialogue.tell(TranscriptDone(dialogue.last(CommitTurn).item_id, "Thank you.", 0.1, "en"))
        dialogue.answer(said(dialogue)[-1])
    assert dialogue.all(Respond) == []
    assert all(one != other for one, other in zip(said(dialogue), said(dialogue)[1:], strict=False))
    dialogue.turn("What is a tortoise?")
    assert len(dialogue.all(Respond)) == 1


def test_nothing_is_prepared_for_words_that_are_not_sure(play) -> None:
    dialogue = play()
    dialogue.speech(600)
    at = next(event.at for _, event in reversed(dialogue.log) if isinstance(event, SpeechStopped))
    dialogue.tell(TranscriptProvisional(dialogue.last(StartTurn).item_id, at, "Thank you.", 0.1))
    assert dialogue.all(Speculate) == []
    dialogue.provisional("What is a tortoise?")
    assert len(dialogue.all(Speculate)) == 1


# ------------------------------------------------------------------------------------------------------ interjections


def talk_on(dialogue, milliseconds: int) -> None:
    """The caller speaks so long, and draws breath for 300 ms."""
    onset = dialogue.now
    dialogue.wait(64)
    dialogue.tell(SpeechStarted(onset, 0.9))
    dialogue.wait(milliseconds)
    stop = dialogue.now
    dialogue.wait(100)
    dialogue.tell(SpeechStopped(stop, 0.1))
    dialogue.wait(200)


@pytest.mark.parametrize(("interjects", "milliseconds", "committed"), [(True, 21_000, 1), (True, 18_000, 0), (False, 30_000, 0)])
def test_only_a_long_turn_is_taken_and_only_where_that_is_allowed(play, interjects, milliseconds, committed) -> None:
    dialogue = play(initiative=Initiative(interjects=interjects), turn_detection=ServerVad(silence_duration_ms=2_000))
    talk_on(dialogue, milliseconds)
    assert len(dialogue.all(CommitTurn)) == committed
    if committed:
        dialogue.transcript("And then, and then.")
        assert len(dialogue.all(Respond)) == 1


def test_the_agents_code_takes_the_turn_at_a_breath(play) -> None:
    dialogue = play(initiative=ASIDE, turn_detection=ServerVad(silence_duration_ms=2_000))
    dialogue.speech(600)
    dialogue.tell(InterjectionWanted("Let me stop you there."))
    assert said(dialogue) == []
    dialogue.wait(200)
    assert said(dialogue) == ["Let me stop you there."]
    assert dialogue.all(Respond) == []
    dialogue.transcript("I had a")
    assert ("user", "I had a") in dialogue.believed()


def test_the_agents_code_may_let_the_model_word_it(play) -> None:
    dialogue = play(initiative=ASIDE, turn_detection=ServerVad(silence_duration_ms=2_000))
    dialogue.speech(600)
    dialogue.tell(InterjectionWanted())
    dialogue.wait(200)
    dialogue.transcript("I had a")
    assert len(dialogue.all(Respond)) == 1


def test_who_may_not_interject_waits(play) -> None:
    dialogue = play(turn_detection=ServerVad(silence_duration_ms=2_000))
    dialogue.speech(600)
    dialogue.tell(InterjectionWanted("Let me stop you there."))
    dialogue.wait(500)
    assert said(dialogue) == []
    dialogue.commit()
    assert said(dialogue) == ["Let me stop you there."]


def test_a_caller_who_yields_by_themselves_hears_what_was_to_be_said(play) -> None:
    dialogue = play(initiative=ASIDE, turn_detection=SemanticVad())
    dialogue.speech(600)
    dialogue.tell(InterjectionWanted("One thing."))
    dialogue.commit()
    assert said(dialogue) == ["One thing."]


def test_nobody_interjects_into_a_call_that_ends(play) -> None:
    dialogue = play(initiative=replace(ASIDE, goodbye="Goodbye."), turn_detection=ServerVad(silence_duration_ms=2_000))
    onset = dialogue.now
    dialogue.wait(64)
    dialogue.tell(SpeechStarted(onset, 0.9))
    dialogue.tell(EndRequested("done"))
    dialogue.wait(25_000)
    stop = dialogue.now
    dialogue.tell(SpeechStopped(stop, 0.1))
    dialogue.wait(400)
    assert dialogue.all(CommitTurn) == []
