"""The caller speaks over us, at every point of a reply: what leaves, what the client is told, what the model believes afterwards
(protocols.md 1.9, design.md section 6 "Barge-in")."""

import pytest

from agent.commands import (
    Cut,
    Duck,
    InputSpeechStarted,
    InputSpeechStopped,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    OutputItemDone,
    OutputTranscriptDone,
    Release,
    ResponseDone,
    ResponseStatus,
    Resume,
)
from agent.events import CancelResponse, ClearInput, CommitInput, RetrieveItem, TruncateItem
from agent.items import ItemStatus
from agent.settings import PlaybackOwner, ServerVad
from streaming.events import (
    Abort,
    Audible,
    AudioReady,
    CommitTurn,
    DiscardTurn,
    FinishReason,
    Listened,
    Respond,
    ResponseFinished,
    SpeechStarted,
    SpeechStopped,
    StartTurn,
    TextDelta,
    ToolCallReady,
    TranscriptDelta,
    WordMark,
)

STORY = "One two three four five six seven eight nine ten"
CANCELLED = ["OutputAudioDone", "OutputTranscriptDone", "ContentPartDone", "ItemDone", "OutputItemDone", "ResponseDone"]


@pytest.fixture
def telling(call):
    """A call in which a reply of ten words, 2 s, is being said; `finished` says whether the engine has made all of it."""

    def begin(*, finished: bool = False, **settings: object):
        session = call(**settings)
        session.ask("Count.")
        session.say(STORY)
        if finished:
            session.finish()
        session.notices()
        return session

    return begin


def test_an_interruption_closes_what_is_open(telling) -> None:
    session = telling()
    session.listen(640)
    onset = session.heard
    session.speak(320)
    assert session.kinds() == ["InputSpeechStarted", *CANCELLED]
    started = session.last(InputSpeechStarted)
    assert started.audio_start_ms == onset // 16 - 300  # the true onset, with its padding
    turn = session.last(StartTurn)
    assert (turn.item_id, turn.start) == (started.item_id, started.audio_start_ms * 16)
    assert turn.over == Audible(session.last(ResponseDone).response.id, 640 * 24, 24_000, onset)  # what was being heard
    done = session.last(ResponseDone).response
    assert (done.status, done.reason) == (ResponseStatus.CANCELLED, "turn_detected")
    assert [item.status for item in done.output] == [ItemStatus.INCOMPLETE]
    assert session.last(ItemDone).item.status is ItemStatus.INCOMPLETE
    assert session.last(Abort).response_id == session.last(Cut).response_id == done.id
    position = {type(command): index for index, command in enumerate(session.commands)}
    assert position[InputSpeechStarted] < position[ResponseDone]


def test_speech_over_our_sound_is_announced_after_250_ms_of_it(telling) -> None:
    session = telling()
    session.listen(640)
    session.speak(224)
    assert session.kinds() == []
    session.listen(32)
    assert session.kinds()[0] == "InputSpeechStarted"


def test_what_ends_before_that_was_nothing(telling) -> None:
    session = telling(transcription=True)
    session.listen(640)
    session.speak(160)
    item = session.last(StartTurn).item_id
    session.tell(TranscriptDelta(item, "mhm", 0.4, "en"))
    session.hush(960)
    assert session.kinds() == []
    assert session.last(DiscardTurn).end <= session.heard
    assert session.ordered((Abort, Cut)) == []
    assert len(session.ordered(CommitTurn)) == 1
    session.tell(TranscriptDelta(item, " late", 0.4, "en"))
    assert session.kinds() == []
    session.finish()
    assert session.last(ResponseDone).response.status is ResponseStatus.COMPLETED


def test_words_settled_during_the_overlap_are_not_lost(telling) -> None:
    session = telling(transcription=True)
    session.listen(640)
    session.speak(0)
    session.tell(TranscriptDelta(session.last(StartTurn).item_id, "Stop", 0.9, "en"))
    session.listen(320)
    session.tell(TranscriptDelta(session.last(StartTurn).item_id, " it", 0.9, "en"))
    told = [notice for notice in session.notices() if type(notice).__name__ in ("InputSpeechStarted", "TranscriptionDelta")]
    assert [type(notice).__name__ for notice in told] == ["InputSpeechStarted", "TranscriptionDelta", "TranscriptionDelta"]
    assert "".join(notice.delta for notice in told[1:]) == "Stop it"


