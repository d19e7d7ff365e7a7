"""The event tables of protocols.md 1.8, 1.10, 1.11 and 1.14, each as a script."""

import pytest

from agent.commands import (
    ArgumentsDone,
    ErrorRaised,
    InputCommitted,
    InputSpeechStarted,
    InputSpeechStopped,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDone,
    OpenPlayout,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    SessionCreated,
    SessionUpdated,
    TranscriptionCompleted,
    TranscriptionDelta,
)
from agent.events import CommitInput, CreateItem, ItemReference
from agent.items import ContentPart, FunctionCall, FunctionCallOutput, ItemStatus, Message, PartKind
from agent.settings import Eagerness, SemanticVad, ServerVad, SessionKind, SessionSettings, ToolChoice, Transcription
from streaming.events import (
    CommitTurn,
    ConfigureEar,
    EndOfTurnScore,
    EngineFailed,
    FinishReason,
    Respond,
    ResponseFinished,
    Say,
    SetHistory,
    StartTurn,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
)

TURN = ["InputSpeechStarted", "InputSpeechStopped", "InputCommitted", "ItemAdded", "ItemDone", "ResponseCreated"]
BEGIN = ["OutputItemAdded", "ItemAdded", "ContentPartAdded"]
END = ["OutputAudioDone", "OutputTranscriptDone", "ContentPartDone", "ItemDone", "OutputItemDone", "ResponseDone"]
TEXT_END = ["OutputTextDone", "ContentPartDone", "ItemDone", "OutputItemDone", "ResponseDone"]
CALL = ["OutputItemAdded", "ItemAdded", "ArgumentsDelta", "ArgumentsDone", "ItemDone", "OutputItemDone"]
WEATHER = ToolSpec("get_weather", "Weather in a city", '{"type": "object"}')


# ---------------------------------------------------------------------------------------------------- the session


def test_opening(call) -> None:
    opened = call(instructions="Be brief.")
    assert opened.last(SessionCreated) == SessionCreated("sess_test", opened.conversation.settings)
    assert opened.ordered(ConfigureEar) == [ConfigureEar(0.5, False, None)]
    assert opened.dialogue == [("system", "Be brief.")]
    assert opened.conversation.deadline() is None


def test_an_update_is_answered_in_full_and_configures_the_ear(call) -> None:
    session = call()
    session.update(turn_detection=SemanticVad(Eagerness.HIGH), transcription=Transcription(language="de"))
    assert session.notices() == [SessionUpdated("sess_test", session.conversation.settings)]
    assert session.last(ConfigureEar) == ConfigureEar(0.5, True, "de")
    session.update(turn_detection=ServerVad(threshold=0.7))
    assert session.last(ConfigureEar) == ConfigureEar(0.7, False, "de")


def test_new_instructions_are_believed_at_once(call) -> None:
    session = call()
    session.update(instructions="Speak like a pirate.")
    assert session.dialogue == [("system", "Speak like a pirate.")]
    told = len(session.ordered(SetHistory))
    session.update(instructions="Speak like a pirate.")
    assert len(session.ordered(SetHistory)) == told


# ------------------------------------------------------------------------------------------- A: a turn, server VAD


def test_a_turn_and_its_answer(call) -> None:
    session = call(transcription=True)
    session.listen(960)
    session.speak(960)
    session.hush(640)
    assert session.kinds() == TURN
    assert not session.ordered((Respond, Say))  # the transcript is not there yet
    session.transcribe("What is a tortoise?")
    assert session.kinds() == ["TranscriptionCompleted"]
    assert session.dialogue == [("user", "What is a tortoise?")]
    session.say("A tortoise is a slow animal.")
    assert session.kinds() == [*BEGIN, "OutputTranscriptDelta"]
    session.finish()
    assert session.kinds() == END
    assert session.dialogue == [("user", "What is a tortoise?"), ("assistant", "A tortoise is a slow animal.")]


