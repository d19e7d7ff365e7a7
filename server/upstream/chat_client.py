"""One connection pool to a chat endpoint: asks for a reply, hands on what its stream says, lets go when the reader does.

Every wait has a bound. Before the first word a fault that may pass is tried again, twice, with a growing pause; after it never, because
the caller has heard the beginning.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import httpx2

from server.upstream.chat_wire import Delta, StreamReader, TokensUsed
from server.upstream.errors import UpstreamError
from server.upstream.server_sent import EventParser

__all__ = ["ChatClient", "ChatOptions"]

log = logging.getLogger(__name__)

_KEEP_SECONDS: Final = 300.0
"""How long a connection without a request is kept; servers close theirs earlier, which the pool notices."""
_COLD_SECONDS: Final = 20.0
"""A pool unused for longer is warmed when a caller begins to speak: proxies and load balancers close what is idle for 30 to 60 s."""
_REPLY_BYTES: Final = 16 << 20
"""What one reply may have on the wire, its envelopes included: hours of speech."""
_REFUSAL_BYTES: Final = 4_096
_END_SECONDS: Final = 1.0
"""How long the end of the HTTP answer may follow the end of the reply."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Where the language model is and how patient we are, in seconds. `speculates`: whether a reply is asked for at every pause that may be
    the end of the turn, which costs its tokens each time. After `apology` without a word the caller is told that it will take a moment."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    speculates: bool = False
    connect: float = 5.0
    first_word: float = 20.0
    next_word: float = 10.0
    apology: float = 3.0
    attempts: int = 3
    backoff: float = 0.25

    @property
    def limit_name(self) -> str:
        """What the limit of a reply's tokens is called: OpenAI's newer models refuse the old name, which all others know."""
        return "max_completion_tokens" if urlsplit(self.url).hostname == "api.openai.com" else "max_tokens"


class ChatClient:
    """Use on one event loop; `close` at the end."""

    def __init__(self, options: ChatOptions) -> None:
        self._options = options
        headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
        # No redirects: neither the key nor the conversation goes where the operator did not send it.
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=options.connect),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=_KEEP_SECONDS),
            follow_redirects=False,
        )
        self._used_at = float("-inf")

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.aclose()

    async def warm(self) -> None:
        """See to it that a connection is open, if none was used lately. Never fails: the request will say what is wrong."""
        now = asyncio.get_running_loop().time()
        if now - self._used_at < _COLD_SECONDS:
            return
        self._used_at = now
        try:
            async with asyncio.timeout(self._options.connect):
                await self._http.get(f"{self._options.url}/models")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            log.debug("the language model's server was not reached: %s", type(error).__name__)

    async def reply(self, body: bytes) -> AsyncGenerator[Delta, None]:
        """The deltas of one reply, the last a `ReplyEnded`. Closing the iterator closes the request. Raises UpstreamError."""
        options = self._options
        give_up = asyncio.get_running_loop().time() + options.first_word
        for attempt in range(1, options.attempts + 1):
            begun = False
            try:
                async with contextlib.aclosing(self._attempt(body, give_up)) as deltas:
                    async for delta in deltas:
                        begun = begun or not isinstance(delta, TokensUsed)
                        yield delta
                    return
            except UpstreamError as error:
                wait = max(error.wait, options.backoff * 2.0 ** (attempt - 1))
                late = asyncio.get_running_loop().time() + wait >= give_up
                if begun or not error.passing or late or attempt == options.attempts:
                    raise UpstreamError(f"the language model {options.model} failed: {error}") from error
                log.warning("the language model %s failed: %s; trying again in %.2f s", options.model, error, wait)
            await asyncio.sleep(wait)

    async def _attempt(self, body: bytes, give_up: float) -> AsyncGenerator[Delta, None]:
        """One request. `give_up` is when the first word is due, in the loop's time."""
        request = self._http.build_request(
            "POST", f"{self._options.url}/chat/completions", content=body, headers={"Content-Type": "application/json"}
        )
        try:
            async with asyncio.timeout_at(give_up):
                response = await self._http.send(request, stream=True)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise UpstreamError("it did not answer in time", passing=isinstance(error, httpx2.ConnectTimeout)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UpstreamError(f"it could not be reached ({type(error).__name__})", passing=True) from error
        self._used_at = asyncio.get_running_loop().time()
        try:
            if response.status_code != httpx2.codes.OK:
                raise await self._refusal(response, give_up)
            async with contextlib.aclosing(self._events(response, give_up)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            await response.aclose()

    async def _events(self, response: httpx2.Response, give_up: float) -> AsyncGenerator[Delta, None]:
        parser, reader = EventParser(), StreamReader()
        received = response.aiter_bytes()
        loop, size = asyncio.get_running_loop(), 0
        while not reader.closed:
            try:
                async with asyncio.timeout_at(give_up):
                    piece = await anext(received, None)
            except TimeoutError:
                raise UpstreamError("it fell silent") from None
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                raise UpstreamError(f"its connection broke ({type(error).__name__})", passing=True) from error
            if piece is None:
                break
            size += len(piece)
            if size > _REPLY_BYTES:
                raise UpstreamError("its reply does not end")
            for data in parser.push(piece):
                for delta in reader.push(data):
                    give_up = loop.time() + self._options.next_word  # what is no word does not count: bytes may drip for ever
                    yield delta
        yield reader.end()
        # The connection serves the next reply if this one has been read to its very end.
        with contextlib.suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError):
            async with asyncio.timeout(_END_SECONDS):
                while await anext(received, None) is not None:
                    pass

    async def _refusal(self, response: httpx2.Response, give_up: float) -> UpstreamError:
        """What a status other than 200 means. What the server says about it goes to the log, without the key."""
        said = b""
        try:
            async with asyncio.timeout_at(give_up):
                async for piece in response.aiter_bytes():
                    said += piece
                    if len(said) >= _REFUSAL_BYTES:
                        break
        except (TimeoutError, httpx2.HTTPError, httpx2.StreamError):
            pass  # the status says enough
        status, key = response.status_code, self._options.key
        text = said[:_REFUSAL_BYTES].decode(errors="replace")
        log.warning("the language model's server answered %d: %.300s", status, text.replace(key, "...") if key else text)
        reason = {401: "the key was refused", 403: "the key may not do that", 404: "there is no such model or address"}
        message = f"{reason.get(status, 'it refused')} (HTTP {status})"
        return UpstreamError(
            message, passing=status in (408, 409, 429) or status >= 500, wait=_seconds(response.headers.get("retry-after"))
        )


def _seconds(value: str | None) -> float:
    """`Retry-After` in seconds; a date counts as none."""
    return float(value) if value is not None and value.isdecimal() and len(value) < 6 else 0.0
