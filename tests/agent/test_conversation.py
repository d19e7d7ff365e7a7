"""The order of events in every flow of protocols.md 1.8 to 1.14, as dialogues: who says what, and what the conversation orders."""

import pytest

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    AskAgent,
    Cut,
    Duck,
    ErrorRaised,
    Hold,
    InputCleared,
    InputCommitted,
    InputSpeechStarted,
    InputSpeechStopped,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    OutputItemDone,
    OutputTranscriptDelta,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    Resume,
    SessionUpdated,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
)
from agent.events import (
    ClearInput,
    CreateItem,
    DeleteItem,
    ItemReference,
    PlaybackProgress,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    Tick,
    UpdateSession,
)
from agent.items import ContentPart, FunctionCallOutput, ItemStatus, Message, PartKind
from agent.settings import PlaybackOwner, SemanticVad, ServerVad, SessionKind, SessionSettings, Transcription
from agent.state import IllegalEventError
from streaming.events import (
    Abort,
    CommitTurn,
    DiscardTurn,
    EngineFailed,
    EngineLost,
    FinishReason,
    OverlapKind,
    OverlapScore,
    ReplyRestarted,
    Respond,
    Say,
    SetHistory,
    SpeechStarted,
    SpeechSuspected,
    StartTurn,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
)

NOT_HEARD = "Sorry, I did not catch that."
SPEECH_EVENTS = (InputSpeechStarted, InputSpeechStopped)


# ------------------------------------------------------------------------------------------------------------- turns


def test_a_turn_with_server_vad(play, shown) -> None:
    talk = play()
    turn, reply = talk.turn(), talk.answer("A tortoise is slow.")
    assert shown(turn) == [
        *("StartTurn", "InputSpeechStarted", "InputSpeechStopped", "CommitTurn", "InputCommitted", "ItemAdded", "ItemDone"),
        *("ResponseCreated", "SetHistory", "TranscriptionCompleted", "SetHistory", "Respond"),
    ]
    assert shown(reply) == [
        *("OutputItemAdded", "ItemAdded", "ContentPartAdded", "OpenPlayout", "Release", "OutputTranscriptDelta", "OutputAudioDone"),
        *("OutputTranscriptDone", "ContentPartDone", "ItemDone", "OutputItemDone", "ResponseDone", "SetHistory"),
    ]
    assert talk.done().status is ResponseStatus.COMPLETED
    assert talk.believed() == [("user", "What is a tortoise?"), ("assistant", "A tortoise is slow.")]


def test_positions_of_a_turn_count_padding_and_silence(play) -> None:
    talk = play()
    talk.wait(1_000)
    talk.turn(milliseconds=600, silence=500)
    assert talk.last(InputSpeechStarted).audio_start_ms == 700
    assert talk.last(InputSpeechStopped).audio_end_ms == 2_100
    commit = talk.last(CommitTurn)
    assert (commit.start, commit.end) == (700 * 16, 2_100 * 16)
    assert {talk.last(InputSpeechStarted).item_id, talk.last(InputCommitted).item_id, talk.last(StartTurn).item_id} == {commit.item_id}


def test_a_pause_that_is_too_short_ends_nothing(play, shown) -> None:
    talk = play()
    talk.speech(400)
    talk.wait(200)
    assert not talk.all(CommitTurn)
    talk.turn()
    assert shown(talk.commands, *SPEECH_EVENTS) == ["InputSpeechStarted", "InputSpeechStopped"]


def test_semantic_vad_gives_the_same_events(play, shown) -> None:
    talk = play(turn_detection=SemanticVad())
    turn = talk.turn(silence=1_000)
    assert shown(turn, *SPEECH_EVENTS, InputCommitted, ResponseCreated) == [
        "InputSpeechStarted", "InputSpeechStopped", "InputCommitted", "ResponseCreated",
    ]  # fmt: skip


def test_push_to_talk_says_nothing_of_speech_and_answers_when_asked(play, shown) -> None:
    talk = play(turn_detection=None)
    talk.speech(800)
    assert shown(talk.commit()) == ["CommitTurn", "InputCommitted", "ItemAdded", "ItemDone", "SetHistory"]
    talk.transcript("What is a tortoise?")
    assert not talk.all((*SPEECH_EVENTS, ResponseCreated))
    assert shown(talk.ask()) == ["ResponseCreated", "Respond"]
    talk.answer()


def test_create_response_false_waits_for_the_client(play) -> None:
    talk = play(turn_detection=ServerVad(create_response=False))
    talk.turn()
    assert not talk.all(ResponseCreated)
    talk.ask()
    talk.answer()
    assert talk.done().status is ResponseStatus.COMPLETED


def test_a_manual_commit_under_vad_ends_the_turn_and_makes_no_response(play, shown) -> None:
    talk = play()
    talk.wait(500)
    talk.tell(SpeechStarted(talk.now, 0.9))
    talk.wait(500)
    commit = talk.commit()
    assert shown(commit) == ["InputSpeechStopped", "CommitTurn", "InputCommitted", "ItemAdded", "ItemDone", "SetHistory"]
    assert talk.last(InputSpeechStarted).item_id == talk.last(InputCommitted).item_id
    assert not talk.all(ResponseCreated)