def test_positions_and_ids_of_a_turn(call) -> None:
    session = call()
    session.listen(960)
    session.ask()
    session.answer()
    user, reply = session.turn_item, session.last(OutputItemAdded).item.id
    assert session.ordered(InputSpeechStarted) == [InputSpeechStarted(660, user)]  # 300 ms of padding
    assert session.ordered(InputSpeechStopped) == [InputSpeechStopped(1920 + 500, user)]  # with the silence
    assert session.ordered(StartTurn) == [StartTurn(user, 660 * 16)]
    assert session.ordered(CommitTurn) == [CommitTurn(user, 660 * 16, 2420 * 16)]
    assert session.ordered(InputCommitted) == [InputCommitted(user, None)]
    added = session.ordered(ItemAdded)
    assert added[0] == ItemAdded(Message(user, "user", (ContentPart(PartKind.INPUT_AUDIO, None),)), None)
    assert added[1] == ItemAdded(Message(reply, "assistant", (), ItemStatus.IN_PROGRESS), user)
    spoken = Message(reply, "assistant", (ContentPart(PartKind.OUTPUT_AUDIO, "A tortoise is a slow animal."),))
    assert session.last(ItemDone) == ItemDone(spoken, user)
    done = session.last(ResponseDone).response
    assert (done.status, done.output, done.reason) == (ResponseStatus.COMPLETED, (spoken,), None)
    assert done.usage is not None
    assert done.conversation_id is not None
    created = session.last(ResponseCreated).response
    assert (created.status, created.output, created.usage) == (ResponseStatus.IN_PROGRESS, (), None)


def test_the_padding_stops_at_the_last_commit(call) -> None:
    session = call()
    session.ask()
    session.answer()
    session.listen(2_016)
    end = session.ordered(InputSpeechStopped)[-1].audio_end_ms
    session.update(turn_detection=ServerVad(prefix_padding_ms=100_000))
    session.speak(320)
    assert session.last(InputSpeechStarted).audio_start_ms == end


def test_a_pause_shorter_than_the_silence_does_not_end_the_turn(call) -> None:
    session = call()
    session.speak(320)
    session.hush(384)
    session.speak(320)
    assert session.kinds() == ["InputSpeechStarted"]
    session.hush(640)
    assert session.kinds() == TURN[1:]
    assert len(session.ordered(StartTurn)) == 1


def test_the_transcript_may_come_after_the_response(call) -> None:
    session = call(transcription=True)
    session.speak(320)
    session.hush(640)
    item = session.turn_item
    session.tell(TranscriptDelta("item_of_nobody", "stale", 0.9, "en"))
    session.notices()
    session.tell(TranscriptDelta(item, "What is", 0.9, "en"))
    assert session.notices() == [TranscriptionDelta(item, "What is")]
    session.transcribe("What is it?")
    seconds = (session.last(CommitTurn).end - session.last(CommitTurn).start) / 16_000
    assert session.notices() == [TranscriptionCompleted(item, "What is it?", seconds)]
    assert session.transcribe("again, stale") == []


def test_words_settle_while_the_caller_speaks(call) -> None:
    session = call(transcription=True)
    session.speak(320)
    item = session.last(StartTurn).item_id
    session.tell(TranscriptDelta(item, "What", 0.9, "en"))
    session.tell(TranscriptDelta(item, " is", 0.9, "en"))
    assert session.notices() == [
        InputSpeechStarted(0, item),
        TranscriptionDelta(item, "What"),
        TranscriptionDelta(item, " is"),
    ]


@pytest.mark.parametrize("event", [TranscriptDelta, TranscriptDone])
def test_no_transcription_events_unless_asked_for(call, event) -> None:
    session = call()
    session.speak(320)
    session.hush(640)
    session.notices()
    session.tell(event(session.turn_item, "Hello", 0.9, "en"))
    assert session.notices() == []


def test_a_failed_transcript_is_told_and_asked_back(call) -> None:
    session = call(transcription=True)
    session.speak(320)
    session.hush(640)
    session.notices()
    session.tell(TranscriptFailed(session.turn_item, "out of memory"))
    assert session.kinds() == ["TranscriptionFailed"]
    assert len(session.ordered(Say)) == 1


def test_a_turn_without_words_is_asked_back_not_answered(call) -> None:
    session = call(transcription=True)
    session.ask("")
    assert session.ordered(Respond) == []
    assert session.last(Say).text == "Sorry, I did not catch that."
    session.answer(session.last(Say).text)
    assert session.last(ResponseDone).response.status is ResponseStatus.COMPLETED
    session.ask("I said hello.")
    assert len(session.ordered(Respond)) == 1


# ------------------------------------------------------------------------------------------------------ B: manual


