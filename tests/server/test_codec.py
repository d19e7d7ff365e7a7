"""The codec against golden JSON of both dialects, and against every kind of mistake a client can make."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    ContentPartAdded,
    ContentPartDone,
    ErrorRaised,
    InputCleared,
    InputCommitted,
    InputSoundStarted,
    InputSoundStopped,
    InputSpeechStarted,
    InputSpeechStopped,
    InputTimeoutTriggered,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    Notify,
    OutputAudioDone,
    OutputCleared,
    OutputItemAdded,
    OutputItemDone,
    OutputStarted,
    OutputStopped,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    PartRef,
    ResponseCreated,
    ResponseDone,
    ResponseSnapshot,
    ResponseStatus,
    ServerArgumentsDelta,
    ServerArgumentsDone,
    ServerCallMoved,
    SessionCreated,
    SessionUpdated,
    ToolsListed,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    TurnHeard,
)
from agent.events import (
    CancelResponse,
    ClearInput,
    CommitInput,
    CreateItem,
    CreateResponse,
    DeleteItem,
    ItemReference,
    PlaybackReported,
    RefuseRequest,
    RetrieveItem,
    TruncateItem,
    UpdateSession,
)
from agent.items import (
    ApprovalRequest,
    ApprovalResponse,
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    ItemStatus,
    Message,
    PartKind,
    ServerCall,
    ToolList,
)
from agent.settings import (
    AudioEncoding,
    AudioFormat,
    Eagerness,
    Initiative,
    PlaybackOwner,
    SemanticVad,
    ServerTool,
    ServerVad,
    SessionKind,
    SessionSettings,
    ToolChoice,
    Transcription,
)
from agent.style import TurnStyle
from server.limits import Limits
from server.realtime.codec import Codec
from server.realtime.dialect import Dialect, handshake_dialect
from server.realtime.requests import AppendAudio, ClientMessage
from server.realtime.session_object import session_json
from streaming import echo_canceller
from streaming.events import SoundKind, ToolSpec, Usage

GOLDEN = Path(__file__).parent.parent / "golden"
PART = PartRef("resp_1", "item_2", 0, 0)
WEATHER = ToolSpec("get_weather", "Weather in a city", '{"type":"object","properties":{"city":{"type":"string"}}}')

RISKY = ServerTool(ToolSpec("pay", "", "{}"), "desk", needs_approval=True)


def codec(dialect: Dialect | None = Dialect.GA) -> Codec:
    return Codec("sess_1", dialect, Limits(), 1_800_000_000)


def read(message: object, settings: SessionSettings | None = None, at: int = 0) -> ClientMessage:
    text = message if isinstance(message, str | bytes) else json.dumps(message)
    return codec(None).read(text, settings or SessionSettings(), at)


def update(session: dict[str, object], settings: SessionSettings | None = None) -> SessionSettings:
    request = read({"type": "session.update", "session": session}, settings)
    assert isinstance(request, UpdateSession), request
    return request.settings


def snapshot(status: ResponseStatus, **changes: object) -> ResponseSnapshot:
    fields: dict[str, object] = {
        "id": "resp_1",
        "status": status,
        "output": (),
        "conversation_id": "conv_1",
        "output_audio": True,
        "output_format": AudioFormat(),
        "voice": "joe",
        "max_output_tokens": None,
        "temperature": 0.8,
        "metadata": None,
    }
    return ResponseSnapshot(**(fields | changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- golden JSON


def notices() -> list[Notify]:
    """One of every notice, in about the order of a session."""
    full = SessionSettings(
        instructions="Be brief.",
        transcription=Transcription("whisper-1", "en"),
        turn_detection=ServerVad(idle_timeout_ms=6000),
        noise_reduction="near_field",
        tools=(WEATHER,),
        tool_choice=ToolChoice("function", "get_weather"),
        max_output_tokens=512,
        output_format=AudioFormat(AudioEncoding.PCMU, 8_000),
        extras=(("tracing", '"auto"'),),
        wants_ledger=True,
    )
    heard = Message("item_1", "user", (ContentPart(PartKind.INPUT_AUDIO, None),))
    typed = Message(
        "item_0", "user", (ContentPart(PartKind.INPUT_TEXT, "Hi"), ContentPart(PartKind.INPUT_IMAGE, "data:image/png;base64,AA=="))
    )
    begun = Message("item_2", "assistant", (), ItemStatus.IN_PROGRESS)
    spoken = Message("item_2", "assistant", (ContentPart(PartKind.OUTPUT_AUDIO, "A tortoise is"),), ItemStatus.INCOMPLETE)
    written = Message("item_3", "assistant", (ContentPart(PartKind.OUTPUT_TEXT, "It is slow."),))
    call = FunctionCall("item_4", "call_1", "get_weather", '{"city": "Bern"}')
    answer = FunctionCallOutput("item_5", "call_1", "Rain")
    usage = Usage(40, 32, 25, 10)
    cancelled = snapshot(ResponseStatus.CANCELLED, output=(spoken,), reason="turn_detected", metadata=(("k", "v"),), usage=usage)
    return [
        SessionCreated("sess_1", SessionSettings()),
        SessionUpdated("sess_1", full),
        SessionUpdated("sess_1", SessionSettings(turn_detection=SemanticVad(Eagerness.HIGH, interrupt_response=False), output_audio=False)),
        SessionUpdated("sess_1", SessionSettings(kind=SessionKind.TRANSCRIPTION, turn_detection=None)),
        ItemAdded(typed, None),
        ItemDone(typed, None),
        InputSpeechStarted(120, "item_1"),
        TranscriptionDelta("item_1", "what is"),
        InputSpeechStopped(2420, "item_1"),
        InputCommitted("item_1", "item_0"),
        ItemAdded(heard, "item_0"),
        TranscriptionCompleted("item_1", "What is a tortoise?", 2.3),
        TranscriptionFailed("item_1", "out of memory"),
        InputTimeoutTriggered(0, 6000, "item_1"),
        InputCleared(),
        ResponseCreated(snapshot(ResponseStatus.IN_PROGRESS)),
        OutputItemAdded("resp_1", 0, begun),
        ContentPartAdded(PART, PartKind.OUTPUT_AUDIO),
        OutputTranscriptDelta(PART, "A tortoise"),
        OutputAudioDone(PART),
        OutputTranscriptDone(PART, "A tortoise is"),
        ContentPartDone(PART, PartKind.OUTPUT_AUDIO, "A tortoise is"),
        OutputItemDone("resp_1", 0, spoken),
        ResponseDone(cancelled),
        ContentPartAdded(PART, PartKind.OUTPUT_TEXT),
        OutputTextDelta(PART, "It is"),
        OutputTextDone(PART, "It is slow."),
        ContentPartDone(PART, PartKind.OUTPUT_TEXT, "It is slow."),
        OutputItemDone("resp_1", 0, written),
        ArgumentsDelta(PART, "call_1", '{"city": "Bern"}'),
        ArgumentsDone(PART, "call_1", "get_weather", '{"city": "Bern"}'),
        OutputItemDone("resp_1", 1, call),
        ItemAdded(answer, "item_4"),
        ResponseDone(snapshot(ResponseStatus.COMPLETED, output=(written, call), usage=usage)),
        ResponseDone(snapshot(ResponseStatus.INCOMPLETE, reason="max_output_tokens", max_output_tokens=4, conversation_id=None)),
        ResponseDone(snapshot(ResponseStatus.FAILED, error="the engine has died", output_audio=False)),
        ItemRetrieved(spoken),
        ItemTruncated("item_2", 0, 1500),
        ItemDeleted("item_2"),
        ErrorRaised("invalid_value", "No.", "session.speed", "evt_7"),
        ErrorRaised(None, "Ours.", kind="server_error"),
        SessionUpdated("sess_1", SessionSettings(agent="desk", shows_tools=True, server_tools=(ServerTool(WEATHER, "desk"), RISKY))),
        ItemAdded(ToolList("item_6", "desk", (WEATHER,)), None),
        ToolsListed("item_6", "in_progress"),
        ToolsListed("item_6", "completed"),
        ServerArgumentsDelta(PART, '{"city": "Bern"}'),
        ServerArgumentsDone(PART, '{"city": "Bern"}'),
        ServerCallMoved("item_7", 1, "in_progress"),
        ItemDone(ServerCall("item_7", "desk", "get_weather", '{"city": "Bern"}', output="Rain"), "item_6"),
        ItemDone(ServerCall("item_8", "desk", "pay", "{}", ItemStatus.INCOMPLETE, error="No city.", approval_id="item_9"), "item_7"),
        ItemDone(ApprovalRequest("item_9", "desk", "get_weather", "{}"), "item_8"),
        ItemDone(ApprovalResponse("item_10", "item_9", False, "Too late."), "item_9"),
        OutputStarted("resp_1"),
        OutputStopped("resp_1"),
        OutputCleared("resp_1"),
        InputSoundStarted(SoundKind.DOG, 480, 0.876),
        InputSoundStopped(SoundKind.DOG, 960),
        TurnHeard("item_1", (SoundKind.DOG, SoundKind.TRAFFIC), 0.876, 0.999, TurnStyle(2.8, 1, 640, ("um",))),
    ]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_notice_equals_its_golden_json(dialect: Dialect) -> None:
    translator = codec(dialect)
    lines = [text for notice in notices() if (text := translator.write(notice)) is not None]
    lines.append(translator.write_audio(PART, b"\x01\x02\x03\x04"))
    golden = (GOLDEN / f"realtime_{dialect.value}.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(line) for line in golden]


def test_golden_files_cover_every_notice() -> None:
    assert {type(notice) for notice in notices()} == set(Notify.__args__)


def test_event_ids_are_unique() -> None:
    translator = codec()
    ids = [json.loads(translator.write(InputCleared()) or "")["event_id"] for _ in range(100)]
    assert len(set(ids)) == 100


def test_a_lone_surrogate_in_a_reply_does_not_break_the_frame() -> None:
    text = codec().write(OutputTextDelta(PART, "\ud83d"))
    assert text is not None
    assert text.encode() == text.encode("ascii")


# ----------------------------------------------------------------------------------------------------------- dialects


@pytest.mark.parametrize(
    ("header", "subprotocols", "expected"),
    [
        ("realtime=v1", [], Dialect.BETA),
        ("", ["realtime", "openai-beta.realtime-v1"], Dialect.BETA),
        ("", ["realtime", "openai-insecure-api-key.k"], None),
        ("assistants=v2", [], None),
    ],
)
def test_the_handshake_implies_a_dialect(header: str, subprotocols: list[str], expected: Dialect | None) -> None:
    assert handshake_dialect(header, subprotocols) is expected


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({"modalities": ["text"], "voice": "alloy"}, Dialect.BETA),
        ({"turn_detection": None}, Dialect.BETA),
        ({"type": "realtime", "voice": "alloy"}, Dialect.GA),
        ({"audio": {"output": {"voice": "alloy"}}}, Dialect.GA),
        ({"instructions": "x"}, Dialect.GA),
    ],
)
def test_the_first_update_fixes_the_dialect(session: dict[str, object], expected: Dialect) -> None:
    translator = codec(None)
    translator.read(json.dumps({"type": "session.update", "session": session}), SessionSettings(), 0)
    assert translator.dialect is expected
    other = {"type": "realtime"} if expected is Dialect.BETA else {"modalities": ["text"]}
    translator.read(json.dumps({"type": "session.update", "session": other}), SessionSettings(), 0)
    assert translator.dialect is expected


def test_a_handshake_dialect_stays() -> None:
    translator = codec(Dialect.BETA)
    translator.read('{"type": "session.update", "session": {"type": "realtime"}}', SessionSettings(), 0)
    assert translator.dialect is Dialect.BETA


# ------------------------------------------------------------------------------------------------------------ updates


def test_an_empty_update_changes_nothing() -> None:
    settings = SessionSettings(instructions="Be brief.", tools=(WEATHER,), extras=(("tracing", '"auto"'),))
    assert update({"type": "realtime", "model": "gpt-realtime"}, settings) == settings


def test_both_spellings_mean_the_same() -> None:
    detection = {"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 200}
    ga: dict[str, object] = {
        "type": "realtime",
        "output_modalities": ["text"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "whisper-1"},
                "noise_reduction": {"type": "far_field"},
                "turn_detection": detection,
            },
            "output": {"format": {"type": "audio/pcma"}, "voice": "ash", "speed": 1.25},
        },
        "max_output_tokens": 100,
    }
    beta: dict[str, object] = {
        "modalities": ["text"],
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "input_audio_noise_reduction": {"type": "far_field"},
        "turn_detection": detection,
        "output_audio_format": "g711_alaw",
        "voice": "ash",
        "speed": 1.25,
        "max_response_output_tokens": 100,
    }
    expected = SessionSettings(
        output_audio=False,
        input_format=AudioFormat(AudioEncoding.PCMU, 8_000),
        output_format=AudioFormat(AudioEncoding.PCMA, 8_000),
        transcription=Transcription("whisper-1"),
        noise_reduction="far_field",
        turn_detection=ServerVad(threshold=0.7, silence_duration_ms=200),
        voice="ash",
        speed=1.25,
        max_output_tokens=100,
    )
    assert update(ga) == update(beta) == expected


def test_a_leaf_is_replaced_and_null_clears_it() -> None:
    settings = SessionSettings(turn_detection=ServerVad(threshold=0.9), transcription=Transcription("a", "de"), max_output_tokens=5)
    assert update({"turn_detection": {"type": "server_vad"}}, settings).turn_detection == ServerVad()
    assert update({"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}, settings).turn_detection == SemanticVad(Eagerness.LOW)
    assert update({"turn_detection": {"type": "none"}}, settings).turn_detection is None
    cleared = update({"audio": {"input": {"turn_detection": None, "transcription": None}}, "max_output_tokens": "inf"}, settings)
    assert (cleared.turn_detection, cleared.transcription, cleared.max_output_tokens) == (None, None, None)


def test_tools_and_choice() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "name": "get_weather", "description": "Weather in a city", "parameters": schema}
    settings = update({"tools": [tool], "tool_choice": {"type": "function", "name": "get_weather"}, "parallel_tool_calls": False})
    assert (settings.tools, settings.tool_choice, settings.parallel_tool_calls) == (
        (WEATHER,),
        ToolChoice("function", "get_weather"),
        False,
    )
    assert update({"tools": [], "tool_choice": "none"}, settings).tools == ()


def test_extras_are_echoed_and_cleared() -> None:
    settings = update({"tracing": {"workflow_name": "w"}, "truncation": "disabled"})
    assert settings.extras == (("tracing", '{"workflow_name":"w"}'), ("truncation", '"disabled"'))
    assert update({"tracing": None}, settings).extras == (("truncation", '"disabled"'),)


def test_extensions_are_opt_in() -> None:
    settings = update({"vivavoce": {"playback": True, "ledger": True}})
    assert (settings.playback, settings.wants_ledger) == (PlaybackOwner.ACKED, True)
    assert update({"vivavoce": {"ledger": False}}, settings).playback is PlaybackOwner.ACKED


def test_sounds_are_asked_for() -> None:
    settings = update({"vivavoce": {"sounds": True, "tell_sounds": True}})
    assert settings.wants_sounds
    assert settings.tells_sounds
    ours = session_json("s", settings, 0, Dialect.GA)["vivavoce"]
    assert isinstance(ours, dict)
    assert {name for name, value in ours.items() if value is True} == {"sounds", "tell_sounds", "speculation"}
    assert "vivavoce" not in session_json("s", SessionSettings(), 0, Dialect.GA)


def test_echo_cancellation_in_either_spelling(monkeypatch) -> None:
    monkeypatch.setattr(echo_canceller, "available", lambda: True)
    kind = {"type": "server_echo_cancellation"}
    ga, beta = update({"audio": {"input": {"echo_cancellation": kind}}}), update({"input_audio_echo_cancellation": kind})
    assert ga == beta == SessionSettings(echo_cancellation=True)
    assert not update({"input_audio_echo_cancellation": None}, ga).echo_cancellation
    told = session_json("s", ga, 0, Dialect.GA)["audio"]
    assert isinstance(told, dict)
    assert told["input"]["echo_cancellation"] == kind
    assert session_json("s", ga, 0, Dialect.BETA)["input_audio_echo_cancellation"] == kind
    assert "echo_cancellation" not in json.dumps(session_json("s", SessionSettings(), 0, Dialect.GA))


def test_echo_cancellation_that_is_not_installed_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(echo_canceller, "available", lambda: False)
    wire = {"audio": {"input": {"echo_cancellation": {"type": "server_echo_cancellation"}}}}
    refused = read({"type": "session.update", "session": {"type": "realtime", **wire}})
    assert isinstance(refused, RefuseRequest)
    assert refused.param == "session.audio.input.echo_cancellation"
    assert "vivavoce[echo]" in refused.message


def test_what_the_agent_says_by_itself() -> None:
    wire = {"greeting": "Hi.", "idle_prompts": ["Hello?"], "idle_ms": 8_000, "goodbye": "Bye.", "interjects": True}
    settings = update({"vivavoce": {"initiative": wire}})
    assert settings.initiative == Initiative("Hi.", ("Hello?",), 8_000, "Bye.", interjects=True)
    later = update({"vivavoce": {"initiative": {"idle_prompts": []}}}, settings)
    assert later.initiative == Initiative("Hi.", (), 8_000, "Bye.", interjects=True)
    assert update({"vivavoce": {"initiative": wire}}, SessionSettings(agent="desk")).initiative == Initiative()


@pytest.mark.parametrize("prompts", [[""], [3], ["Hello?"] * 17])
def test_idle_prompts_that_are_none(prompts: list[object]) -> None:
    refused = read({"type": "session.update", "session": {"type": "realtime", "vivavoce": {"initiative": {"idle_prompts": prompts}}}})
    assert isinstance(refused, RefuseRequest)
    assert refused.param == "session.vivavoce.initiative.idle_prompts"


def test_a_transcription_session_by_either_event() -> None:
    assert update({"type": "transcription"}).kind is SessionKind.TRANSCRIPTION
    request = read({"type": "transcription_session.update", "session": {"input_audio_format": "pcm16", "turn_detection": None}})
    assert isinstance(request, UpdateSession)
    assert (request.settings.kind, request.settings.turn_detection) == (SessionKind.TRANSCRIPTION, None)


def test_the_type_is_chosen_by_the_first_update_only() -> None:
    translator = codec(None)
    assert isinstance(translator.read('{"type": "session.update", "session": {"type": "realtime"}}', SessionSettings(), 0), UpdateSession)
    refused = translator.read('{"type": "session.update", "session": {"type": "transcription"}}', SessionSettings(), 0)
    assert isinstance(refused, RefuseRequest)
    assert (refused.code, refused.param) == ("invalid_value", "session.type")


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "chat"}, "invalid_value", "session.type"),
        ({"instructions": 5}, "invalid_type", "session.instructions"),
        ({"instructions": "x" * 100_000}, "invalid_value", "session.instructions"),
        ({"speed": 9}, "invalid_value", "session.speed"),
        ({"audio": {"output": {"speed": True}}}, "invalid_type", "session.audio.output.speed"),
        ({"audio": []}, "invalid_type", "session.audio"),
        ({"audio": {"input": {"format": {"type": "audio/mp3"}}}}, "invalid_value", "session.audio.input.format.type"),
        ({"audio": {"input": {"format": {"rate": 24000}}}}, "missing_required_parameter", "session.audio.input.format.type"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 7}}}}, "invalid_value", "session.audio.input.format.rate"),
        ({"audio": {"output": {"format": {"type": "audio/pcmu", "rate": 16000}}}}, "invalid_value", "session.audio.output.format.rate"),
        ({"input_audio_format": "mp3"}, "invalid_value", "session.input_audio_format"),
        ({"turn_detection": {"type": "psychic"}}, "invalid_value", "session.turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 2}}, "invalid_value", "session.turn_detection.threshold"),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 0.5}},
            "invalid_type",
            "session.turn_detection.silence_duration_ms",
        ),
        ({"turn_detection": {"type": "semantic_vad", "eagerness": "very"}}, "invalid_value", "session.turn_detection.eagerness"),
        ({"output_modalities": ["video"]}, "invalid_value", "session.output_modalities"),
        ({"output_modalities": []}, "invalid_value", "session.output_modalities"),
        ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
        ({"max_output_tokens": "many"}, "invalid_type", "session.max_output_tokens"),
        ({"tools": {}}, "invalid_type", "session.tools"),
        ({"tools": [5]}, "invalid_type", "session.tools[0]"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "invalid_value", "session.tools[0].server_label"),
        (
            {"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1"}]},
            "invalid_value",
            "session.tools[0].server_url",
        ),
        ({"tools": [{"type": "web_search", "name": "x"}]}, "invalid_value", "session.tools[0].type"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "session.tools[0].name"),
        ({"tools": [{"name": "f"}] * 129}, "invalid_value", "session.tools"),
        ({"tools": [{"name": "f", "description": "x" * 300_000}]}, "invalid_value", "session.tools"),
        ({"tool_choice": "maybe"}, "invalid_value", "session.tool_choice"),
        ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "session.tool_choice.name"),
        ({"tracing": "x" * 10_000}, "invalid_value", "session.tracing"),
    ],
)
def test_a_bad_update_names_the_field(session: dict[str, object], code: str, param: str) -> None:
    request = read({"type": "session.update", "event_id": "e1", "session": session})
    assert isinstance(request, RefuseRequest)
    assert (request.code, request.param, request.event_id) == (code, param, "e1")


# ----------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "input_audio_buffer.append", "audio": "AAEC"}, AppendAudio(None, b"\x00\x01\x02")),
        ({"type": "input_audio_buffer.append", "audio": ""}, AppendAudio(None, b"")),
        ({"type": "input_audio_buffer.commit", "event_id": "e"}, CommitInput("e", 4800)),
        ({"type": "input_audio_buffer.clear"}, ClearInput(None, 4800)),
        ({"type": "conversation.item.retrieve", "item_id": "i"}, RetrieveItem(None, "i")),
        ({"type": "conversation.item.delete", "item_id": "i"}, DeleteItem(None, "i")),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1500.7},
            TruncateItem(None, "i", 0, 1500),
        ),
        ({"type": "response.cancel", "event_id": "e", "response_id": "r"}, CancelResponse("e", "r")),
        ({"type": "response.create"}, CreateResponse(None)),
        (
            {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "Rain"}},
            CreateItem(None, FunctionCallOutput("", "c", "Rain"), None),
        ),
        (
            {
                "type": "conversation.item.create",
                "previous_item_id": "root",
                "item": {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
            },
            CreateItem(None, Message("m", "assistant", (ContentPart(PartKind.OUTPUT_TEXT, "Hi"),)), "root"),
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "unknown": [1]},
            },
            CreateItem(None, FunctionCall("", "c", "f", "{}"), None),
        ),
    ],
)
def test_requests(message: dict[str, object], expected: ClientMessage) -> None:
    assert read(message, at=4800) == expected


def test_json_in_a_binary_frame_is_accepted() -> None:
    assert read(b'{"type": "input_audio_buffer.commit"}') == CommitInput(None, 0)


def test_a_response_with_every_field() -> None:
    request = read(
        {
            "type": "response.create",
            "response": {
                "conversation": "none",
                "input": [
                    {"type": "item_reference", "id": "item_1"},
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                ],
                "instructions": "Be brief.",
                "output_modalities": ["text"],
                "audio": {"output": {"voice": {"id": "ash"}, "format": {"type": "audio/pcmu"}}},
                "tools": [],
                "tool_choice": "required",
                "max_output_tokens": "inf",
                "temperature": 0.5,
                "metadata": {"client_event_id": "x"},
            },
        }
    )
    assert request == CreateResponse(
        None,
        in_conversation=False,
        input=(ItemReference("item_1"), Message("", "user", (ContentPart(PartKind.INPUT_TEXT, "Hi"),))),
        instructions="Be brief.",
        output_audio=False,
        output_format=AudioFormat(AudioEncoding.PCMU, 8_000),
        voice="ash",
        tools=(),
        tool_choice=ToolChoice("required"),
        max_output_tokens="inf",
        temperature=0.5,
        metadata=(("client_event_id", "x"),),
    )


def test_playback_is_read_only_when_turned_on() -> None:
    message = {"type": "vivavoce.playback", "response_id": "resp_1", "played_ms": 300}
    refused = read(message)
    assert isinstance(refused, RefuseRequest)
    assert refused.code == "invalid_event"
    assert read(message, SessionSettings(playback=PlaybackOwner.ACKED)) == PlaybackReported(None, "resp_1", 300)


USER: dict[str, object] = {"type": "message", "role": "user"}


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_event", None),
        ("", "invalid_event", None),
        (b"\xff\xfe\x00", "invalid_event", None),
        ("[" * 100_000, "invalid_event", None),
        ("[]", "invalid_event", None),
        ('{"type": "x", "a": [' + "1," * 300_000 + "1]}", "invalid_event", None),
        ('"text"', "invalid_event", None),
        ('{"type": "response.create", "response": {"temperature": NaN}}', "invalid_event", None),
        ('{"type": "\\ud800"}', "invalid_event", None),
        ("{}", "invalid_event", "type"),
        ({"type": 5}, "invalid_type", "type"),
        ({"type": "no.such.event"}, "invalid_event", "type"),
        ({"type": "output_audio_buffer.clear"}, "invalid_event", "type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": 5}, "invalid_type", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "A"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AA=A"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AA-_"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA\n"}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "üüüü"}, "invalid_value", "audio"),
        ({"type": "conversation.item.retrieve"}, "missing_required_parameter", "item_id"),
        ({"type": "conversation.item.truncate", "item_id": "i"}, "missing_required_parameter", "audio_end_ms"),
        ({"type": "conversation.item.truncate", "item_id": "i", "audio_end_ms": -1}, "invalid_value", "audio_end_ms"),
        ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
        ({"type": "conversation.item.create", "item": {}}, "missing_required_parameter", "item.type"),
        ({"type": "conversation.item.create", "item": {"type": "mcp_call"}}, "invalid_value", "item.type"),
        ({"type": "conversation.item.create", "item": USER}, "missing_required_parameter", "item.content"),
        ({"type": "conversation.item.create", "item": USER | {"id": "x" * 200, "content": []}}, "invalid_value", "item.id"),
        ({"type": "conversation.item.create", "item": {"type": "message", "content": []}}, "missing_required_parameter", "item.role"),
        ({"type": "conversation.item.create", "item": USER | {"content": [{"type": "video"}]}}, "invalid_value", "item.content[0].type"),
        (
            {"type": "conversation.item.create", "item": USER | {"content": [{"type": "input_text", "text": "x" * 100_000}]}},
            "invalid_value",
            "item.content[0].text",
        ),
        (
            {"type": "conversation.item.create", "item": USER | {"content": [{"type": "input_audio", "audio": "AAAA"}]}},
            "invalid_value",
            "item.content[0].transcript",
        ),
        (
            {"type": "conversation.item.create", "item": USER | {"content": [{"type": "input_image", "image_url": "http://x"}]}},
            "invalid_value",
            "item.content[0].image_url",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": {"a": 1}}},
            "invalid_type",
            "item.output",
        ),
        ({"type": "response.create", "response": []}, "invalid_type", "response"),
        ({"type": "response.create", "response": {"conversation": "new"}}, "invalid_value", "response.conversation"),
        ({"type": "response.create", "response": {"metadata": {"k": 5}}}, "invalid_type", "response.metadata.k"),
        ({"type": "response.create", "response": {"metadata": {str(n): "" for n in range(17)}}}, "invalid_value", "response.metadata"),
        ({"type": "response.create", "response": {"metadata": {"k": "v" * 513}}}, "invalid_value", "response.metadata.k"),
        (
            {"type": "response.create", "response": {"input": [{"type": "item_reference"}]}},
            "missing_required_parameter",
            "response.input[0].id",
        ),
    ],
)
def test_a_bad_message_is_refused_with_its_code(message: object, code: str, param: str | None) -> None:
    request = read(message)
    assert isinstance(request, RefuseRequest)
    assert (request.code, request.param) == (code, param)


@given(st.binary(max_size=200))
def test_any_bytes_survive_an_append(audio: bytes) -> None:
    assert read({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}) == AppendAudio(None, audio)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["session.update", "conversation.item.create", "response.create", "conversation.item.truncate", "vivavoce.playback"]
)
KEYS = st.sampled_from(["session", "item", "response", "item_id", "audio_end_ms", "event_id"])
INNER = st.sampled_from(
    ["type", "audio", "tools", "turn_detection", "role", "content", "input", "metadata", "voice", "tool_choice", "speed"]
)


@settings(max_examples=300, deadline=None)
@given(KINDS, st.dictionaries(KEYS, st.dictionaries(INNER, JSON, max_size=4) | JSON, max_size=4))
def test_no_message_raises(kind: str, rest: dict[str, object]) -> None:
    read({"type": kind} | rest)