def test_clear_during_speech_forgets_the_turn(play, shown) -> None:
    talk = play()
    talk.tell(SpeechStarted(talk.now, 0.9))
    talk.wait(500)
    assert shown(talk.tell(ClearInput("c", talk.now))) == ["InputSpeechStopped", "DiscardTurn", "InputCleared"]
    talk.wait(2_000)
    assert not talk.all((CommitTurn, ResponseCreated))
    talk.turn()
    assert talk.all(CommitTurn)[0].start >= talk.all(DiscardTurn)[0].end
    assert talk.all(InputCleared)


def test_what_the_ear_says_of_cleared_input_is_late(play) -> None:
    talk = play()
    talk.wait(1_000)
    talk.tell(ClearInput("c", talk.now))
    assert talk.tell(SpeechStarted(talk.now - 512, 0.9)) == []


def test_switching_to_push_to_talk_in_a_turn_leaves_its_end_to_the_client(play, shown) -> None:
    talk = play()
    talk.tell(SpeechStarted(talk.now, 0.9))
    talk.wait(300)
    assert "InputSpeechStopped" in shown(talk.tell(UpdateSession(None, SessionSettings(turn_detection=None))))
    talk.wait(3_000)
    assert not talk.all(CommitTurn)
    talk.commit()
    assert talk.last(CommitTurn).item_id == talk.last(InputSpeechStarted).item_id


def test_switching_to_vad_in_a_turn_tells_of_it_and_takes_it(play, shown) -> None:
    talk = play(turn_detection=None)
    talk.speech(600)
    switch = talk.tell(UpdateSession(None, SessionSettings()))
    assert shown(switch, SessionUpdated, *SPEECH_EVENTS) == ["SessionUpdated", "InputSpeechStarted"]
    assert shown(talk.wait(500), *SPEECH_EVENTS, InputCommitted, ResponseCreated) == [
        "InputSpeechStopped", "InputCommitted", "ResponseCreated",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ transcripts


def test_deltas_come_under_the_id_of_speech_started(play) -> None:
    talk = play()
    talk.tell(SpeechStarted(talk.now, 0.9))
    item_id = talk.last(StartTurn).item_id
    assert talk.tell(TranscriptDelta(item_id, "What is", 0.9, "en")) == [TranscriptionDelta(item_id, "What is")]
    assert talk.tell(TranscriptDelta("item_of_nobody", "What", 0.9, "en")) == []


def test_no_transcription_events_unless_asked_for(play) -> None:
    talk = play(transcription=None)
    talk.turn()
    assert not talk.all((TranscriptionDelta, TranscriptionCompleted))
    assert talk.believed() == [("user", "What is a tortoise?")]


def test_a_transcription_session_answers_nothing_and_tells_no_speech(play, shown) -> None:
    talk = play(kind=SessionKind.TRANSCRIPTION, transcription=None)
    talk.turn()
    assert shown(talk.commands, InputCommitted, ItemAdded, ItemDone, TranscriptionCompleted, ResponseCreated, *SPEECH_EVENTS) == [
        "InputCommitted", "ItemAdded", "ItemDone", "TranscriptionCompleted",
    ]  # fmt: skip
    talk.ask()
    assert talk.error() == ("invalid_event", "client_2")


def test_a_failed_transcript_is_told_and_asked_back(play) -> None:
    talk = play()
    talk.turn(text=None)
    talk.tell(TranscriptFailed(talk.last(CommitTurn).item_id, "out of memory"))
    assert talk.last(TranscriptionFailed).message == "out of memory"
    assert talk.last(Say).text == NOT_HEARD


@pytest.mark.parametrize("text", ["", "  "])
def test_a_turn_without_words_is_asked_back(play, text) -> None:
    talk = play()
    talk.turn(text=text)
    assert talk.last(Say).text == NOT_HEARD
    assert not talk.all(Respond)
    talk.answer(NOT_HEARD)
    assert talk.done().status is ResponseStatus.COMPLETED


def test_a_turn_without_words_is_asked_back_also_when_the_client_asks_later(play) -> None:
    talk = play(turn_detection=None)
    talk.speech(400)
    talk.commit()
    talk.transcript("")
    talk.ask()
    assert talk.last(Say).text == NOT_HEARD


def test_a_cough_over_a_question_that_waits_gets_the_question_answered(play) -> None:
    talk = play()
    talk.turn("What is a tortoise?")
    talk.turn("")
    assert not talk.all(Say)
    assert len(talk.all(Respond)) == 2


def test_a_deleted_turn_is_not_waited_for(play) -> None:
    talk = play()
    talk.turn(text=None)
    item_id = talk.last(CommitTurn).item_id
    assert not talk.all(Respond)
    talk.tell(DeleteItem("d", item_id))
    assert talk.all(Respond)
    assert talk.transcript("What is it?") == []
    assert talk.believed() == []


# -------------------------------------------------------------------------------------------------------- responses


def test_text_in_text_out(play, shown) -> None:
    talk = play(output_audio=False)
    assert shown(talk.write("Hello")) == ["ItemAdded", "ItemDone", "SetHistory"]
    talk.ask()
    reply = talk.decode("Hel") + talk.decode("lo.") + talk.finish()
    assert shown(reply) == [
        *("OutputItemAdded", "ItemAdded", "ContentPartAdded", "OutputTextDelta", "OutputTextDone", "ContentPartDone", "ItemDone"),
        *("OutputItemDone", "ResponseDone", "SetHistory"),
    ]
    assert talk.done().output[0].content == (ContentPart(PartKind.OUTPUT_TEXT, "Hello."),)


def test_transcripts_go_out_with_their_sound_and_done_waits_for_it(play) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three four")
    talk.finish()
    assert not talk.all((OutputTranscriptDelta, ResponseDone))
    talk.played(0, 2)
    assert [c.delta for c in talk.all(OutputTranscriptDelta)] == ["One two"]
    talk.played(1, 4)
    assert [c.delta for c in talk.all(OutputTranscriptDelta)] == ["One two", " three four"]
    assert talk.done().status is ResponseStatus.COMPLETED


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        (FinishReason.STOP, ResponseStatus.COMPLETED, None),
        (FinishReason.LENGTH, ResponseStatus.INCOMPLETE, "max_output_tokens"),
        (FinishReason.ERROR, ResponseStatus.FAILED, None),
        (FinishReason.ABORTED, ResponseStatus.FAILED, None),
    ],
)
def test_how_a_response_ends(play, reason, status, why) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two")
    talk.played(2)
    talk.finish(reason, error="it broke" if reason is FinishReason.ERROR else None)
    assert (talk.done().status, talk.done().reason) == (status, why)
    expected = ItemStatus.COMPLETED if status is ResponseStatus.COMPLETED else ItemStatus.INCOMPLETE
    assert talk.done().output[0].status is expected
    if reason is FinishReason.ERROR:
        assert talk.done().error == "it broke"


