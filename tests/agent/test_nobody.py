"""A turn in which nobody spoke: no item, no reply, and nothing else is lost by it."""

from agent.commands import InputCommitted, InputSpeechStarted, InputSpeechStopped, ItemAdded, ResponseCreated, ResponseStatus
from agent.items import Message
from agent.settings import ServerVad
from streaming.events import CommitTurn, DiscardTurn, Respond, Say, SpeechStopped, StartTurn, TranscriptDone, TranscriptProvisional

NOISE = 0.02
PERHAPS = 0.3


def found(talk, speech: float, text: str = "") -> None:
    """The words of the open turn, if it ends in the newest pause."""
    at = next(event.at for _, event in reversed(talk.log) if isinstance(event, SpeechStopped))
    talk.tell(TranscriptProvisional(talk.last(StartTurn).item_id, at, text, 0.0, speech))


def noise(talk, speech: float = NOISE) -> None:
    talk.speech(400)
    found(talk, speech)
    talk.wait(600)


def test_a_noise_becomes_nothing(play) -> None:
    talk = play()
    noise(talk)
    assert len(talk.all(InputSpeechStarted)) == len(talk.all(InputSpeechStopped)) == 1
    assert len(talk.all(DiscardTurn)) == 1
    assert not talk.all((CommitTurn, InputCommitted, ItemAdded, ResponseCreated, Say, Respond))
    assert not talk.conversation.items


def test_what_may_have_been_somebody_is_asked_back(play) -> None:
    talk = play()
    noise(talk, PERHAPS)
    talk.tell(TranscriptDone(talk.last(CommitTurn).item_id, "", 0.0, "en", PERHAPS))
    assert talk.all(Say)


def test_a_noise_before_words_is_part_of_their_turn(play) -> None:
    talk = play()
    talk.speech(400)
    found(talk, NOISE)
    talk.turn("What is a tortoise?")
    assert len(talk.all(CommitTurn)) == 1
    assert talk.all(Respond)


def test_words_that_come_late_are_not_those_of_the_pause_before(play) -> None:
    talk = play()
    talk.speech(400)
    talk.speech(400)
    first = next(event.at for _, event in talk.log if isinstance(event, SpeechStopped))
    talk.tell(TranscriptProvisional(talk.last(StartTurn).item_id, first, "", 0.0, NOISE))
    talk.wait(600)
    assert talk.all(CommitTurn)


def test_a_response_that_was_begun_for_nobody_ends_unsaid(play) -> None:
    talk = play()
    talk.speech(400)
    talk.wait(600)
    talk.tell(TranscriptDone(talk.last(CommitTurn).item_id, "", 0.0, "en", NOISE))
    assert talk.done().status is ResponseStatus.CANCELLED
    assert not talk.all((Say, Respond))
    talk.turn("What is a tortoise?")
    assert talk.all(Respond)


def test_what_the_client_commits_and_asks_for_itself_is_asked_back(play) -> None:
    talk = play(turn_detection=None)
    talk.speech(400)
    found(talk, NOISE)
    talk.commit()
    talk.ask()
    talk.tell(TranscriptDone(talk.last(CommitTurn).item_id, "", 0.0, "en", NOISE))
    assert talk.all(Say)


def test_a_question_whose_reply_a_noise_stopped_is_answered_all_the_same(play) -> None:
    talk = play()
    talk.turn("What is a tortoise?")
    noise(talk)
    assert len(talk.all(Respond)) == 2
    assert [item.id for item in talk.conversation.items if isinstance(item, Message)] == [talk.last(CommitTurn).item_id]


def test_a_question_is_answered_also_where_the_noise_was_known_late(play) -> None:
    talk = play()
    talk.turn("What is a tortoise?")
    talk.speech(400)
    talk.wait(600)
    talk.tell(TranscriptDone(talk.last(CommitTurn).item_id, "", 0.0, "en", NOISE))
    assert len(talk.all(Respond)) == 2


def test_nobody_is_answered_where_the_client_answers(play) -> None:
    talk = play(turn_detection=ServerVad(create_response=False))
    talk.turn("What is a tortoise?")
    noise(talk)
    assert not talk.all(ResponseCreated)


def test_an_answer_that_was_heard_is_not_given_again(play) -> None:
    talk = play()
    talk.turn("What is a tortoise?")
    talk.answer()
    noise(talk)
    assert len(talk.all(Respond)) == 1
