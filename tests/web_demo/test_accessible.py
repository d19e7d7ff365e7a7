"""What axe-core finds wrong with the page: nothing, in each of its states, sizes and appearances. And what it can't see: keys and focus."""

import json
from collections.abc import Callable

import pytest
from playwright.async_api import Page, expect
from visit import ALLOW, AXE, PATIENCE_MS, Visit, visit

from streaming.fakes import ScriptedEngine, ScriptedReply

pytestmark = [pytest.mark.browser, pytest.mark.clients]

DESK = {"width": 1_280, "height": 760}
PHONE = {"width": 390, "height": 844}
STILL = """() => document.getAnimations().every(
    (each) => each.playState !== "running" || each.effect.getTiming().iterations > 1
)"""
LONG_ANSWER = " ".join(f"This is sentence number {number} of a long story." for number in range(1, 21))


async def violations(page: Page) -> list[str]:
    """Each broken rule with the elements that break it. Animations are over first: a colour on its way counts for nothing."""
    await page.wait_for_function(
        "() => document.getAnimations().every(each => each.playState !== 'running' || each.effect.getTiming().iterations > 1)"
    )
    found = await page.evaluate("axe.run()")
    return [json.dumps([each["id"], [node["html"] for node in each["nodes"]]]) for each in found["violations"]]


async def interrupted_call(seen: Visit) -> None:
    """A question, an answer that is stopped, and another question that is being answered."""
    await seen.page.fill("#text", "Tell me a story.")
    await seen.page.keyboard.press("Enter")
    await expect(seen.page.locator(".entry[data-who=agent] .heard")).to_contain_text("sentence number 1", timeout=PATIENCE_MS)
    await seen.page.keyboard.press("Escape")
    await seen.settled(2)
    await seen.page.fill("#text", "Another one.")
    await seen.page.keyboard.press("Enter")
    await expect(seen.page.locator(".entry[data-who=agent]:last-child .heard")).to_contain_text("sentence", timeout=PATIENCE_MS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_no_rule_is_broken(size: dict, dark: bool, serving: Callable, browsing: Callable) -> None:
    engine = ScriptedEngine([ScriptedReply(LONG_ANSWER)] * 2, word_ms=150)
    async with serving(engine) as address, browsing("--deny-permission-prompts") as browser:
        scheme = "dark" if dark else "light"
        seen = await visit(browser, address, scripts=(AXE.read_text(),), viewport=size, color_scheme=scheme)
        assert await violations(seen.page) == []
        await interrupted_call(seen)
        await seen.page.click(".timing:visible >> nth=0", force=True)
        assert await violations(seen.page) == []
        await seen.page.click("#save")
        assert await violations(seen.page) == []
        await seen.page.keyboard.press("Escape")
        await seen.page.click("#open-settings")
        assert await violations(seen.page) == []
        await seen.page.click("#close-settings")
        await seen.page.click("#call")
        await seen.state("off")
        await seen.page.click("#call")
        await seen.problem("The microphone is blocked")
        assert await violations(seen.page) == []
        width = await seen.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"]


async def test_everything_can_be_done_from_the_keyboard(serving: Callable, browsing: Callable, spoken: Callable) -> None:
    async with serving(ScriptedEngine()) as address, browsing(ALLOW, spoken(60.0)) as browser:
        seen = await visit(browser, address)
        reached = []
        for _ in range(7):
            await seen.page.keyboard.press("Tab")
            reached.append(await seen.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert reached == ["theme", "save", "open-settings", "call", "scroll", "text", "Send"]
        await seen.page.focus("#call")
        await seen.page.keyboard.press("Enter")
        await seen.state("listening")
        await seen.page.keyboard.press("Alt+t")
        await seen.state("off")
        await seen.page.focus("#open-settings")
        await seen.page.keyboard.press("Enter")
        await expect(seen.page.locator("#settings")).to_be_visible()
        await seen.page.keyboard.press("Escape")
        await expect(seen.page.locator("#open-settings")).to_be_focused()
        await seen.page.focus("#theme")
        before = await seen.page.get_attribute("html", "data-theme")
        await seen.page.keyboard.press("Space")
        after = await seen.page.get_attribute("html", "data-theme")
        await seen.page.reload()
        assert {before, after} == {"light", "dark"}
        assert await seen.page.get_attribute("html", "data-theme") == after