def test_arguments_are_told_as_they_are_written(play, shown) -> None:
    talk = play()
    talk.turn("How is the weather?")
    response_id = talk.ordered()
    begun = talk.tell(ToolArgumentsDelta(response_id, 0, "get_weather", '{"city": '))
    assert shown(begun) == ["OutputItemAdded", "ItemAdded", "ArgumentsDelta"]
    assert shown(talk.tell(ToolArgumentsDelta(response_id, 0, "get_weather", '"Bern"'))) == ["ArgumentsDelta"]
    done = talk.tell(ToolCallReady(response_id, 0, "get_weather", '{"city": "Bern"}'))
    assert shown(done) == ["ArgumentsDelta", "ArgumentsDone", "ItemDone", "OutputItemDone", "SetHistory"]
    assert [command.delta for command in talk.all(ArgumentsDelta)] == ['{"city": ', '"Bern"', "}"]
    assert talk.last(OutputItemDone).item.arguments == '{"city": "Bern"}'
    assert talk.tell(ToolArgumentsDelta(response_id, 0, "get_weather", "late")) == []


def test_a_call_that_is_cut_in_its_arguments_was_never_made(play) -> None:
    talk = play()
    talk.turn("How is the weather?")
    talk.tell(ToolArgumentsDelta(talk.ordered(), 0, "get_weather", '{"city": '))
    talk.cancel()
    assert (talk.last(OutputItemDone).item.status, talk.done().output[0].status) == (ItemStatus.INCOMPLETE, ItemStatus.INCOMPLETE)
    assert not talk.all(ArgumentsDone)
    talk.turn("Hello?")
    assert [role for role, _ in talk.believed()] == ["user", "user"]


def test_a_function_call_and_its_answer(play, shown) -> None:
    talk = play()
    talk.turn("How is the weather?")
    response_id = talk.ordered()
    call = talk.tell(ToolCallReady(response_id, 0, "get_weather", '{"city": "Bern"}'))
    assert shown(call) == ["OutputItemAdded", "ItemAdded", "ArgumentsDelta", "ArgumentsDone", "ItemDone", "OutputItemDone", "SetHistory"]
    assert talk.tell(ToolCallReady(response_id, 0, "get_weather", '{"city": "Bern"}')) == []
    done = talk.last(OutputItemDone).item
    assert (done.status, done.arguments) == (ItemStatus.COMPLETED, '{"city": "Bern"}')
    talk.finish(FinishReason.TOOL_CALLS)
    assert talk.done().status is ResponseStatus.COMPLETED
    assert not talk.all(Respond)[1:]
    call_id = talk.last(ArgumentsDone).call_id
    talk.tell(CreateItem("c", FunctionCallOutput("", call_id, "Rain"), None))
    talk.ask()
    assert talk.believed()[1:] == [("tool_call", '{"city": "Bern"}'), ("tool_result", "Rain")]
    talk.answer("It rains.")


def test_out_of_band_responses_run_beside_and_touch_nothing(play, shown) -> None:
    talk = play()
    talk.turn()
    mine = talk.ordered()
    aside = talk.ask(in_conversation=False, output_audio=False, input=(), metadata=(("k", "v"),))
    assert shown(aside) == ["ResponseCreated", "Respond"]
    other = talk.ordered()
    words = talk.decode("Aside.", other) + talk.finish(response_id=other)
    assert not [c for c in words if isinstance(c, ItemAdded | ItemDone | SetHistory)]
    assert (talk.done().conversation_id, talk.done().metadata) == (None, (("k", "v"),))
    talk.clause("One two", mine)
    third = talk.ask(in_conversation=False, output_audio=False, input=())[0].response.id
    talk.cancel(third)
    assert (talk.done().id, talk.done().reason) == (third, "client_cancelled")
    talk.played(2, 2, mine)
    talk.finish(response_id=mine)
    assert (talk.done().id, talk.done().status) == (mine, ResponseStatus.COMPLETED)


def test_speech_does_not_interrupt_out_of_band(play) -> None:
    talk = play()
    talk.ask(in_conversation=False, output_audio=False, input=())
    talk.speech(500)
    assert not talk.all((Abort, Cut, ResponseDone))


