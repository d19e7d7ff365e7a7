"""The body of an HTTP request, bounded."""

from starlette.requests import Request

__all__ = ["bounded_body"]


async def bounded_body(request: Request, most: int) -> bytes | None:
    """The whole body; None if it has more than `most` bytes, read no further. Raises ClientDisconnect."""
    if int(length if (length := request.headers.get("content-length", "0")).isdecimal() else 0) > most:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)