@pytest.mark.parametrize(
    ("heard_ms", "words"),
    [(0, ""), (160, ""), (480, "One two"), (960, "One two three four"), (1_600, "One two three four five six seven eight")],
)
@pytest.mark.parametrize("finished", [False, True])
def test_the_model_believes_the_words_that_were_heard(telling, heard_ms, words, finished) -> None:
    session = telling(finished=finished)
    session.listen(heard_ms)
    began = session.now
    session.speak(288)
    decided = (session.now - began) * 1_000 // 16_000
    heard = STORY.split()[: (heard_ms + decided) // 200]
    expected = [("assistant", " ".join(heard))] if heard else []
    assert words.split() == heard[: len(words.split())]
    assert session.dialogue == [("user", "Count."), *expected]
    if heard:
        assert session.believed[-1].complete is False


def test_after_the_engine_and_the_wire_are_done_only_speech_started_is_due(telling) -> None:
    session = telling(finished=True)
    assert session.last(ResponseDone).response.status is ResponseStatus.COMPLETED
    session.listen(640)
    session.speak(320)
    assert session.kinds() == ["InputSpeechStarted"]
    assert len(session.ordered(Cut)) == 1
    assert session.dialogue[-1] == ("assistant", "One two three four")


def test_after_playback_speech_is_announced_at_once(telling) -> None:
    session = telling(finished=True)
    session.listen(2_240)
    session.notices()
    session.tell(SpeechStarted(session.heard, 0.9))
    assert session.kinds() == ["InputSpeechStarted"]
    assert session.ordered(Cut) == []
    assert session.dialogue[-1] == ("assistant", STORY)


def test_made_but_not_all_sent(call) -> None:
    session = call()
    session.ask("Count.")
    session.sends = False
    session.say(STORY)
    session.finish()
    session.send(1_000)
    session.notices()
    session.listen(640)
    session.speak(320)
    assert session.kinds() == ["InputSpeechStarted", *CANCELLED]
    assert session.last(OutputTranscriptDone).transcript.split() == STORY.split()[:5]
    assert session.dialogue[-1] == ("assistant", "One two three four")


def test_before_the_first_word(call) -> None:
    session = call()
    session.ask("Count.")
    session.notices()
    session.tell(SpeechStarted(session.heard, 0.9))
    assert session.kinds() == ["InputSpeechStarted", "ResponseDone"]
    assert session.last(ResponseDone).response.output == ()
    assert len(session.ordered(Abort)) == 1


def test_before_the_transcript(call) -> None:
    session = call()
    session.speak(640)
    session.hush(640)
    session.notices()
    session.tell(SpeechStarted(session.heard, 0.9))
    assert session.kinds() == ["InputSpeechStarted", "ResponseDone"]
    session.transcribe("Count.")
    assert session.ordered(Respond) == []
    session.listen(640)
    session.hush(640)
    session.transcribe("To ten.")
    assert session.dialogue == [("user", "Count."), ("user", "To ten.")]
    assert len(session.ordered(Respond)) == 1


def test_words_without_sound_yet(call) -> None:
    session = call()
    session.ask("Count.")
    session.text("One two")
    session.notices()
    session.speak(320)
    assert session.kinds() == ["InputSpeechStarted", *CANCELLED]
    assert session.last(OutputItemDone).item.content[0].text == ""
    assert session.dialogue == [("user", "Count.")]


def test_a_text_reply_yields_too(call) -> None:
    session = call(output_audio=False)
    session.ask("Count.")
    session.text("One two")
    session.notices()
    session.tell(SpeechStarted(session.heard, 0.9))
    assert session.kinds() == ["InputSpeechStarted", "OutputTextDone", "ContentPartDone", "ItemDone", "OutputItemDone", "ResponseDone"]
    assert session.dialogue[-1] == ("assistant", "One two")


def test_a_gap_in_the_sound_is_still_our_turn(telling) -> None:
    session = telling()
    session.listen(2_560)  # all of it heard, the engine goes on
    session.speak(160)
    session.hush(320)
    assert session.kinds() == []
    session.say(" eleven.")
    session.finish()
    assert session.last(ResponseDone).response.status is ResponseStatus.COMPLETED


def test_nothing_of_a_cut_response_is_let_out(telling) -> None:
    session = telling()
    cut = session.response_id
    session.speak(320)
    session.notices()
    for late in (
        TextDelta(cut, "more"),
        AudioReady(cut, 48_000, 4_800, 60, (WordMark(60, 52_800),), True),
        ToolCallReady(cut, 0, "get_weather", "{}"),
        ResponseFinished(cut, FinishReason.ABORTED),
    ):
        assert session.tell(late) == []


def test_speech_that_is_not_to_interrupt_is_announced_at_once(telling) -> None:
    session = telling(turn_detection=ServerVad(interrupt_response=False))
    session.listen(320)
    session.tell(SpeechStarted(session.heard, 0.9))
    assert session.kinds() == ["InputSpeechStarted"]
    session.listen(960)
    assert session.ordered((Abort, Cut)) == []


def test_the_interrupting_turn_is_answered(telling) -> None:
    session = telling()
    session.listen(640)
    session.speak(960)
    session.hush(640)
    session.transcribe("Stop.")
    assert session.dialogue[0] == ("user", "Count.")
    assert session.dialogue[-1] == ("user", "Stop.")
    assert len(session.ordered(Respond)) == 2
    session.answer("Stopped.")
    assert session.dialogue[-1] == ("assistant", "Stopped.")


def test_a_waiting_response_is_begun_and_cancelled(call) -> None:
    session = call()
    session.ask("Count.")
    session.sends = False
    session.say(STORY)
    session.finish()
    session.send(1_000)
    session.create_response(metadata=(("a", "b"),))
    session.notices()
    session.speak(320)
    assert session.kinds() == ["InputSpeechStarted", *CANCELLED, "ResponseCreated", "ResponseDone"]
    done = session.last(ResponseDone).response
    assert (done.status, done.metadata) == (ResponseStatus.CANCELLED, (("a", "b"),))


def test_a_client_that_acknowledges_is_ducked_until_it_is_clear(telling) -> None:
    session = telling(playback=PlaybackOwner.ACKED)
    session.listen(320)
    session.speak(96)
    assert session.last(Duck) == Duck(session.response_id)
    session.hush(320)
    assert session.last(Resume) == Resume(session.response_id)
    assert session.ordered(Cut) == []


def test_a_client_that_does_not_is_not_ducked(telling) -> None:
    session = telling()
    session.listen(320)
    session.speak(320)
    assert session.ordered((Duck, Resume)) == []


def test_evidence_about_what_has_been_committed_is_stale(call) -> None:
    session = call()
    session.speak(640)
    session.tell(CommitInput(None, session.heard))
    session.notices()
    for late in (SpeechStarted(session.heard - 800, 0.9), SpeechStopped(session.heard - 400, 0.1)):
        assert session.tell(late) == []
    session.listen(1_600)
    assert session.kinds() == []


@pytest.mark.parametrize("end", ["decision", "commit", "clear", "manual"])
def test_every_speech_started_has_its_speech_stopped(call, end) -> None:
    session = call()
    session.speak(640)
    match end:
        case "decision":
            session.hush(640)
        case "commit":
            session.tell(CommitInput(None, session.heard))
        case "clear":
            session.tell(ClearInput(None, session.heard))
        case "manual":
            session.update(turn_detection=None)
    (started,), (stopped,) = session.ordered(InputSpeechStarted), session.ordered(InputSpeechStopped)
    assert started.item_id == stopped.item_id


def test_clearing_the_input_forgets_the_turn(call) -> None:
    session = call(turn_detection=None)
    session.speak(640)
    session.tell(ClearInput(None, session.heard))
    assert session.kinds() == ["InputCleared"]
    assert session.last(DiscardTurn) == DiscardTurn(session.heard)
    session.tell(CommitInput(None, session.heard + 800))
    assert session.notices()[0].code == "input_audio_buffer_commit_empty"


# ------------------------------------------------------------------------------------------- cancelled by the client


@pytest.mark.parametrize("named", [False, True])
def test_cancelled_by_the_client(telling, named) -> None:
    session = telling()
    session.listen(480)
    session.tell(CancelResponse("cancel", session.response_id if named else None))
    assert session.kinds() == CANCELLED
    assert session.last(ResponseDone).response.reason == "client_cancelled"
    assert session.dialogue[-1] == ("assistant", "One two")
    session.tell(CancelResponse("again", None))
    (error,) = session.notices()
    assert (error.code, error.event_id) == ("response_cancel_not_active", "again")
    assert error.message.startswith("Cancellation failed")


def test_a_finished_response_can_not_be_cancelled(telling) -> None:
    session = telling(finished=True)
    session.tell(CancelResponse(None, None))
    assert session.notices()[0].code == "response_cancel_not_active"


def test_an_out_of_band_response_is_cancelled_by_its_id(telling) -> None:
    session = telling()
    session.create_response(in_conversation=False, input=())
    beside = session.response_id
    session.notices()
    session.tell(CancelResponse(None, beside))
    (done,) = session.notices()
    assert (done.response.id, done.response.reason) == (beside, "client_cancelled")
    assert session.last(Abort).response_id == beside


# --------------------------------------------------------------------------------------------------------- truncate


def test_a_truncate_overrides_the_estimate(telling) -> None:
    session = telling()
    session.listen(960)
    session.speak(320)
    item = session.last(OutputItemDone).item.id
    session.notices()
    session.tell(TruncateItem("truncate", item, 0, 450))
    assert session.notices() == [ItemTruncated(item, 0, 450)]
    assert session.dialogue[-1] == ("assistant", "One two")
    session.tell(RetrieveItem(None, item))
    assert session.last(ItemRetrieved).item.content[0].text.strip() == "One two"


def test_a_second_truncate_is_counted_from_the_whole(telling) -> None:
    session = telling(finished=True)
    item = session.last(OutputItemDone).item.id
    for milliseconds, words in ((850, "One two three four"), (450, "One two"), (450, "One two")):
        session.tell(TruncateItem(None, item, 0, milliseconds))
        assert session.dialogue[-1] == ("assistant", words)


def test_a_truncate_to_nothing(telling) -> None:
    session = telling(finished=True)
    session.tell(TruncateItem(None, session.last(OutputItemDone).item.id, 0, 0))
    assert session.dialogue == [("user", "Count.")]


def test_an_estimate_does_not_override_the_client(telling) -> None:
    session = telling()
    session.listen(960)
    item = next(command.item.id for command in reversed(session.commands) if type(command).__name__ == "OutputItemAdded")
    session.tell(TruncateItem(None, item, 0, 450))
    session.tell(CancelResponse(None, None))
    assert session.dialogue[-1] == ("assistant", "One two")


@pytest.mark.parametrize(("beyond", "refused"), [(-1, False), (0, False), (20, False), (40, False), (41, True), (5_000, True)])
def test_a_truncate_beyond_the_audio(telling, beyond, refused) -> None:
    session = telling(finished=True)
    session.notices()
    session.tell(TruncateItem("truncate", session.last(OutputItemDone).item.id, 0, 2_000 + beyond))
    (notice,) = session.notices()
    assert (type(notice).__name__ == "ErrorRaised") is refused
    if refused:
        assert notice.event_id == "truncate"
        assert "already shorter than" in notice.message
    elif beyond >= 0:
        assert session.dialogue[-1] == ("assistant", STORY)


def test_only_sound_can_be_truncated(call) -> None:
    session = call(output_audio=False)
    session.write_item("Hello.", "item_user")
    session.create_response()
    session.text("Hi.")
    session.finish()
    session.notices()
    for item in ("item_user", session.last(OutputItemDone).item.id):
        session.tell(TruncateItem(None, item, 0, 100))
        assert session.notices()[0].code == "unsupported_content_type"
    session.tell(TruncateItem(None, "none", 0, 100))
    assert session.notices()[0].code == "item_truncate_invalid_item_id"


def test_all_of_a_reply_may_leave_at_once(telling) -> None:
    session = telling()
    assert session.last(Release) == Release(session.response_id, 10 * 4_800)
    assert session.tell(Listened(session.heard)) == []