def test_push_to_talk(call) -> None:
    session = call(turn_detection=None)
    session.speak(640)
    session.hush(960)
    assert session.kinds() == []
    assert len(session.ordered(StartTurn)) == 1  # transcribed as it is spoken
    session.tell(CommitInput("commit", session.heard))
    assert session.kinds() == ["InputCommitted", "ItemAdded", "ItemDone"]
    assert session.turn_item == session.last(StartTurn).item_id
    session.transcribe("Hello.")
    assert session.kinds() == []
    session.create_response()
    assert session.kinds() == ["ResponseCreated"]
    session.answer("Hi.")
    assert session.dialogue == [("user", "Hello."), ("assistant", "Hi.")]


def test_push_to_talk_without_speech_is_committed_too(call) -> None:
    session = call(turn_detection=None)
    session.listen(1_024)
    session.tell(CommitInput("commit", session.heard))
    assert session.ordered(CommitTurn) == [CommitTurn(session.turn_item, 0, session.heard)]


@pytest.mark.parametrize(("samples", "refused"), [(0, True), (1_599, True), (1_600, False)])
def test_a_commit_needs_100_ms(call, samples, refused) -> None:
    session = call(turn_detection=None)
    session.speak(320)
    session.tell(CommitInput("first", session.heard))
    session.notices()
    session.tell(CommitInput("second", session.heard + samples))
    if refused:
        (error,) = session.notices()
        assert (error.code, error.event_id) == ("input_audio_buffer_commit_empty", "second")
    else:
        assert session.kinds() == ["InputCommitted", "ItemAdded", "ItemDone"]


def test_push_to_talk_may_ask_before_the_transcript_is_there(call) -> None:
    session = call(turn_detection=None)
    session.speak(640)
    session.tell(CommitInput(None, session.heard))
    session.create_response(instructions="Answer in French.")
    session.transcribe("Hello.")
    (order,) = session.ordered(Respond)
    system, user = order.options.context
    assert (system.text, user.item_id) == ("Answer in French.", session.turn_item)
    assert user.text in (None, "Hello.")  # None: the engine waits for the transcript itself


def test_a_manual_session_is_not_interrupted_by_speech(call) -> None:
    session = call(turn_detection=None)
    session.write_item("Tell me a story.")
    session.create_response()
    session.say("Once upon a time there was a very long story.")
    session.notices()
    session.speak(960)
    assert session.kinds() == []


def test_a_commit_by_hand_with_vad_asks_for_no_answer(call) -> None:
    session = call()
    session.speak(640)
    session.notices()
    session.tell(CommitInput(None, session.heard))
    assert session.kinds() == ["InputSpeechStopped", "InputCommitted", "ItemAdded", "ItemDone"]
    session.hush(960)
    assert session.kinds() == []


# ------------------------------------------------------------------------------------------------ C: semantic VAD


def test_semantic_vad_ends_the_turn_by_its_score(call) -> None:
    session = call(turn_detection=SemanticVad())
    session.speak(960)
    session.hush(96)
    session.tell(EndOfTurnScore(session.heard, 0.99))
    session.listen(640)
    assert session.kinds() == TURN
    assert session.last(InputSpeechStarted).audio_start_ms == 0


def test_semantic_vad_waits_where_the_turn_sounds_open(call) -> None:
    session = call(turn_detection=SemanticVad())
    session.speak(960)
    session.hush(96)
    session.tell(EndOfTurnScore(session.heard, 0.02))
    session.listen(640)
    assert session.kinds() == ["InputSpeechStarted"]


# --------------------------------------------------------------------------------------------------- D: text


def test_text_in_text_out(call) -> None:
    session = call(output_audio=False)
    session.write_item("What is a tortoise?")
    assert session.kinds() == ["ItemAdded", "ItemDone"]
    session.create_response()
    assert session.kinds() == ["ResponseCreated"]
    session.text("A slow")
    session.text(" animal.")
    assert session.kinds() == [*BEGIN, "OutputTextDelta", "OutputTextDelta"]
    session.finish()
    assert session.kinds() == TEXT_END
    assert [delta.delta for delta in session.ordered(OutputTextDelta)] == ["A slow", " animal."]
    assert session.ordered(OpenPlayout) == []
    assert session.last(OutputItemDone).item.content == (ContentPart(PartKind.OUTPUT_TEXT, "A slow animal."),)


def test_text_in_speech_out(call) -> None:
    session = call()
    session.write_item("What is a tortoise?")
    session.create_response()
    session.answer()
    assert session.kinds() == ["ItemAdded", "ItemDone", "ResponseCreated", *BEGIN, "OutputTranscriptDelta", *END]


