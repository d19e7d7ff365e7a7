"""The end of a call that the agent's code asks for: what was to be said is said, nothing else is begun, and then one `EndCall`."""

from agent.commands import EndCall
from agent.events import EndRequested, WordsOffered
from agent.settings import Initiative
from streaming.events import Respond, Say, Speculate


def test_the_goodbye_is_heard_out_and_then_the_call_ends_once(play) -> None:
    dialogue = play(initiative=Initiative(goodbye="Goodbye."))
    dialogue.turn()
    dialogue.tell(EndRequested("booked"))
    dialogue.answer("A tortoise is slow.")
    assert dialogue.last(Say).text == "Goodbye."
    assert dialogue.all(EndCall) == []
    dialogue.tell(EndRequested("again"))
    dialogue.answer("Goodbye.")
    dialogue.wait(1_000)
    assert dialogue.all(EndCall) == [EndCall("booked")]


def test_without_a_goodbye_it_ends_at_once_where_nothing_sounds(play) -> None:
    dialogue = play()
    dialogue.tell(EndRequested("done"))
    assert dialogue.commands[-1] == EndCall("done")


def test_words_offered_before_come_before_the_goodbye_and_none_after_it(play) -> None:
    dialogue = play(initiative=Initiative(goodbye="Goodbye."))
    for event in (WordsOffered("One."), WordsOffered("Two."), EndRequested("done"), WordsOffered("Three.")):
        dialogue.tell(event)
    for words in ("One.", "Two.", "Goodbye."):
        assert dialogue.last(Say).text == words
        dialogue.answer(words)
    assert [say.text for say in dialogue.all(Say)] == ["One.", "Two.", "Goodbye."]
    assert len(dialogue.all(EndCall)) == 1


def test_the_goodbye_is_not_interrupted_and_what_is_said_then_is_not_answered(play) -> None:
    dialogue = play(initiative=Initiative(goodbye="Goodbye then, and thank you."))
    dialogue.tell(EndRequested("done"))
    response_id = dialogue.ordered()
    dialogue.clause("Goodbye then, and thank you.", response_id)
    dialogue.finish(response_id=response_id)
    dialogue.played(0, 5, response_id)
    dialogue.speech(600)
    assert dialogue.all((Respond, Speculate)) == []
    dialogue.played(5, 5, response_id)
    assert dialogue.all(EndCall) == [EndCall("done")]


def test_a_caller_who_speaks_is_heard_out_before_the_goodbye(play) -> None:
    dialogue = play(initiative=Initiative(goodbye="Goodbye."))
    dialogue.speech(600)
    dialogue.tell(EndRequested("done"))
    assert dialogue.all(Say) == []
    dialogue.provisional("And then")
    dialogue.wait(600)
    assert dialogue.all((Respond, Speculate)) == []
    assert dialogue.last(Say).text == "Goodbye."


def test_a_client_may_ask_for_nothing_more(play) -> None:
    dialogue = play()
    dialogue.tell(EndRequested("done"))
    dialogue.ask()
    assert dialogue.error() == ("invalid_event", "client_2")
    assert dialogue.all(Respond) == []


def test_without_turn_detection_nobody_waits_for_a_commit(play) -> None:
    dialogue = play(turn_detection=None, initiative=Initiative(goodbye="Goodbye."))
    dialogue.speech(600)
    dialogue.tell(EndRequested("done"))
    assert dialogue.last(Say).text == "Goodbye."
