"""From settings to an upstream: which service, where, with which key. Only the operator says so, never a client."""

import ipaddress
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from server.auth import is_loopback_host
from server.config import ServerConfig, read_key
from server.upstream.chat_client import ChatOptions
from server.upstream.chat_session import ChatUpstream
from server.upstream.gemini_live import GeminiService, Setups, gemini_address
from server.upstream.link import Upstream
from server.upstream.openai_realtime import OpenAIService, openai_address
from server.upstream.service_session import ServiceUpstream

__all__ = ["upstream_of"]

_OPENAI: Final = "wss://api.openai.com/v1"
_OPENAI_MODEL: Final = "gpt-realtime"
_GEMINI: Final = "wss://generativelanguage.googleapis.com"


def upstream_of(config: ServerConfig) -> Upstream | None:
    """What answers instead of the bundle's language model; None where that does. Raises ConfigError."""
    key = read_key(config.upstream_key, config.upstream_key_file)
    if config.upstream == "openai-realtime":
        address = openai_address(config.upstream_url or _OPENAI, config.upstream_model or _OPENAI_MODEL, key)
        return ServiceUpstream(address, lambda: partial(OpenAIService, config.upstream_voice))
    if config.upstream == "gemini-live":
        model, voice = config.upstream_model or "", config.upstream_voice
        return ServiceUpstream(gemini_address(config.upstream_url or _GEMINI, key), lambda: partial(GeminiService, model, voice, Setups()))
    if config.chat_url is None or config.chat_model is None:
        return None
    speculates = _is_near(config.chat_url) if config.chat_speculates is None else config.chat_speculates
    return ChatUpstream(ChatOptions(config.chat_url, config.chat_model, read_key(config.chat_key, config.chat_key_file), speculates))


def _is_near(url: str) -> bool:
    """Whether the address is in this machine or a private network: what is asked there costs no money."""
    host = urlsplit(url).hostname or ""
    if is_loopback_host(host):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host  # a name that only a private network knows