def test_input_replaces_the_context_and_the_reply_joins_the_conversation(play) -> None:
    talk = play()
    talk.write("Hello", "item_hello")
    talk.write("Ignore me")
    talk.ask(input=(ItemReference("item_hello"),), instructions="Be brief.")
    assert [(m.role, m.text) for m in talk.last(Respond).options.context] == [("system", "Be brief."), ("user", "Hello")]
    talk.answer("Hi.")
    assert talk.believed() == [("user", "Hello"), ("user", "Ignore me"), ("assistant", "Hi.")]
    assert talk.done().conversation_id is not None


def test_a_request_while_only_playout_remains_is_queued(play, shown) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three")
    talk.finish()
    talk.played(0, 1)
    assert talk.ask(metadata=(("k", "queued"),)) == []
    ended = talk.played(1, 3)
    assert shown(ended, ResponseDone, ResponseCreated, Respond) == ["ResponseDone", "ResponseCreated", "Respond"]
    assert talk.last(ResponseCreated).response.metadata == (("k", "queued"),)


def test_a_queued_request_whose_input_is_deleted_meanwhile_is_refused(play) -> None:
    talk = play()
    talk.write("Hello", "item_hello")
    talk.ask()
    talk.clause("One two")
    talk.finish()
    talk.ask(input=(ItemReference("item_hello"),))
    talk.tell(DeleteItem("d", "item_hello"))
    talk.played(0, 2)
    assert talk.error() == ("item_retrieve_invalid_item_id", "client_2")
    talk.ask()
    assert len(talk.all(Respond)) == 2


def test_interrupt_response_false_answers_the_second_turn_after_the_first_reply(play, shown) -> None:
    talk = play(turn_detection=ServerVad(interrupt_response=False))
    talk.turn("One?")
    talk.clause("One two three")
    talk.played(0, 1)
    second = talk.turn("Two?")
    assert not [c for c in second if isinstance(c, Cut | Abort | ResponseCreated)]
    assert shown(second, *SPEECH_EVENTS) == ["InputSpeechStarted", "InputSpeechStopped"]
    talk.turn("Three?")
    talk.played(3, 3)
    ended = talk.finish()
    assert shown(ended, ResponseDone, ResponseCreated, Respond) == ["ResponseDone", "ResponseCreated", "Respond"]
    talk.answer("Four five")
    assert len(talk.all(Respond)) == 2


def test_a_queued_client_request_survives_a_turn_that_ends(play) -> None:
    talk = play(turn_detection=ServerVad(interrupt_response=False))
    talk.turn("One?")
    talk.clause("One two")
    talk.finish()
    talk.ask(metadata=(("k", "mine"),))
    talk.turn("Two?")
    talk.played(0, 2)
    assert talk.last(ResponseCreated).response.metadata == (("k", "mine"),)


# ---------------------------------------------------------------------------------------------------- interruptions


def test_speech_while_thinking_ends_the_reply_at_once(play, shown) -> None:
    talk = play()
    talk.turn()
    commands = talk.tell(SpeechStarted(talk.now, 0.9))
    assert shown(commands) == ["StartTurn", "InputSpeechStarted", "Abort", "Cut", "ResponseDone"]
    assert (talk.done().status, talk.done().reason) == (ResponseStatus.CANCELLED, "turn_detected")


def test_speech_while_a_response_waits_for_its_transcript_ends_it_unordered(play, shown) -> None:
    talk = play()
    talk.turn(text=None)
    commands = talk.tell(SpeechStarted(talk.now, 0.9))
    assert "Abort" not in shown(commands)
    assert talk.done().reason == "turn_detected"
    talk.transcript("What is it?")
    assert not talk.all((Respond, Say))


@pytest.mark.parametrize("settled", [True, False])
def test_a_model_that_hears_is_not_kept_waiting_for_the_transcript(play, settled) -> None:
    talk = play(model_hears=True, speculation=False)
    talk.speech(800)
    if settled:
        talk.tell(TranscriptDelta(talk.last(StartTurn).item_id, "What is", 0.9, "en"))
    else:
        talk.provisional("What is a tortoise?")
    talk.wait(1_000)
    assert talk.all(Respond)
    item_id = talk.last(CommitTurn).item_id
    told = talk.transcript("What is a tortoise?")
    assert [command.item_id for command in told if isinstance(command, TranscriptionCompleted)] == [item_id]
    talk.answer()
    assert len(talk.all(Respond)) == 1
    assert talk.done().status is ResponseStatus.COMPLETED


@pytest.mark.parametrize("words", ["", "What is a tortoise?"])
def test_it_is_where_the_turn_ends_before_any_words_were_found_in_it(play, words) -> None:
    talk = play(model_hears=True)
    talk.turn(text=None)
    assert not talk.all((Respond, Say))
    talk.transcript(words)
    assert talk.all(Respond) if words else talk.last(Say).text == NOT_HEARD


@pytest.mark.parametrize("fields", [{"asks_agent": True}, {}])
def test_it_is_where_the_words_are_needed_first(play, fields) -> None:
    """By the agent's code, or to ask back what the recogniser made nothing of."""
    talk = play(model_hears=True, **fields)
    talk.speech(800)
    talk.provisional("What is a tortoise?" if fields else "")
    talk.wait(1_000)
    assert not talk.all((Respond, AskAgent, Say))
    talk.transcript("What is a tortoise?" if fields else "")
    assert talk.last(AskAgent).words == "What is a tortoise?" if fields else talk.last(Say).text == NOT_HEARD


