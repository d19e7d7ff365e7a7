"""What an operator says about the way to this server: the public address, the UDP ports, STUN and TURN servers. Pure.

Short-lived TURN credentials follow the convention that coturn calls `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user name is
`EXPIRY:USER`, with the unix second after which no relay is given for it, and the password its HMAC-SHA1 under a secret that both
servers share, in base64. Password and secret are in no message and no `repr`.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

__all__ = ["IceOptions", "IceServer", "TurnCredentials", "parse_ports", "parse_server"]

_MAX_SERVERS: Final = 8
"""Of each kind. A browser asks all of them for every call."""
_MAX_PUBLIC: Final = 8
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_PORTS: Final = {"stun": 3478, "turn": 3478, "turns": 5349}
"""Default ports (RFC 7064, RFC 7065)."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """One STUN or TURN server, read from its address. `transport` is how a TURN server is spoken to, "udp" or "tcp"."""

    scheme: str
    host: str
    port: int
    transport: str


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What a TURN server asks for. `expires_at` is the unix second from which on it is refused, None for one that lasts."""

    username: str
    password: str = field(repr=False)
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class IceOptions:
    """Checked when made: raises ValueError, naming the setting. `public_addresses` are addresses or names under which `ports` of this
    machine are reached from outside. `ports`: the first and the last UDP port for calls; None leaves the choice to the system. With
    `turn_secret` credentials are made for `turn_seconds`, else `turn_password` lasts."""

    public_addresses: tuple[str, ...] = ()
    ports: tuple[int, int] | None = None
    stun_servers: tuple[str, ...] = ()
    turn_servers: tuple[str, ...] = ()
    turn_username: str = "vivavoce"
    turn_password: str = field(default="", repr=False)
    turn_secret: str = field(default="", repr=False)
    turn_seconds: int = 3600
    relay_only: bool = False

    def __post_init__(self) -> None:
        for name, given, schemes in (
            ("stun_servers", self.stun_servers, ("stun",)),
            ("turn_servers", self.turn_servers, ("turn", "turns")),
        ):
            if len(given) > _MAX_SERVERS:
                raise ValueError(f"{name}: at most {_MAX_SERVERS}")
            for url in given:
                if parse_server(url).scheme not in schemes:
                    raise ValueError(f"{name}: {url!r} does not begin with {' or '.join(f'{scheme}:' for scheme in schemes)}")
        if len(self.public_addresses) > _MAX_PUBLIC:
            raise ValueError(f"public_addresses: at most {_MAX_PUBLIC}")
        for address in self.public_addresses:
            _check_public(address)
        if self.relay_only and not self.turn_servers:
            raise ValueError("relay_only needs turn_servers: without one there is no way to this server")

    def credentials(self, now: float, until: int | None = None) -> TurnCredentials | None:
        """What the TURN servers are told by who uses them from `now` (unix seconds) on, at most `until`; None without TURN servers."""
        if not self.turn_servers:
            return None
        if not self.turn_secret:
            return TurnCredentials(self.turn_username, self.turn_password)
        expires_at = min(int(now) + self.turn_seconds, until or 1 << 62)
        username = f"{expires_at}:{self.turn_username}"
        digest = hmac.new(self.turn_secret.encode(), username.encode(), hashlib.sha1).digest()
        return TurnCredentials(username, base64.b64encode(digest).decode(), expires_at)

    def configuration(self, now: float, until: int | None = None) -> dict[str, object]:
        """The browser's side of it: an `RTCConfiguration` with `iceServers`, and `expires_at` beside it, null where nothing expires."""
        credentials = self.credentials(now, until)
        servers: list[dict[str, object]] = [{"urls": list(self.stun_servers)}] if self.stun_servers else []
        if credentials is not None:
            servers.append({"urls": list(self.turn_servers), "username": credentials.username, "credential": credentials.password})
        return {"iceServers": servers, "expires_at": None if credentials is None else credentials.expires_at}

    def links(self, now: float, until: int | None = None) -> list[str]:
        """The same as `Link` headers of WHIP (RFC 9725 section 4.6)."""
        links = [f'<{url}>; rel="ice-server"' for url in self.stun_servers]
        if (credentials := self.credentials(now, until)) is not None:
            keys = f'username={_quoted(credentials.username)}; credential={_quoted(credentials.password)}; credential-type="password"'
            links += [f'<{url}>; rel="ice-server"; {keys}' for url in self.turn_servers]
        return links


def parse_server(url: str) -> IceServer:
    """`stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=udp|tcp]`, `turns:...` (TURN over TLS); an IPv6 address stands in brackets. Raises
    ValueError."""
    scheme, _, rest = url.partition(":")
    place, _, query = rest.partition("?")
    problem = f"{url!r} is no address of a STUN or TURN server: write stun:HOST:PORT, turn:HOST:PORT?transport=udp or turns:HOST:PORT"
    if scheme not in _PORTS or (query and (scheme == "stun" or query not in ("transport=udp", "transport=tcp"))):
        raise ValueError(problem)
    transport = query.removeprefix("transport=") or ("tcp" if scheme == "turns" else "udp")
    if scheme == "turns" and transport != "tcp":
        raise ValueError(f"{url!r}: TURN over TLS goes over TCP here, leave out the transport")
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(problem) from None
    if parts.username is not None or parts.path or not _is_host(host):
        raise ValueError(problem)
    return IceServer(scheme, host, port or _PORTS[scheme], transport)


def parse_ports(text: str) -> tuple[int, int]:
    """`40000-40100`. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text.replace(" ", ""))
    if match is None or not 1_024 <= int(match[1]) <= int(match[2]) <= 65_535:
        raise ValueError(f"{text!r} is no range of UDP ports: write the first and the last, like 40000-40100, from 1024 on")
    return int(match[1]), int(match[2])


def _quoted(text: str) -> str:
    """RFC 9110 section 5.6.4."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= 253 and _NAME.fullmatch(host) is not None
    return True


def _check_public(address: str) -> None:
    if not _is_host(address):
        raise ValueError(f"public_addresses: {address!r} is neither an IP address nor a name; ports belong into udp_ports")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return
    if parsed.is_unspecified or parsed.is_multicast:
        raise ValueError(f"public_addresses: nobody is reached at {address}")
