"""Asks a TURN server for two relays and sends packets between them."""

import asyncio
import contextlib
import socket
import ssl
from typing import Final

from aioice import stun
from aioice.turn import TurnTransport, create_turn_endpoint

from server.doctor.finding import Finding, aside, failed, passed
from server.webrtc.ice import IceServer, TurnCredentials, parse_server

__all__ = ["check_relay"]

_AGAIN_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 1.0
_MESSAGE: Final = b"vivavoce"
_REFUSED: Final = (401, 403, 431, 441)
"""STUN's error codes for credentials that are not right (RFC 8656 section 19)."""


class _Relay(asyncio.DatagramProtocol):
    """One end: notes that the message has come, and that the relay is gone."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.gone = asyncio.Event()

    def datagram_received(self, data: bytes, _address: object) -> None:
        if data == _MESSAGE:
            self.heard.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self.gone.set()


async def check_relay(url: str, credentials: TurnCredentials, seconds: float) -> Finding:
    """One TURN server, within `seconds`."""
    server = parse_server(url)
    relays: list[tuple[TurnTransport, _Relay]] = []
    try:
        async with asyncio.timeout(seconds):
            await aside(lambda: socket.getaddrinfo(server.host, server.port))
            for _ in range(2):
                relays += [await _allocate(server, credentials)]
            place = relays[0][0].get_extra_info("sockname")
            await _exchange(relays)
        return passed("TURN", f"{url} relays packets at {place[0]}")
    except TimeoutError:
        if len(relays) == 2:
            advice = "are its relay ports open, and is its own address none of the denied ones (coturn's denied-peer-ip)?"
            return failed("TURN", f"{url} gives relays, but no packet comes from one to the other", advice)
        return failed("TURN", f"{url} does not answer within {seconds:.0f} s", "is it running, and are its ports open?")
    except ssl.SSLError as error:
        return failed("TURN", f"{url}: {error.reason or error}", "its certificate has to be valid for this name")
    except socket.gaierror:
        return failed("TURN", f"the name in {url} can't be resolved", "correct it")
    except (OSError, stun.TransactionError) as error:
        return _refusal(url, error)
    finally:
        await _close(relays)


def _refusal(url: str, error: Exception) -> Finding:
    code = error.response.error_code if isinstance(error, stun.TransactionError) and error.response is not None else 0
    if code in _REFUSED:
        advice = "turn_secret has to be its static-auth-secret (or turn_username and turn_password a user of it), and both clocks right"
        return failed("TURN", f"{url} refuses the credentials ({code})", advice)
    return failed("TURN", f"{url} gives no relay: {str(error) or type(error).__name__}", "is it running, and are its ports open?")


async def _allocate(server: IceServer, credentials: TurnCredentials) -> tuple[TurnTransport, _Relay]:
    return await create_turn_endpoint(
        _Relay,
        (server.host, server.port),
        credentials.username,
        credentials.password,
        ssl=server.scheme == "turns",
        transport=server.transport,
    )


async def _exchange(relays: list[tuple[TurnTransport, _Relay]]) -> None:
    """Returns when both have heard the other: each lets in only whom it has sent to (RFC 8656 section 9)."""
    (one, first), (other, second) = relays
    while not (first.heard.is_set() and second.heard.is_set()):
        one.sendto(_MESSAGE, other.get_extra_info("sockname"))
        other.sendto(_MESSAGE, one.get_extra_info("sockname"))
        await asyncio.sleep(_AGAIN_SECONDS)


async def _close(relays: list[tuple[TurnTransport, _Relay]]) -> None:
    """Give them back."""
    for transport, _ in relays:
        transport.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            for _, relay in relays:
                await relay.gone.wait()
