"""A visit to the page in a real browser, and everything it exchanged with the server, whichever way its call goes."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, Page, WebSocket, expect

__all__ = ["ALLOW", "AXE", "PATIENCE_MS", "Visit", "entries_of", "visit"]

ALLOW = "--use-fake-ui-for-media-stream"
PATIENCE_MS = 60_000
AXE = Path(__file__).parents[2] / ".clients/node/node_modules/axe-core/axe.min.js"

WATCH_CHANNELS = """
const create = RTCPeerConnection.prototype.createDataChannel;
RTCPeerConnection.prototype.createDataChannel = function (...given) {
    const channel = create.apply(this, given);
    const send = channel.send.bind(channel);
    channel.addEventListener("message", ({ data }) => noteEvent(false, data));
    channel.send = (data) => (noteEvent(true, data), send(data));
    window.peers = [...(window.peers ?? []), this];
    return channel;
};
"""


@dataclass
class Visit:
    """A page and what passed over its sockets and data channels."""

    page: Page
    sent: list[dict] = field(default_factory=list)
    received: list[dict] = field(default_factory=list)
    # What the browser complained about: errors, violations of the content security policy.
    complaints: list[str] = field(default_factory=list)
    # Addresses of everything that was asked for.
    requests: list[str] = field(default_factory=list)

    def watch(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda text: self.note(True, text))
        socket.on("framereceived", lambda text: self.note(False, text))

    def note(self, sent: bool, text: str) -> None:
        (self.sent if sent else self.received).append(json.loads(text))

    def of(self, kind: str, *, sent: bool = True) -> list[dict]:
        """The events of one type, in order."""
        return [event for event in (self.sent if sent else self.received) if event["type"] == kind]

    async def state(self, *names: str) -> None:
        """Waits until the page shows one of these states."""
        await self.page.wait_for_function(
            "names => names.includes(document.getElementById('layout').dataset.state)", arg=list(names), timeout=PATIENCE_MS
        )

    async def problem(self, title: str) -> None:
        await expect(self.page.locator("#problem-title")).to_have_text(title, timeout=PATIENCE_MS)
        await expect(self.page.locator("#problem")).to_be_visible()

    async def route(self, text: str) -> None:
        """Waits until the page says that its call goes this way."""
        await expect(self.page.locator("#route")).to_have_text(text, timeout=PATIENCE_MS)

    async def settled(self, count: int) -> list[tuple[str, str, str, str]]:
        """The entries, once so many are settled and none is not."""
        await self.page.wait_for_function(
            """count => document.querySelectorAll('.entry[data-settled="true"]').length === count &&
                        document.querySelectorAll('.entry').length === count""",
            arg=count,
            timeout=PATIENCE_MS,
        )
        return await entries_of(self.page)


async def entries_of(page: Page) -> list[tuple[str, str, str, str]]:
    """(who, what was heard of it, settled, cut) of every entry."""
    rows = await page.eval_on_selector_all(
        ".entry",
        """rows => rows.map(row => [
            row.dataset.who, row.querySelector('.heard').textContent.trim(), row.dataset.settled, row.dataset.cut
        ])""",
    )
    return [tuple(row) for row in rows]


async def visit(browser: Browser, address: str, *, scripts: tuple[str, ...] = (), **options: object) -> Visit:
    """Opens the page at `address`; `scripts` run in it before its own, `options` are those of Playwright's `new_page`."""
    page = await browser.new_page(**options)
    seen = Visit(page)
    page.on("websocket", seen.watch)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type in ("error", "warning") else None)
    await page.expose_function("noteEvent", seen.note)
    for script in (WATCH_CHANNELS, *scripts):
        await page.add_init_script(script)
    await page.goto(address)
    return seen