def test_the_request_overrides_the_session(call) -> None:
    session = call(voice="joe", max_output_tokens=100, tools=(WEATHER,), temperature=0.5)
    session.create_response(voice="amy", max_output_tokens="inf", tool_choice=ToolChoice("function", "get_weather"), temperature=0.1)
    options = session.last(Respond).options
    assert (options.voice, options.max_output_tokens, options.tool_choice, options.temperature) == ("amy", None, "get_weather", 0.1)
    assert (options.tools, options.context, options.rate) == ((WEATHER,), None, 24_000)


def test_instructions_of_a_request_replace_those_of_the_session(call) -> None:
    session = call(instructions="Be brief.")
    session.write_item("Hello.")
    session.create_response(instructions="Be long.")
    assert [message.text for message in session.last(Respond).options.context] == ["Be long.", "Hello."]


def test_the_words_leave_with_their_sound(call) -> None:
    session = call()
    session.sends = False
    session.write_item("Hello.")
    session.create_response()
    session.say("One two three four.")
    session.finish()
    session.notices()
    deltas = []
    for milliseconds in (100, 100, 350, 50, 200):
        session.send(milliseconds)
        deltas.append([notice.delta for notice in session.notices() if isinstance(notice, OutputTranscriptDelta)])
    assert deltas == [[], ["One "], ["two "], ["three "], ["four."]]
    assert session.last(OutputTranscriptDone).transcript == "One two three four."
    assert len(session.ordered(ResponseDone)) == 1


# ---------------------------------------------------------------------------- E: create_response, interrupt_response


def test_without_create_response_the_client_asks(call) -> None:
    session = call(turn_detection=ServerVad(create_response=False))
    session.ask()
    assert session.kinds() == TURN[:-1]
    session.create_response()
    session.answer()
    assert session.kinds() == ["ResponseCreated", *BEGIN, "OutputTranscriptDelta", *END]


def test_a_reply_that_is_not_to_be_interrupted_is_followed_by_the_answer(call) -> None:
    session = call(turn_detection=ServerVad(interrupt_response=False))
    session.ask()
    session.say("One two three")
    session.notices()
    session.ask("And a turtle?")
    assert session.kinds() == TURN[:-1]
    session.say(" four.")
    session.finish()
    assert session.kinds()[-1] == "ResponseCreated"
    assert session.last(SetHistory).messages[-1].text in ("And a turtle?", "One two three four.")
    session.answer("A swimmer.")
    assert [done.response.status for done in session.ordered(ResponseDone)] == [ResponseStatus.COMPLETED] * 2


# ----------------------------------------------------------------------------------------------- F: idle timeout


def test_idle_timeout(call) -> None:
    session = call(turn_detection=ServerVad(idle_timeout_ms=5_000))
    session.ask()
    assert session.conversation.deadline() is None
    session.answer()
    heard_by = session.now + 6 * 16_000 // 5
    session.listen(1_600)
    assert abs(session.conversation.deadline() - heard_by - 5 * 16_000) <= 16 * 32
    session.notices()
    session.listen(6_400)
    assert session.kinds()[:5] == ["InputTimeoutTriggered", "InputCommitted", "ItemAdded", "ItemDone", "ResponseCreated"]
    assert session.last(InputTimeoutTriggered).audio_start_ms == session.ordered(InputSpeechStopped)[-1].audio_end_ms
    assert session.last(Say).text == "Are you still there?"


def test_speech_stops_the_idle_timer(call) -> None:
    session = call(turn_detection=ServerVad(idle_timeout_ms=5_000))
    session.ask()
    session.answer()
    session.listen(3_200)
    session.speak(8_000)
    assert session.ordered(InputTimeoutTriggered) == []
    assert session.conversation.deadline() is None


# ------------------------------------------------------------------------------- G: a response while another runs


def test_a_second_response_is_refused_while_one_is_made(call) -> None:
    session = call()
    session.create_response()
    session.notices()
    session.create_response()
    (error,) = session.notices()
    assert (error.code, error.event_id) == ("conversation_already_has_active_response", "respond")
    session.answer("Hello.")
    assert len(session.ordered(ResponseDone)) == 1


