"""What a session begins with, by the request that begins it."""

from dataclasses import replace

from starlette.requests import HTTPConnection

from agent.settings import SessionSettings
from server.auth import EphemeralKeys, presented_key

__all__ = ["initial_settings"]


def initial_settings(request: HTTPConnection, ephemeral: EphemeralKeys, defaults: SessionSettings) -> SessionSettings:
    """The server's `defaults` or those of an ephemeral key, with the model that the address names."""
    key = presented_key(request)
    settings = (ephemeral.settings(key) if key else None) or defaults
    model = request.query_params.get("model") or request.query_params.get("deployment")
    return replace(settings, model=model[:128]) if model else settings
