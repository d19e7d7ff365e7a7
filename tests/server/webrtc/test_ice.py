"""The way to the server, as its operator says it: addresses, ports, STUN and TURN servers, credentials."""

import pytest

from server.webrtc.ice import IceOptions, IceServer, TurnCredentials, parse_ports, parse_server

TURN = "turn:turn.example.org:3478?transport=udp"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("stun:stun.example.org", IceServer("stun", "stun.example.org", 3478, "udp")),
        ("stun:192.0.2.1:19302", IceServer("stun", "192.0.2.1", 19302, "udp")),
        ("stun:[2001:db8::1]:3479", IceServer("stun", "2001:db8::1", 3479, "udp")),
        ("turn:turn.example.org", IceServer("turn", "turn.example.org", 3478, "udp")),
        ("turn:turn.example.org:80?transport=tcp", IceServer("turn", "turn.example.org", 80, "tcp")),
        ("turns:turn.example.org", IceServer("turns", "turn.example.org", 5349, "tcp")),
        ("turns:turn.example.org:443?transport=tcp", IceServer("turns", "turn.example.org", 443, "tcp")),
    ],
)
def test_addresses_of_servers(url, server) -> None:
    assert parse_server(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "",
        "stun.example.org",
        "stun:",
        "stuns:stun.example.org",
        "stun:stun.example.org?transport=udp",
        "stun:2001:db8::1",
        "stun:host:70000",
        "stun:user@host",
        "turn:host/path",
        "turn:host?transport=sctp",
        "turns:host?transport=udp",
        "turn:a b",
        'turn:host";x="',
        "http://host",
    ],
)
def test_what_is_no_address_is_refused(url) -> None:
    with pytest.raises(ValueError, match=r"STUN or TURN server|TURN over TLS"):
        parse_server(url)


def test_ports() -> None:
    assert parse_ports("40000-40100") == (40_000, 40_100)
    assert parse_ports("40000 - 40000") == (40_000, 40_000)
    for text in ("", "40000", "40100-40000", "80-90", "1024-70000", "a-b", "-1-2000"):
        with pytest.raises(ValueError, match="no range of UDP ports"):
            parse_ports(text)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"public_addresses": ("example.org:8765",)}, "ports belong into udp_ports"),
        ({"public_addresses": ("https://example.org",)}, "neither an IP address nor a name"),
        ({"public_addresses": ("0.0.0.0",)}, "nobody is reached at"),
        ({"public_addresses": ("192.0.2.1",) * 9}, "at most 8"),
        ({"stun_servers": (TURN,)}, "does not begin with stun:"),
        ({"turn_servers": ("stun:stun.example.org",)}, "does not begin with turn: or turns:"),
        ({"stun_servers": ("stun:stun.example.org",) * 9}, "at most 8"),
        ({"relay_only": True}, "relay_only needs turn_servers"),
    ],
)
def test_mistakes_are_named(options, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        IceOptions(**options)


def test_credentials_expire_and_are_what_the_turn_server_computes() -> None:
    options = IceOptions(turn_servers=(TURN,), turn_username="me", turn_secret="shared", turn_seconds=600)
    made = options.credentials(1_700_000_000.9)
    assert made is not None
    assert (made.username, made.expires_at) == ("1700000600:me", 1_700_000_600)
    # printf 1700000600:me | openssl dgst -sha1 -hmac shared -binary | base64
    assert made.password == "xeEfCy9FP21HPo3/JUXubd90GbU="


def test_a_lasting_password_is_told_as_it_is() -> None:
    options = IceOptions(stun_servers=("stun:stun.example.org",), turn_servers=(TURN,), turn_username="me", turn_password="pass")
    assert options.credentials(0) == TurnCredentials("me", "pass")
    assert options.configuration(0) == {
        "iceServers": [{"urls": ["stun:stun.example.org"]}, {"urls": [TURN], "username": "me", "credential": "pass"}],
        "expires_at": None,
    }
    assert options.links(0) == [
        '<stun:stun.example.org>; rel="ice-server"',
        f'<{TURN}>; rel="ice-server"; username="me"; credential="pass"; credential-type="password"',
    ]


def test_credentials_do_not_outlive_the_key_they_were_told_for() -> None:
    options = IceOptions(turn_servers=(TURN,), turn_secret="shared", turn_seconds=600)
    assert options.configuration(1_000, until=1_060)["expires_at"] == 1_060
    assert options.configuration(1_000, until=9_999)["expires_at"] == 1_600
    assert '"1060:vivavoce"' in options.links(1_000, until=1_060)[0]


def test_no_password_breaks_a_header() -> None:
    (link,) = IceOptions(turn_servers=(TURN,), turn_password='a"b\\c').links(0)
    assert 'credential="a\\"b\\\\c";' in link


def test_without_servers_there_is_nothing_to_tell() -> None:
    assert IceOptions().configuration(0) == {"iceServers": [], "expires_at": None}
    assert IceOptions().links(0) == []


def test_secrets_are_not_shown() -> None:
    options = IceOptions(turn_servers=(TURN,), turn_secret="shared-secret", turn_password="lasting-password")
    shown = repr(options) + repr(options.credentials(0)) + repr(TurnCredentials("me", "lasting-password"))
    assert "shared-secret" not in shown
    assert "lasting-password" not in shown
    assert options.credentials(0).password not in shown