def test_a_response_is_queued_while_only_sound_is_left(call) -> None:
    session = call()
    session.sends = False
    session.create_response()
    session.say("One two three four.")
    session.finish()
    session.send(400)
    session.notices()
    session.create_response(metadata=(("turn", "2"),))
    assert session.kinds() == []
    session.create_response()
    assert session.last(ErrorRaised).code == "conversation_already_has_active_response"
    session.notices()
    session.send()
    kinds = session.kinds()
    assert kinds == ["OutputTranscriptDelta", *END, "ResponseCreated"]
    assert session.last(ResponseCreated).response.metadata == (("turn", "2"),)
    assert len(session.ordered(Respond)) == 2
    assert session.dialogue == [("assistant", "One two three four.")]


def test_while_sound_plays_that_has_left_a_response_begins_at_once(call) -> None:
    session = call()
    session.create_response()
    session.answer("One two three four.")
    session.notices()
    session.create_response()
    assert session.kinds() == ["ResponseCreated"]


# -------------------------------------------------------------------------------------------- transcription session


def test_a_transcription_session_only_transcribes(call) -> None:
    session = call(kind=SessionKind.TRANSCRIPTION)
    session.speak(960)
    item = session.last(StartTurn).item_id
    session.tell(TranscriptDelta(item, "Hello", 0.9, "en"))
    session.hush(640)
    session.transcribe("Hello there.")
    kinds = session.kinds()
    assert [kind for kind in kinds if kind != "TranscriptionDelta"] == ["InputCommitted", "ItemAdded", "ItemDone", "TranscriptionCompleted"]
    session.create_response()
    assert session.kinds() == ["ErrorRaised"]


# -------------------------------------------------------------------------------------------------- function calls


def test_a_function_call_its_output_and_the_answer(call) -> None:
    session = call(tools=(WEATHER,), output_audio=False)
    session.write_item("How is the weather?")
    session.create_response()
    session.notices()
    session.tell(ToolCallReady(session.response_id, 0, "get_weather", '{"city": "Bern"}'))
    assert session.kinds() == CALL
    added, done = session.last(OutputItemAdded).item, session.last(OutputItemDone).item
    assert added == FunctionCall(done.id, done.call_id, "get_weather", "", ItemStatus.IN_PROGRESS)
    assert done == FunctionCall(added.id, added.call_id, "get_weather", '{"city": "Bern"}', ItemStatus.COMPLETED)
    assert session.last(ArgumentsDone).call_id == done.call_id
    assert done.call_id.startswith("call_")
    session.finish(FinishReason.TOOL_CALLS)
    assert session.kinds() == ["ResponseDone"]
    assert session.last(ResponseDone).response.output == (done,)
    session.tell(CreateItem(None, FunctionCallOutput("", done.call_id, "Rain"), None))
    assert session.kinds() == ["ItemAdded", "ItemDone"]
    session.create_response()
    told = [(message.role, message.text, message.name, message.call_id) for message in session.believed]
    assert told == [
        ("user", "How is the weather?", "", ""),
        ("tool_call", '{"city": "Bern"}', "get_weather", done.call_id),
        ("tool_result", "Rain", "get_weather", done.call_id),
    ]


def test_words_and_two_calls(call) -> None:
    session = call(tools=(WEATHER,))
    session.write_item("How is the weather in Bern and Basel?")
    session.create_response()
    session.say("Let me see.")
    for index, city in enumerate(("Bern", "Basel")):
        session.tell(ToolCallReady(session.response_id, index, "get_weather", city))
    session.tell(ToolCallReady(session.response_id, 1, "get_weather", "twice"))
    session.finish(FinishReason.TOOL_CALLS)
    added = session.ordered(OutputItemAdded)
    assert [notice.output_index for notice in added] == [0, 1, 2]
    output = session.last(ResponseDone).response.output
    assert [item.id for item in output] == [notice.item.id for notice in added]
    assert [item.arguments for item in output[1:]] == ["Bern", "Basel"]
    assert len({item.call_id for item in output[1:]}) == 2


def test_the_output_of_an_unknown_call_is_refused(call) -> None:
    session = call()
    session.tell(CreateItem("out", FunctionCallOutput("", "call_x", "Rain"), None))
    (error,) = session.notices()
    assert (error.event_id, error.kind) == ("out", "invalid_request_error")


def test_a_call_stays_whole_when_the_words_beside_it_are_cut(call) -> None:
    session = call(tools=(WEATHER,))
    session.write_item("How is the weather?")
    session.create_response()
    session.tell(ToolCallReady(session.response_id, 0, "get_weather", "{}"))
    session.say("Let me see what I can find for you there.")
    session.speak(320)
    message, tool_call = sorted(session.last(ResponseDone).response.output, key=lambda item: isinstance(item, FunctionCall))
    assert (message.status, tool_call.status) == (ItemStatus.INCOMPLETE, ItemStatus.COMPLETED)


