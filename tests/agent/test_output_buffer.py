"""What a client hears of our playback where the server owns it: when a reply begins and ends to sound, and what a cut left of it."""

import pytest

from agent.commands import (
    ContentPartAdded,
    ItemTruncated,
    OutputCleared,
    OutputStarted,
    OutputStopped,
    ResponseDone,
)
from agent.events import ClearOutput
from agent.settings import PlaybackOwner

SERVER = {"playback": PlaybackOwner.SERVER}
KINDS = (ContentPartAdded, OutputStarted, OutputStopped, OutputCleared, ItemTruncated, ResponseDone)


def told(dialogue) -> list[str]:
    return [type(command).__name__ for command in dialogue.commands if isinstance(command, KINDS)]


def speaking(play, **fields):
    """Ten words of a reply have been made and five sent, of which four have been heard."""
    dialogue = play(**SERVER | fields)
    dialogue.turn()
    dialogue.clause("One two three four five six seven eight nine ten.")
    dialogue.played(4, 5)
    return dialogue


def test_a_reply_is_told_to_sound_with_its_first_frame_and_to_have_sounded_after_its_end(play) -> None:
    dialogue = play(**SERVER)
    dialogue.turn()
    dialogue.answer()
    assert told(dialogue) == ["ContentPartAdded", "OutputStarted", "ResponseDone", "OutputStopped"]


def test_a_pause_in_the_sound_is_no_end(play) -> None:
    dialogue = speaking(play)
    dialogue.played(5, 5)
    dialogue.played(6, 6)
    assert told(dialogue) == ["ContentPartAdded", "OutputStarted"]


def test_an_interruption_is_told_with_what_was_heard(play) -> None:
    dialogue = speaking(play)
    item_id = dialogue.message_id()
    dialogue.speech(800)
    assert told(dialogue)[2:] == ["OutputCleared", "ResponseDone", "ItemTruncated"]
    truncated = dialogue.last(ItemTruncated)
    assert (truncated.item_id, truncated.content_index) == (item_id, 0)
    assert 4 * 200 <= truncated.audio_end_ms <= 5 * 200


def test_a_reply_that_is_made_and_plays_on_is_cut_too(play) -> None:
    dialogue = speaking(play)
    dialogue.finish()
    dialogue.played(4, 10)
    dialogue.speech(800)
    assert told(dialogue)[2:] == ["ResponseDone", "OutputCleared", "ItemTruncated"]


@pytest.mark.parametrize("made", [False, True])
def test_the_client_may_clear_it(play, made) -> None:
    dialogue = speaking(play)
    if made:
        dialogue.finish()
        dialogue.played(4, 10)
    dialogue.tell(ClearOutput("client_9"))
    assert told(dialogue)[-1] == "ItemTruncated"
    assert told(dialogue).count("OutputCleared") == 1
    assert told(dialogue).count("ResponseDone") == 1


def test_clearing_is_answered_where_nothing_sounds(play) -> None:
    dialogue = play(**SERVER)
    dialogue.tell(ClearOutput(None))
    assert dialogue.last(OutputCleared).response_id == ""
    dialogue.turn()
    dialogue.answer()
    dialogue.tell(ClearOutput(None))
    assert dialogue.last(OutputCleared).response_id == dialogue.ordered()


def test_nothing_of_it_is_told_where_the_client_owns_playback(play) -> None:
    dialogue = play()
    dialogue.turn()
    dialogue.clause("One two three four five.")
    dialogue.played(2, 5)
    dialogue.speech(800)
    assert not dialogue.all((OutputStarted, OutputCleared, OutputStopped, ItemTruncated))
