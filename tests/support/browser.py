"""A real headless Chromium on the room's page, driven as a person would: by what is written on things."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Error, Locator, Page, async_playwright, expect

from tests.support.needs import CHROMIUM

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
WAIT_MS = 10_000

expect.set_options(timeout=WAIT_MS)


@dataclass
class Visitor:
    """One person at one window."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    """What the browser complained about."""

    def watch(self) -> None:
        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.problems.append(message.text)

        def failed(error: Error) -> None:
            self.problems.append(str(error))

        self.page.on("console", heard)
        self.page.on("pageerror", failed)

    async def enter(self, token: str) -> None:
        await self.page.goto(self.url)
        await self.page.get_by_label("Your token").fill(token)
        await self.page.get_by_role("button", name="Enter").click()
        await self.is_live()

    async def is_live(self) -> None:
        """The page follows what happens."""
        await expect(self.page.locator("#room[data-live=yes]")).to_be_visible()

    async def say(self, words: str) -> None:
        composer = self.page.locator("#words")
        await composer.fill(words)
        await composer.press("Enter")
        await expect(composer).to_have_value("")

    def message(self, words: str) -> Locator:
        """The message that says so, the latest if there are several."""
        return self.page.locator("article.message").filter(has_text=words).last

    async def react(self, words: str, label: str) -> None:
        await self.message(words).get_by_role("button", name="React").click()
        await self.page.get_by_role("dialog").get_by_role("button", name=label, exact=True).click()

    async def press(self, card: str, button: str, reason: str = "") -> None:
        await self.message(card).get_by_role("button", name=button).click()
        if reason:
            dialog = self.page.get_by_role("dialog")
            await dialog.get_by_role("textbox").fill(reason)
            await dialog.get_by_role("button", name="Send").click()

    async def sees(self, words: str, within_ms: float = WAIT_MS) -> None:
        await expect(self.message(words)).to_be_visible(timeout=within_ms)

    async def serious_findings(self) -> list[str]:
        """What an automated accessibility check calls serious or critical."""
        result = await Axe().run(self.page)
        found: list[dict[str, Any]] = result.response["violations"]
        return [
            f"{each['id']} ({each['impact']}): {each['nodes'][0]['html'][:200]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]

    async def picture(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=file, animations="disabled", caret="hide")


@contextlib.asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # As root, and in containers, Chromium cannot set up its own sandbox.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def visit(browser: Browser, url: str, token: str = "", **how: Any) -> Visitor:
    """A window of its own, with cookies of its own. `how` is what Playwright's `new_context` takes."""
    context = await browser.new_context(**({"viewport": DESKTOP} | how))
    context.set_default_timeout(WAIT_MS)
    visitor = Visitor(await context.new_page(), url)
    visitor.watch()
    if token:
        await visitor.enter(token)
    return visitor
