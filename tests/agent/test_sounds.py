"""Sounds of the caller in the conversation: told to a client that asks, kept with the turn, and told to the model where it is wanted."""

from dataclasses import replace

from agent.commands import InputSoundStarted, InputSoundStopped, TurnHeard
from agent.events import UpdateSession
from agent.settings import SemanticVad, SessionSettings, Transcription
from agent.sounds import SoundDiary, note_of
from streaming.events import Adopt, Drop, SetHistory, SoundKind, SoundStarted, SoundStopped, Speculate

DOG, MUSIC = SoundKind.DOG, SoundKind.MUSIC


def told(talk) -> str:
    return talk.last(SetHistory).messages[-1].text


def test_a_client_that_asks_is_told_once(play) -> None:
    talk = play(wants_sounds=True)
    talk.tell(SoundStarted(16_000, DOG, 0.876))
    talk.tell(SoundStarted(24_000, DOG, 0.9))  # another engine hears it again
    talk.tell(SoundStopped(32_000, DOG))
    talk.tell(SoundStopped(32_000, MUSIC))
    assert talk.all((InputSoundStarted, InputSoundStopped)) == [InputSoundStarted(DOG, 1_000, 0.876), InputSoundStopped(DOG, 2_000)]


def test_nobody_else_is_told(play) -> None:
    talk = play()
    talk.tell(SoundStarted(16_000, DOG, 0.9))
    talk.turn("What is a tortoise?")
    talk.tell(SoundStopped(32_000, DOG))
    assert not talk.all((InputSoundStarted, InputSoundStopped, TurnHeard))
    assert told(talk) == "What is a tortoise?"


def test_a_turn_has_the_sounds_since_the_one_before(play) -> None:
    talk = play(wants_sounds=True)
    talk.tell(SoundStarted(0, MUSIC, 0.9))
    talk.tell(SoundStarted(0, DOG, 0.9))
    talk.tell(SoundStopped(8_000, DOG))
    talk.turn("What is a tortoise?")
    talk.answer()
    talk.turn("And a turtle?")
    first, second = talk.all(TurnHeard)
    assert first.sounds == (MUSIC, DOG)
    assert second.sounds == (MUSIC,)  # it goes on
    assert (first.confidence, first.speech) == (0.9, 1.0)
    assert [item.sounds for item in talk.conversation.items if item.role == "user"] == [(MUSIC, DOG), (MUSIC,)]


def test_the_model_is_told_in_brackets_where_that_is_wanted(play) -> None:
    talk = play(tells_sounds=True)
    talk.tell(SoundStarted(0, DOG, 0.9))
    talk.turn("What was that?")
    assert told(talk) == "What was that? (a dog barking)"
    talk.answer()
    talk.tell(SoundStopped(8_000, DOG))
    talk.turn("And now?")
    assert told(talk) == "And now? (a dog barking)"  # it went on into this turn's time
    talk.answer()
    talk.turn("Well.")
    assert told(talk) == "Well."


def test_a_reply_that_is_prepared_is_told_the_same(play) -> None:
    talk = play(tells_sounds=True, turn_detection=SemanticVad())
    talk.tell(SoundStarted(0, DOG, 0.9))
    talk.speech(800)
    talk.provisional("What was that?")
    assert talk.last(Speculate).text == "What was that? (a dog barking)"
    talk.wait(3_000)
    assert talk.all(Adopt)
    assert told(talk) == "What was that? (a dog barking)"


def test_a_sound_that_is_news_drops_what_was_prepared_without_it(play) -> None:
    talk = play(tells_sounds=True, turn_detection=SemanticVad())
    talk.speech(800)
    talk.provisional("What was that?")
    talk.tell(SoundStarted(talk.now, DOG, 0.9))
    assert talk.all(Drop)


def test_asking_later_counts_from_then(play) -> None:
    talk = play()
    settings = SessionSettings(transcription=Transcription(), wants_sounds=True)
    talk.tell(UpdateSession("e", replace(talk.conversation.settings, wants_sounds=settings.wants_sounds)))
    talk.turn("What is a tortoise?")
    assert len(talk.all(TurnHeard)) == 1


def test_every_kind_has_words() -> None:
    diary = SoundDiary()
    for kind in SoundKind:
        assert len(note_of((kind,))) > len(" ()")
        diary.started(SoundStarted(0, kind, 0.9))
    assert len(diary.take()) == 8
    assert note_of(()) == ""
