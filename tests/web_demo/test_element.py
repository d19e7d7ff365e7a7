"""<vivavoce-call> on a site of somebody else: the example, at another origin, with a client secret that the site has got for it."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, Route, expect
from visit import ALLOW, PATIENCE_MS

from server.serve import ServeOptions
from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = pytest.mark.browser

EXAMPLE = (Path(__file__).parents[2] / "examples/embed.html").read_text()
SITE = "http://localhost:9000"
KEY = "right-key-1234567890"
QUESTION = "When are you open?"
ANSWER = "From ten to five."
# What Playwright answers counts as the internet, from where Chromium lets nobody call this machine.
LOCAL = "--disable-features=LocalNetworkAccessChecks"
LISTEN = """
window.told = [];
for (const kind of ["state", "words"]) addEventListener(`vivavoce-${kind}`, ({ detail }) => told.push(detail), true);
addEventListener("vivavoce-function", (event) => {
    event.preventDefault();
    event.detail.answer(`${event.detail.name} ${event.detail.arguments}: the second floor`);
}, true);
"""


async def open_site(page: Page, address: str, attributes: str = "") -> list[str]:
    """The example with the server's address in it; returns what the browser will complain of."""
    complaints: list[str] = []

    async def answer(route: Route) -> None:
        if route.request.url.endswith("/voice-token"):
            session = {"instructions": "You know the museum.", "tools": [{"type": "function", "name": "find_room", "parameters": {}}]}
            async with httpx.AsyncClient() as client:
                address_of_secrets, shown = f"{address}/v1/realtime/client_secrets", {"Authorization": f"Bearer {KEY}"}
                made = await client.post(address_of_secrets, headers=shown, json={"session": session})
            await route.fulfill(body=made.text, content_type="application/json")
        else:
            html = EXAMPLE.replace("http://127.0.0.1:8765", address).replace("<vivavoce-call ", f"<vivavoce-call {attributes} ")
            await route.fulfill(body=html, content_type="text/html")

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    await page.add_init_script(LISTEN)
    await page.route(f"{SITE}/**", answer)
    await page.goto(SITE)
    return complaints


@pytest.mark.parametrize("transport", ["auto", "websocket"])
async def test_a_call_from_another_site(transport: str, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, api_keys=(KEY,), allowed_origins=(SITE,))
    engine = ScriptedEngine([ScriptedReply("", (("find_room", '{"of":"coins"}'),)), ScriptedReply(ANSWER)], [QUESTION])
    async with serving(engine, options) as address, browsing(ALLOW, LOCAL, spoken(4.0, 1.5, 60.0)) as browser:
        page = await browser.new_page()
        complaints = await open_site(page, address, f'token-url="/voice-token" transport="{transport}"')
        await page.click("vivavoce-call .button")
        await expect(page.locator("vivavoce-call .agent")).to_have_text(ANSWER, timeout=PATIENCE_MS)
        await page.wait_for_function("told.filter(({ who }) => who).length === 2", timeout=PATIENCE_MS)
        await page.click("vivavoce-call .button")
        await expect(page.locator("vivavoce-call .button")).to_have_text("Ask the museum")
        told = await page.evaluate("told")
    assert [each["text"] for each in told if "who" in each] == [QUESTION, ANSWER]
    states = [each["state"] for each in told if "state" in each]
    assert states[:2] == ["off", "connecting"]
    assert {"listening", "hearing", "speaking"} <= set(states)
    assert states[-1] == "off"
    assert complaints == []
    assert engine.contexts[0][0].text.startswith("You answer for a small museum")
    assert engine.contexts[1][-1].text == 'find_room {"of":"coins"}: the second floor'


async def test_a_site_that_is_not_allowed_gets_nothing(serving: Callable, browsing: Callable) -> None:
    async with serving(ScriptedEngine()) as address, browsing(ALLOW, LOCAL) as browser:
        page = await browser.new_page()
        complaints = await open_site(page, address)
        assert await page.evaluate("customElements.get('vivavoce-call') === undefined")
    assert any("CORS" in complaint for complaint in complaints)


@pytest.mark.parametrize("given", [{"status": 500}, {"body": "{}"}], ids=["error", "no value"])
async def test_a_site_without_a_key_for_it_says_so(given: dict, serving: Callable, browsing: Callable, spoken: Callable) -> None:
    options = ServeOptions(port=0, drain_seconds=0.1, allowed_origins=(SITE,))
    async with serving(ScriptedEngine(), options) as address, browsing(ALLOW, LOCAL, spoken(60.0)) as browser:
        page = await browser.new_page()
        await open_site(page, address, 'token-url="/voice-token"')
        await page.route(f"{SITE}/voice-token", lambda route: route.fulfill(**given))
        await page.click("vivavoce-call .button")
        await expect(page.locator("vivavoce-call .problem")).to_contain_text("This site gave no key for it", timeout=PATIENCE_MS)


async def test_an_element_that_is_taken_away_hangs_up(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    """Also while its key is awaited: no microphone is left open."""
    options = ServeOptions(port=0, drain_seconds=0.1, allowed_origins=(SITE,))
    watch = """
        window.tracks = [];
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            const stream = await ask(wanted);
            tracks.push(...stream.getTracks());
            return stream;
        };
        const get = window.fetch;
        window.fetch = (where, ...how) => (String(where).endsWith("/voice-token") ? new Promise(() => {}) : get(where, ...how));
    """
    async with serving(ScriptedEngine(), options) as address, browsing(ALLOW, LOCAL, spoken(60.0)) as browser:
        page = await browser.new_page()
        await page.add_init_script(watch)
        await open_site(page, address, 'token-url="/voice-token"')
        await page.click("vivavoce-call .button")
        await page.wait_for_function("() => tracks.length === 1", timeout=PATIENCE_MS)
        await page.evaluate("document.querySelector('vivavoce-call').remove()")
        await page.wait_for_function("() => tracks.every(({ readyState }) => readyState === 'ended')", timeout=PATIENCE_MS)
