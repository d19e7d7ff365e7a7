"""Which upstream the settings mean."""

import os
from pathlib import Path

import pytest

from server.config import ConfigError, ServerConfig, load_config
from server.upstream.chat_client import ChatOptions
from server.upstream.places import upstream_of
from server.upstream.service_session import ServiceUpstream

CHAT = {"chat_url": "http://localhost:11434/v1/", "chat_model": "llama3.2"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VIVAVOCE_"):
            monkeypatch.delenv(name)


async def options_of(config: ServerConfig) -> ChatOptions:
    upstream = upstream_of(config)
    assert upstream is not None
    await upstream.stop()
    return upstream._options


async def test_without_any_the_bundle_answers() -> None:
    assert upstream_of(load_config({})) is None


async def test_a_chat_endpoint() -> None:
    options = await options_of(load_config(CHAT))
    assert (options.url, options.model, options.key) == ("http://localhost:11434/v1", "llama3.2", "")


@pytest.mark.parametrize(
    ("url", "speculates"),
    [
        ("http://localhost:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.7:8000/v1", True),
        ("http://ollama:11434/v1", True),
        ("https://api.openai.com/v1", False),
        ("http://8.8.8.8/v1", False),
    ],
)
async def test_a_speculation_is_asked_for_where_it_costs_nothing(url: str, speculates: bool) -> None:
    assert (await options_of(load_config({**CHAT, "chat_url": url}))).speculates is speculates
    assert (await options_of(load_config({**CHAT, "chat_url": url, "chat_speculates": not speculates}))).speculates is not speculates


async def test_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("sk-in-a-file\n")
    assert (await options_of(load_config({**CHAT, "chat_key_file": file}))).key == "sk-in-a-file"
    monkeypatch.setenv("VIVAVOCE_CHAT_KEY", "sk-in-the-environment")
    config = load_config(CHAT)
    assert (await options_of(config)).key == "sk-in-the-environment"
    assert "sk-" not in repr(config) + repr(await options_of(config))


@pytest.mark.parametrize(
    ("flags", "url", "header"),
    [
        ({"upstream": "openai-realtime"}, "wss://api.openai.com/v1/realtime?model=gpt-realtime", {"Authorization": "Bearer k"}),
        (
            {"upstream": "openai-realtime", "upstream_url": "http://127.0.0.1:9/v1", "upstream_model": "pocket"},
            "ws://127.0.0.1:9/v1/realtime?model=pocket",
            {"Authorization": "Bearer k"},
        ),
        (
            {"upstream": "gemini-live", "upstream_model": "m"},
            "wss://generativelanguage.googleapis.com/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            {"x-goog-api-key": "k"},
        ),
    ],
)
def test_realtime_services(flags: dict[str, object], url: str, header: dict[str, str]) -> None:
    upstream = upstream_of(load_config({**flags, "upstream_key": "k"}))
    assert isinstance(upstream, ServiceUpstream)
    assert (upstream._address.url, dict(upstream._address.headers)) == (url, header)
    assert "'k'" not in repr(upstream._address)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"upstream": "gemini-live"}, "gemini-live needs upstream_model"),
        ({"upstream": "whisper"}, "the setting upstream is wrong"),
        ({"upstream_url": "ws://localhost/v1"}, "need upstream: openai-realtime or gemini-live"),
        ({**CHAT, "upstream": "openai-realtime"}, "either a chat endpoint answers or an upstream, not both"),
        ({"upstream": "openai-realtime", "upstream_key": "a", "upstream_key_file": "b"}, "give upstream_key or upstream_key_file"),
        ({"chat_url": "http://localhost/v1"}, "a chat endpoint needs both chat_url and chat_model"),
        ({**CHAT, "chat_url": "localhost:11434"}, "the setting chat_url is wrong: write scheme, host and path"),
        ({**CHAT, "chat_url": "http://sk-key@localhost/v1"}, "a key does not belong into an address"),
        ({**CHAT, "chat_key": "a", "chat_key_file": "b"}, "give chat_key or chat_key_file, not both"),
    ],
)
def test_mistakes(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(flags)


@pytest.mark.parametrize("text", ["", "# the key\nsk-x", "sk-ü"])
def test_a_file_that_holds_no_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="should hold one key and nothing else"):
        upstream_of(load_config({**CHAT, "chat_key_file": file}))
    with pytest.raises(ConfigError, match="cannot read the key"):
        upstream_of(load_config({**CHAT, "chat_key_file": tmp_path / "none"}))