# ------------------------------------------------------------------------------------------------------ out of band


def test_out_of_band_beside_the_conversation(call) -> None:
    session = call()
    session.write_item("Hello.", "item_a")
    session.create_response()
    mine = session.response_id
    session.create_response(in_conversation=False, output_audio=False, input=(ItemReference("item_a"),), metadata=(("topic", "x"),))
    beside = session.response_id
    assert beside != mine
    assert [message.text for message in session.last(Respond).options.context] == ["Hello."]
    session.notices()
    session.text("greeting", beside)
    session.finish(response_id=beside)
    in_conversation = ("ItemAdded", "ItemDone")
    assert session.kinds() == [kind for kind in (*BEGIN, "OutputTextDelta", *TEXT_END) if kind not in in_conversation]
    done = session.last(ResponseDone).response
    assert (done.id, done.conversation_id, done.metadata) == (beside, None, (("topic", "x"),))
    assert session.dialogue == [("user", "Hello.")]
    session.say("Hi.", mine)
    session.finish(response_id=mine)
    assert session.last(ResponseDone).response.id == mine


def test_out_of_band_with_an_empty_context(call) -> None:
    session = call(instructions="")
    session.write_item("Hello.")
    session.create_response(in_conversation=False, input=())
    assert session.last(Respond).options.context == ()


def test_out_of_band_survives_speech(call) -> None:
    session = call()
    session.create_response(in_conversation=False, input=())
    session.say("Something nobody should interrupt.")
    session.speak(640)
    assert session.ordered(ResponseDone) == []
    session.finish()
    assert session.last(ResponseDone).response.status is ResponseStatus.COMPLETED


def test_custom_context_within_the_conversation(call) -> None:
    session = call()
    session.write_item("Hello.")
    session.create_response(input=(Message("", "user", (ContentPart(PartKind.INPUT_TEXT, "Say yes."),)),))
    assert [message.text for message in session.last(Respond).options.context] == ["Say yes."]
    session.answer("Yes.")
    assert session.dialogue == [("user", "Hello."), ("assistant", "Yes.")]


def test_a_reference_to_no_item_is_refused(call) -> None:
    session = call()
    session.create_response(in_conversation=False, input=(ItemReference("none"),))
    assert session.kinds() == ["ErrorRaised"]


# ------------------------------------------------------------------------------------------------------- bad ends


def test_the_token_limit(call) -> None:
    session = call()
    session.create_response()
    session.say("A tortoise is")
    session.notices()
    session.finish(FinishReason.LENGTH)
    assert session.kinds() == END
    done = session.last(ResponseDone).response
    assert (done.status, done.reason) == (ResponseStatus.INCOMPLETE, "max_output_tokens")
    assert done.output[0].status is ItemStatus.INCOMPLETE


@pytest.mark.parametrize("words", ["", "A tortoise is"])
def test_a_response_that_fails_leaves_the_session_alive(call, words) -> None:
    session = call()
    session.create_response()
    if words:
        session.say(words)
    session.finish(FinishReason.ERROR, "out of memory")
    done = session.last(ResponseDone).response
    assert (done.status, done.error) == (ResponseStatus.FAILED, "out of memory")
    session.create_response()
    session.answer("Hello.")
    assert session.last(ResponseDone).response.status is ResponseStatus.COMPLETED


def test_an_engine_that_dies_ends_every_response_once(call) -> None:
    session = call(transcription=True)
    session.speak(320)
    session.hush(640)
    session.create_response(in_conversation=False, input=())
    session.say("Out of band.")
    session.tell(EngineFailed("exited with -9"))
    assert [done.response.status for done in session.ordered(ResponseDone)] == [ResponseStatus.FAILED] * 2
    assert all("exited with -9" in done.response.error for done in session.ordered(ResponseDone))
    assert session.last(ErrorRaised).kind == "server_error"
    for created in session.ordered(ResponseCreated):
        assert session.tell(ResponseFinished(created.response.id, FinishReason.STOP)) == []
    session.notices()
    session.write_item("Still there?")
    assert session.kinds() == ["ItemAdded", "ItemDone"]


def test_settings_are_plain_values() -> None:
    assert hash(SessionSettings()) == hash(SessionSettings())