def interrupted(talk) -> list:
    """Speech for long enough to count."""
    return talk.tell(SpeechStarted(talk.now, 0.9)) + talk.wait(320)


@pytest.mark.parametrize(
    ("sent", "played", "given", "heard"), [(0, 0, "", ""), (4, 0, "One two three four", ""), (4, 1, "One two three four", "One two")]
)
def test_an_interruption_keeps_what_was_heard(play, shown, sent, played, given, heard) -> None:
    talk = play()
    talk.turn("Count.")
    talk.clause("One two three four")
    talk.clause(" five six", before="One two three four")
    if sent:
        talk.played(played, sent)
    commands = interrupted(talk)
    assert shown(commands, InputSpeechStarted, Abort, Cut, OutputItemDone, ItemDone, ResponseDone) == [
        "InputSpeechStarted", "Abort", "Cut", "ItemDone", "OutputItemDone", "ResponseDone",
    ]  # fmt: skip
    assert talk.done().output[0].content[0].text == given
    assert talk.done().output[0].status is ItemStatus.INCOMPLETE
    expected = [("user", "Count."), ("assistant", heard)] if heard else [("user", "Count.")]
    assert talk.believed() == expected
    assert talk.decode("more", talk.done().id) + talk.finish(response_id=talk.done().id) == []
    assert talk.tell(PlaybackProgress(talk.done().id, 99_999, 99_999)) == []


