"""Who may speak to the server: keys, origins, and names that point at this machine."""

import logging

import pytest
from starlette.requests import HTTPConnection

from agent.settings import SessionSettings
from server.auth import AccessPolicy, EphemeralKeys, is_local, is_loopback_host


def request(
    headers: dict[str, str], subprotocols: list[str] | None = None, client: str = "127.0.0.1", scheme: str = "ws"
) -> HTTPConnection:
    return HTTPConnection(
        {
            "type": "websocket",
            "scheme": scheme,
            "path": "/v1/realtime",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": (client, 5000),
            "subprotocols": subprotocols or [],
        }
    )


def policy(keys: list[str] | None = None, origins: list[str] | None = None, now: float = 0.0) -> AccessPolicy:
    return AccessPolicy(keys or [], origins or [], EphemeralKeys(lambda: now))


def status(access: AccessPolicy, headers: dict[str, str], subprotocols: list[str] | None = None, scheme: str = "ws") -> int:
    refusal = access.refuses(request({"Host": "127.0.0.1:8080"} | headers, subprotocols, scheme=scheme))
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    ("headers", "subprotocols", "expected"),
    [
        ({}, [], 401),
        ({"Authorization": "Bearer right"}, [], 200),
        ({"Authorization": "bearer right"}, [], 200),
        ({"Authorization": "Bearer wrong"}, [], 401),
        ({"Authorization": "Bearer"}, [], 401),
        ({"Authorization": "Basic right"}, [], 401),
        ({"Authorization": "Bearer rightright"}, [], 401),
        ({"Authorization": "Bearer ünïcode"}, [], 401),
        ({"api-key": "also"}, [], 200),
        ({}, ["realtime", "openai-insecure-api-key.right"], 200),
        ({}, ["realtime", "openai-insecure-api-key.wrong"], 401),
        ({"Origin": "https://evil.example", "Authorization": "Bearer right"}, [], 200),
    ],
)
def test_with_keys_every_request_needs_one(headers: dict[str, str], subprotocols: list[str], expected: int) -> None:
    assert status(policy(["right", "also"]), headers, subprotocols) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Authorization": "Bearer anything"}, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "https://app.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "https://127.0.0.1:8080"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "rebound.evil.example:8080", "Origin": "http://rebound.evil.example:8080"}, 403),
        ({"Host": "rebound.evil.example:8080"}, 403),
        ({"Host": "[::"}, 403),
        ({"Host": ""}, 403),
    ],
)
def test_without_keys_only_this_machine_and_its_pages(headers: dict[str, str], expected: int) -> None:
    assert status(policy(origins=["https://App.example/"]), headers) == expected


def test_same_origin_over_tls() -> None:
    assert status(policy(), {"Origin": "https://127.0.0.1:8080"}, scheme="wss") == 200


def test_every_origin_can_be_allowed() -> None:
    assert status(policy(origins=["*"]), {"Origin": "https://any.example"}) == 200


def test_ephemeral_keys_work_until_they_expire() -> None:
    now = 100.0
    keys = EphemeralKeys(lambda: now)
    access = AccessPolicy(["right"], [], keys)
    key, expires_at = keys.make(60, SessionSettings(voice="ash"))
    assert (key[:3], expires_at) == ("ek_", 160)
    headers = {"Authorization": f"Bearer {key}"}
    assert status(access, headers) == 200
    settings = keys.settings(key)
    assert settings is not None
    assert settings.voice == "ash"
    refusal = access.refuses(request(headers), ephemeral=False)
    assert refusal is not None
    assert refusal.status == 401
    now = 161.0
    assert (status(access, headers), keys.settings(key)) == (401, None)


def test_ephemeral_keys_are_bounded() -> None:
    keys = EphemeralKeys(lambda: 0.0)
    first = keys.make(60, SessionSettings())[0]
    for _ in range(1_000):
        last = keys.make(60, SessionSettings())[0]
    assert keys.settings(first) is None
    assert keys.settings(last) is not None
    assert len(keys._keys) == 1_000


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("", False),
        ("localhost.evil", False),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    assert is_loopback_host(host) is expected


@pytest.mark.parametrize(
    ("headers", "client", "expected"),
    [
        ({"Host": "localhost"}, "127.0.0.1", True),
        ({"Host": "localhost"}, "10.0.0.1", False),
        ({"Host": "example.org"}, "127.0.0.1", False),
        ({"Host": "localhost", "X-Forwarded-For": "10.0.0.1"}, "127.0.0.1", False),
    ],
)
def test_local_means_not_through_a_proxy(headers: dict[str, str], client: str, expected: bool) -> None:
    assert is_local(request(headers, client=client)) is expected


def test_keys_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        status(policy(["right"]), {"Authorization": "Bearer wrong-secret"})
    assert "secret" not in caplog.text
