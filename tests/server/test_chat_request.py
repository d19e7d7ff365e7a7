"""Requests for chat completions as values, and the strings that end an answer."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings import SessionSettings
from server.chat.request import ChatRequest, read_chat
from server.chat.stopping import StopWords
from server.limits import Limits
from server.realtime.fields import BadField
from streaming.wav import wav_bytes

LIMITS = replace(Limits(), max_chat_seconds=40.0, max_items=6, max_items_bytes=200)


def clip(seconds: float, rate: int = 16_000) -> dict[str, object]:
    """An `input_audio` part."""
    tone = (np.sin(np.arange(int(seconds * rate)) / 9) * 9_000).astype(np.int16)
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav_bytes(tone, rate)).decode(), "format": "wav"}}


def read(messages: list[object], defaults: SessionSettings | None = None, **fields: object) -> ChatRequest:
    return read_chat(json.dumps({"model": "m", "messages": messages} | fields).encode(), defaults or SessionSettings(), LIMITS)


def user(*parts: object) -> dict[str, object]:
    return {"role": "user", "content": list(parts)}


def test_messages_in_order() -> None:
    request = read(
        [
            {"role": "system", "content": "Be brief."},
            user({"type": "text", "text": "What is this?"}, clip(0.5, 8_000)),
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": '{"at": 1}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a bell"},
        ]
    )
    told = [(one.role, one.text, one.name, one.call_id) for one in request.messages]
    assert told == [
        ("system", "Be brief.", "", ""),
        ("user", "What is this?", "", ""),
        ("user", None, "", ""),
        ("tool_call", '{"at": 1}', "look", "c1"),
        ("tool_result", "a bell", "look", "c1"),
    ]
    assert request.messages[0].item_id == ""
    (heard,) = request.heard
    assert heard.item_id == request.messages[2].item_id
    assert len(heard.pcm) == 8_000  # half a second, at 16 kHz now
    assert len({one.item_id for one in request.messages}) == 5


def test_long_sound_is_cut_where_it_is_quiet() -> None:
    part = clip(38.0)
    samples = np.frombuffer(base64.b64decode(part["input_audio"]["data"])[44:], "<i2").copy()  # type: ignore[index,call-overload]
    samples[25 * 16_000 : 25 * 16_000 + 3_200] = 0
    part["input_audio"] = {"data": base64.b64encode(wav_bytes(samples, 16_000)).decode()}
    first, second = read([user(part)]).heard
    assert len(first.pcm) == pytest.approx(25.1 * 16_000, abs=3_200)
    assert len(first.pcm) + len(second.pcm) == 38 * 16_000


def test_options() -> None:
    request = read(
        [user(clip(0.1))],
        max_tokens=7,
        temperature=0,
        seed=3,
        stream=True,
        stream_options={"include_usage": True},
        modalities=["text", "audio"],
        audio={"voice": "joe", "format": "pcm16"},
        tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        tool_choice={"type": "function", "function": {"name": "look"}},
        vivavoce={"transcripts": True},
    )
    options = request.options
    assert (options.audio, options.voice, options.max_output_tokens, options.temperature) == (True, "joe", 7, 0.0)
    assert ([tool.name for tool in options.tools], options.tool_choice) == (["look"], "look")
    assert (request.seed, request.stream, request.usage, request.sound) == (3, True, True, "pcm16")
    assert request.transcripts
    assert read([user({"type": "text", "text": "Hi"})], stop="\n").stops == ("\n",)
    assert read([user({"type": "text", "text": "Hi"})], max_completion_tokens=5, max_tokens=9).options.max_output_tokens == 5


def test_the_servers_agent_comes_first() -> None:
    agent = SessionSettings(agent="luigi", instructions="You are Luigi.", voice="joe", fixed_voice=True)
    request = read([{"role": "system", "content": "You are Mario."}], agent, modalities=["text", "audio"], audio={"voice": "ash"})
    assert [(one.text, one.item_id != "") for one in request.messages] == [("You are Luigi.", False), ("You are Mario.", True)]
    assert request.options.voice == "joe"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": None}, "messages", "Missing"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [user()] * 7}, "messages", "at most 6"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "Missing"),
        ({"messages": [{"role": "owner", "content": "x"}]}, "messages[0].role", "owner"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "Missing"),
        ({"messages": [user({"type": "image_url"})]}, "messages[0].content[0].type", "image_url"),
        ({"messages": [{"role": "system", "content": [clip(0.1)]}]}, "messages[0].content[0].type", "input_audio"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio", "transcript"),
        ({"messages": [user({"type": "text", "text": "x" * 201})]}, "messages[0].content[0].text", "at most 200"),
        ({"messages": [user(clip(30), clip(11))]}, "messages[0].content[1].input_audio.data", "at most 40 seconds"),
        ({"messages": [user(clip(0))]}, "messages[0].content[0].input_audio.data", "without a sample"),
        ({"n": 2}, "n", "must be 1"),
        ({"logprobs": True}, "logprobs", "false"),
        ({"response_format": {"type": "json_schema"}}, "response_format.type", "plain text"),
        ({"modalities": ["video"]}, "modalities", "audio"),
        ({"modalities": ["audio"]}, "audio", "Missing"),
        ({"modalities": ["audio"], "audio": {"format": "mp3"}}, "audio.format", "mp3"),
        ({"modalities": ["audio"], "audio": {"format": "wav"}, "stream": True}, "audio", "pcm16"),
        ({"modalities": ["audio"], "audio": {"format": "wav"}, "stop": "x"}, "stop", "spoken"),
        ({"max_tokens": 0}, "max_tokens", "from 1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": [""]}, "stop", "at most 4"),
        ({"stop": 5}, "stop", "a string or an array"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type", "retrieval"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "Missing"),
    ],
)
def test_what_is_refused(fields: dict[str, object], param: str, words: str) -> None:
    body = {"messages": [user({"type": "text", "text": "Hi"})]} | fields
    with pytest.raises(BadField, match=words) as caught:
        read_chat(json.dumps(body).encode(), SessionSettings(), LIMITS)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("audio", "param", "words"),
    [
        ({"data": "AAAA", "format": "mp3"}, "format", "'wav'"),
        ({"data": "§", "format": "wav"}, "data", "base64"),
        ({"data": base64.b64encode(b"ID3" + bytes(60)).decode(), "format": "wav"}, "data", "no WAV"),
        ({"format": "wav"}, "data", "Missing"),
    ],
)
def test_sound_that_is_refused(audio: dict[str, str], param: str, words: str) -> None:
    with pytest.raises(BadField, match=words) as caught:
        read([user({"type": "input_audio", "input_audio": audio})])
    assert caught.value.param == f"messages[0].content[0].input_audio.{param}"


@given(st.text("ab.", max_size=40), st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3), st.integers(1, 5))
def test_stops_are_found_however_the_text_is_cut(text: str, stops: list[str], size: int) -> None:
    words = StopWords(stops)
    told = "".join(words.push(text[start : start + size]) for start in range(0, len(text), size)) + words.flush()
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    # The stop that is complete first ends the answer; where text came in pieces that may be another than the first to begin.
    assert words.found == bool(places)
    assert told == text if not places else text.startswith(told)
    assert not any(stop in told for stop in stops)