def test_speech_events_are_withheld_until_an_overlap_counts(play) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three four")
    talk.played(0.1, 4)
    onset = talk.now
    talk.tell(SpeechStarted(onset, 0.9))
    talk.wait(224)
    assert len(talk.all(InputSpeechStarted)) == 1
    talk.wait(32)
    assert len(talk.all(InputSpeechStarted)) == 2
    assert talk.last(InputSpeechStarted).audio_start_ms == max(onset // 16 - 300, talk.last(InputSpeechStopped).audio_end_ms)


def test_a_backchannel_emits_nothing(play, shown) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three four five six")
    talk.played(0.1, 6)
    talk.overlap = None
    assert shown(talk.speech(128) + talk.wait(320)) == ["StartTurn", "DiscardTurn"]
    talk.played(1, 6)
    talk.finish()
    assert talk.done().status is ResponseStatus.COMPLETED


def test_an_overlap_that_outlives_the_sound_stops_a_reply_that_is_still_being_made(play) -> None:
    talk = play()
    talk.turn()
    talk.clause("One")
    talk.played(0.5, 1)
    talk.tell(SpeechStarted(talk.now, 0.9))
    talk.wait(320)
    assert talk.done().reason == "turn_detected"
    assert talk.believed()[-1] == ("assistant", "One")


def test_made_and_sent_but_playing_is_cut_without_a_second_done(play, shown) -> None:
    talk = play()
    talk.turn("Count.")
    talk.clause("One two three four five")
    talk.finish()
    talk.played(1, 5)
    assert talk.done().status is ResponseStatus.COMPLETED
    commands = interrupted(talk)
    assert shown(commands, InputSpeechStarted, Cut, ResponseDone, Abort) == ["InputSpeechStarted", "Cut"]
    assert talk.believed() == [("user", "Count."), ("assistant", "One two")]


def test_played_out_is_not_interrupted(play, shown) -> None:
    talk = play()
    talk.turn("Count.")
    talk.answer("One two.")
    commands = talk.tell(SpeechStarted(talk.now, 0.9))
    assert shown(commands) == ["StartTurn", "InputSpeechStarted"]
    assert talk.believed() == [("user", "Count."), ("assistant", "One two.")]


def test_a_first_reply_that_still_plays_when_the_second_begins_is_cut_too(play) -> None:
    talk = play()
    talk.turn("Weather?")
    first = talk.ordered()
    talk.clause("One moment please now")
    talk.tell(ToolCallReady(first, 0, "get_weather", "{}"))
    talk.finish(FinishReason.TOOL_CALLS)
    talk.played(0.5, 4)
    talk.tell(CreateItem("c", FunctionCallOutput("", talk.last(ArgumentsDone).call_id, "Rain"), None))
    talk.ask()
    second = talk.ordered()
    talk.clause("It rains", second)
    talk.tell(SpeechStarted(talk.now, 0.9))
    assert len(talk.all(InputSpeechStarted)) == 1
    talk.played(1, 4, first)
    talk.wait(320)
    assert {c.response_id for c in talk.all(Cut)} == {first, second}
    assert [text for role, text in talk.believed() if role == "assistant"] == ["One two".replace("two", "moment")]


def test_acknowledged_playback_is_ducked_until_the_overlap_is_decided(play, shown) -> None:
    talk = play(playback=PlaybackOwner.ACKED)
    talk.turn()
    talk.clause("One two three four five six")
    talk.played(2.1, 6)
    orders = (Duck, Hold, Resume, Cut)
    assert shown(talk.tell(SpeechSuspected(talk.now)) + talk.wait(96), *orders) == ["Duck", "Resume"]  # it was a click
    talk.overlap = OverlapKind.BACKCHANNEL
    assert shown(talk.speech(320) + talk.wait(320), *orders) == ["Duck", "Hold", "Resume"]
    talk.overlap = OverlapKind.SPEECH
    talk.played(4, 6)
    assert shown(talk.tell(SpeechSuspected(talk.now)) + interrupted(talk), *orders) == ["Duck", "Hold", "Cut"]


@pytest.mark.parametrize("kind", [OverlapKind.BACKCHANNEL, OverlapKind.NOISE, OverlapKind.ECHO, OverlapKind.OTHERS])
def test_what_is_not_meant_for_us_emits_nothing_however_long(play, shown, kind) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three four five six seven eight nine ten")
    talk.played(2.1, 10)
    talk.overlap = kind
    assert shown(talk.speech(800) + talk.wait(320)) == ["StartTurn", "DiscardTurn"]


def test_a_short_answer_to_a_question_that_is_nearly_over_is_a_turn(play) -> None:
    talk = play()
    talk.turn("I am thirsty.")
    talk.clause("I can make some. Would you like tea?")
    talk.finish()
    talk.played(5.5, 8)
    talk.overlap = OverlapKind.BACKCHANNEL
    talk.speech(320)
    assert len(talk.all(InputSpeechStarted)) == 2


def echoing(play) -> tuple:
    """A reply over which something began that is scored as its echo, and the turn that was started for it."""
    talk = play()
    talk.turn()
    talk.clause("One two three four five six seven eight nine ten")
    talk.played(2.1, 10)
    talk.overlap = None
    talk.tell(SpeechStarted(talk.now, 0.9))
    begun = talk.last(StartTurn)
    talk.wait(96)
    talk.tell(OverlapScore(talk.now, OverlapKind.ECHO, 0.9))
    return talk, begun


def test_an_echo_that_becomes_somebody_is_heard_from_there(play) -> None:
    talk, begun = echoing(play)
    talk.wait(1_000)
    assert len(talk.all(InputSpeechStarted)) == 1
    talk.tell(OverlapScore(talk.now, OverlapKind.ECHO, 0.1))
    anew = talk.last(StartTurn)
    assert (anew.item_id, anew.over.at) == (begun.item_id, talk.now)
    assert anew.over.sample - begun.over.sample == (anew.over.at - begun.over.at) * 24 // 16
    talk.tell(OverlapScore(talk.now, OverlapKind.SPEECH, 0.95))
    assert talk.last(InputSpeechStarted).item_id == begun.item_id
    assert talk.done().reason == "turn_detected"


def test_an_echo_that_was_none_costs_no_words(play) -> None:
    talk, begun = echoing(play)
    talk.wait(128)
    talk.tell(OverlapScore(talk.now, OverlapKind.ECHO, 0.1))
    talk.tell(OverlapScore(talk.now, OverlapKind.SPEECH, 0.95))
    assert talk.last(StartTurn) == begun
    assert talk.last(InputSpeechStarted).audio_start_ms * 16 == begun.start


def test_what_is_not_interruptible_is_heard_to_its_end_and_then_the_caller(play) -> None:
    talk = play()
    talk.turn("Hello.")
    talk.cancel()
    talk.ask(interruptible=False)
    talk.clause("This call is recorded for you")
    talk.finish()
    talk.played(2.1, 6)
    talk.speech(640)
    assert len(talk.all(InputSpeechStarted)) == 1  # a client would stop playing
    assert talk.done().status is ResponseStatus.COMPLETED
    onset = talk.last(StartTurn).start
    talk.played(6, 6)
    talk.wait(640)
    assert talk.last(InputSpeechStarted).audio_start_ms * 16 == onset
    assert talk.last(CommitTurn).start == onset  # nothing of it is lost
    assert talk.believed()[-2:-1] == [("assistant", "This call is recorded for you")]


def test_a_least_length_of_interruptions_is_kept(play) -> None:
    talk = play(min_interruption_ms=600)
    talk.turn()
    talk.clause("One two three four five six seven eight nine ten")
    talk.played(2.1, 10)
    talk.tell(SpeechStarted(talk.now, 0.9))
    talk.wait(576)
    assert len(talk.all(InputSpeechStarted)) == 1
    talk.wait(32)
    assert len(talk.all(InputSpeechStarted)) == 2


def test_the_clients_cancel(play, shown) -> None:
    talk = play()
    talk.turn("Count.")
    talk.clause("One two three")
    talk.played(1, 3)
    assert shown(talk.cancel()) == [
        *("Abort", "Cut", "OutputAudioDone", "OutputTranscriptDone", "ContentPartDone", "ItemDone", "OutputItemDone", "ResponseDone"),
        "SetHistory",
    ]
    assert talk.done().reason == "client_cancelled"
    talk.cancel()
    assert talk.error() == ("response_cancel_not_active", "client_3")
    assert talk.last(ErrorRaised).message.startswith("Cancellation failed")


def test_a_cancel_lets_what_is_queued_begin(play) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three")
    talk.finish()
    talk.ask(metadata=(("k", "queued"),))
    talk.cancel()
    assert talk.done().reason == "client_cancelled"
    assert talk.last(ResponseCreated).response.metadata == (("k", "queued"),)
    assert len(talk.all(Respond)) == 2


def test_an_interruption_turns_what_is_queued_away(play) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two three")
    talk.finish()
    talk.ask(metadata=(("k", "queued"),))
    interrupted(talk)
    assert (talk.done().metadata, talk.done().reason) == ((("k", "queued"),), "turn_detected")
    assert len(talk.all(Respond)) == 1


# --------------------------------------------------------------------------------------------------------- truncate


def test_truncate_supersedes_the_estimate_and_is_not_superseded(play) -> None:
    talk = play()
    talk.turn("Count.")
    talk.clause("One two three four")
    talk.played(3, 4)
    item_id = talk.message_id()
    assert talk.last(ItemAdded).item.id == item_id
    assert isinstance(talk.truncate(item_id, 450)[0], ItemTruncated)
    talk.cancel()
    assert talk.believed() == [("user", "Count."), ("assistant", "One two")]
    retrieved = talk.tell(RetrieveItem("r", item_id))
    assert retrieved == [
        ItemRetrieved(Message(item_id, "assistant", (ContentPart(PartKind.OUTPUT_AUDIO, "One two"),), ItemStatus.INCOMPLETE))
    ]


def test_truncate_twice_cuts_from_the_original(play) -> None:
    talk = play()
    talk.turn("Count.")
    talk.answer("One two three four")
    item_id = talk.message_id()
    talk.truncate(item_id, 650)
    assert talk.believed()[-1] == ("assistant", "One two three")
    talk.truncate(item_id, 450)
    assert talk.believed()[-1] == ("assistant", "One two")
    talk.truncate(item_id, 0)
    assert talk.believed() == [("user", "Count.")]


def test_what_was_played_until_the_cut_arrived_was_heard(play) -> None:
    """An acknowledgement that comes after the cut says more than the estimate; a truncation is the client's last word."""
    dialogue = play(playback=PlaybackOwner.ACKED)
    dialogue.turn()
    response_id = dialogue.ordered()
    dialogue.clause("One two three four five.")
    dialogue.played(1, 5)
    dialogue.cancel()
    assert dialogue.believed()[-1] == ("assistant", "One")
    for milliseconds, heard in ((100, "One"), (650, "One two three"), (400, "One two three"), (9_999, "One two three four five.")):
        dialogue.tell(PlaybackReported(None, response_id, milliseconds))
        assert dialogue.believed()[-1] == ("assistant", heard)
    dialogue.truncate(dialogue.message_id(), 450)
    dialogue.tell(PlaybackReported(None, response_id, 1_000))
    assert dialogue.believed()[-1] == ("assistant", "One two")


def test_a_late_truncate_counts_from_the_next_turn_on(play) -> None:
    talk = play()
    talk.turn("Count.")
    talk.answer("One two three four")
    item_id = talk.message_id()
    talk.turn("And?")
    talk.clause("Five six")
    talk.truncate(item_id, 210)
    talk.played(2)
    talk.finish()
    assert talk.believed() == [("user", "Count."), ("assistant", "One"), ("user", "And?"), ("assistant", "Five six")]


@pytest.mark.parametrize(("milliseconds", "refused"), [(400, False), (440, False), (460, True)])
def test_truncate_tolerates_two_frames(play, milliseconds, refused) -> None:
    talk = play()
    talk.turn()
    talk.answer("One two")
    talk.truncate(talk.message_id(), milliseconds)
    assert bool(talk.all(ErrorRaised)) == refused
    if refused:
        assert talk.error() == ("invalid_value", "client_4")
        assert talk.last(ErrorRaised).message == "Audio content of 400ms is already shorter than 460ms"


# ----------------------------------------------------------------------------------------------------- idle timeout

IDLE = ServerVad(idle_timeout_ms=5_000)


def test_the_idle_timeout_counts_from_the_end_of_playback(play, shown) -> None:
    talk = play(turn_detection=IDLE)
    talk.wait(10_000)
    talk.turn()
    assert talk.conversation.deadline() is None
    talk.answer("One two.")
    assert talk.conversation.deadline() == talk.now + 5_000 * 16
    talk.wait(4_960)
    assert talk.tell(Tick()) == []
    talk.wait(64)
    assert shown(talk.tell(Tick())) == [
        *("InputTimeoutTriggered", "DiscardTurn", "InputCommitted", "ItemAdded", "ItemDone", "TranscriptionCompleted"),
        *("ResponseCreated", "SetHistory", "Say"),
    ]
    assert talk.last(InputTimeoutTriggered).item_id == talk.last(InputCommitted).item_id
    assert talk.conversation.deadline() is None
    talk.answer("Are you still there?")
    assert talk.conversation.deadline() is not None


def test_nobody_is_idle_who_has_spoken_or_hears_us(play) -> None:
    talk = play(turn_detection=ServerVad(idle_timeout_ms=5_000, create_response=False))
    talk.turn()
    talk.ask()
    talk.clause("One two")
    talk.finish()
    talk.played(0, 2)
    assert talk.conversation.deadline() is None
    talk.now += 400 * 16
    talk.played(2, 2)
    assert talk.conversation.deadline() is not None
    talk.turn("And?")
    assert talk.conversation.deadline() is None


# ----------------------------------------------------------------------------------------------------------- errors


def test_error_codes(play) -> None:
    talk = play()
    text = Message("item_1", "user", (ContentPart(PartKind.INPUT_TEXT, "Hello"),))
    talk.tell(CreateItem(None, text, None))
    for event, code in [
        (RetrieveItem("e", "none"), "item_retrieve_invalid_item_id"),
        (DeleteItem("e", "none"), "item_delete_invalid_item_id"),
        (CreateItem("e", text, None), "item_create_duplicate_item_id"),
        (CreateItem("e", Message("item_2", "user", ()), "none"), "item_create_invalid_previous_item_id"),
        (CreateItem("e", FunctionCallOutput("item_3", "call_none", "x"), None), "invalid_value"),
        (RefuseRequest("e", "invalid_event", "What?"), "invalid_event"),
    ]:
        (error,) = talk.tell(event)
        assert (error.code, error.event_id) == (code, "e")
    talk.truncate("none", 0)
    assert talk.error() == ("item_truncate_invalid_item_id", "client_4")
    talk.truncate("item_1", 0)
    assert talk.error() == ("unsupported_content_type", "client_4")
    talk.ask(input=(ItemReference("none"),))
    assert talk.error() == ("item_retrieve_invalid_item_id", "client_2")


def test_a_commit_needs_100_ms(play) -> None:
    talk = play(turn_detection=None)
    talk.wait(99)
    talk.commit()
    assert talk.error() == ("input_audio_buffer_commit_empty", "client_5")
    talk.wait(1)
    talk.commit()
    talk.commit()
    assert len(talk.all(ErrorRaised)) == 2
    assert len(talk.all(InputCommitted)) == 1


def test_a_second_response_while_one_is_made_is_refused(play) -> None:
    talk = play()
    talk.turn()
    talk.ask()
    assert talk.error() == ("conversation_already_has_active_response", "client_2")
    talk.answer("One two")
    assert len(talk.all(ResponseCreated)) == 1


def test_the_voice_is_locked_once_it_has_been_heard_and_nothing_else_of_that_update_counts(play) -> None:
    talk = play()
    talk.tell(UpdateSession(None, SessionSettings(voice="amy")))
    talk.turn()
    talk.clause("One")
    talk.tell(UpdateSession("u", SessionSettings(voice="joe", instructions="Be brief.")))
    assert talk.error() == ("cannot_update_voice", "u")
    assert talk.conversation.settings == SessionSettings(voice="amy")
    assert isinstance(talk.tell(UpdateSession(None, SessionSettings(voice="amy", speed=1.5)))[0], SessionUpdated)


def test_the_type_can_change_in_the_first_update_only(play) -> None:
    talk = play()
    talk.tell(UpdateSession(None, SessionSettings(kind=SessionKind.TRANSCRIPTION)))
    talk.tell(UpdateSession("u", SessionSettings()))
    assert talk.error() == ("invalid_value", "u")


# ------------------------------------------------------------------------------------------------- engine, clean-up


def test_a_dead_engine_leaves_nothing_pending(play) -> None:
    talk = play()
    talk.turn()
    talk.clause("One two")
    talk.finish()
    talk.played(0.5, 1)
    talk.ask(metadata=(("k", "queued"),))
    talk.ask(in_conversation=False, output_audio=False, input=())
    talk.tell(EngineFailed("it died"))
    done = talk.all(ResponseDone)
    assert {c.response.id for c in done} == {c.response.id for c in talk.all(ResponseCreated)}
    assert [c.response.status for c in done] == [ResponseStatus.FAILED] * 3
    assert talk.last(ErrorRaised).kind == "server_error"
    assert talk.finish() == []


def test_a_dead_engine_fails_the_transcripts_that_are_due(play) -> None:
    talk = play()
    talk.turn(text=None)
    talk.tell(EngineFailed("it died"))
    assert talk.last(TranscriptionFailed).item_id == talk.last(CommitTurn).item_id
    assert talk.done().status is ResponseStatus.FAILED
    assert not talk.all((Respond, Say))


def test_what_waits_for_words_is_ordered_without_them_while_the_engine_is_replaced(play) -> None:
    talk = play(turn_detection=None)
    talk.speech(800)
    talk.tell(EngineLost("gone"))
    talk.commit()
    talk.ask()
    assert talk.all(Respond)  # by which the caller can be asked to wait
    talk.transcript("What is it?")
    talk.answer("A tortoise.")
    talk.wait(100)
    talk.commit()
    talk.ask()
    assert len(talk.all(Respond)) == 1  # there is an engine again, so the words are waited for
    talk.transcript("And that?")
    assert len(talk.all(Respond)) == 2


def test_words_that_no_engine_will_speak_are_not_said(play) -> None:
    talk = play()
    talk.turn()
    talk.decode("Well, it")
    talk.tell(ReplyRestarted(talk.ordered(), 0))
    talk.answer("One moment.")
    assert talk.believed() == [("user", "What is a tortoise?"), ("assistant", "One moment.")]


def test_a_reply_deleted_while_it_is_made_leaves_no_trace(play) -> None:
    talk = play()
    talk.turn("Count.")
    talk.clause("One two three")
    assert isinstance(talk.tell(DeleteItem("d", talk.message_id()))[0], ItemDeleted)
    talk.clause(" four", before="One two three")
    talk.played(4)
    talk.finish()
    assert talk.done().status is ResponseStatus.COMPLETED
    assert talk.believed() == [("user", "Count.")]
    talk.truncate(talk.message_id(), 100)
    assert talk.error()[0] == "item_truncate_invalid_item_id"


def test_what_is_no_event_is_our_fault(play) -> None:
    with pytest.raises(IllegalEventError, match="str while LISTENING"):
        play().conversation.handle("hello", 0)


def test_transcripts_and_words_of_strangers_are_dropped(play) -> None:
    talk = play()
    assert talk.tell(TranscriptDone("item_x", "Hi", 0.9, "en")) == []
    assert talk.tell(TextDelta("resp_x", "Hi")) == []


def test_transcription_of_a_language(play) -> None:
    talk = play(transcription=Transcription(language="de"))
    assert any(getattr(command, "language", None) == "de" for command in talk.commands)
