"""The room's pages for everybody: by keyboard alone, without a script, on a phone, for whoever does not see them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from bot import cards
from bot.chat import Pressed, Reacted, Said
from bot.picture import picture
from core.model.run import RunState
from core.store import swaps
from tests.support import reports
from tests.support.browser import PHONE, a_browser, visit
from tests.support.needs import needs_chromium
from tests.support.rooms import DESK, House, a_room, heard
from tests.support.stored import version
from tests.support.told_run import told_run

pytestmark = needs_chromium


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


async def test_the_keyboard_alone_suffices(house: House, browser: Browser) -> None:
    await house.say("Refunded 17.", agent="desk")
    page = (visitor := await visit(browser, house.url)).page
    await page.goto(house.url)
    await page.keyboard.type(await house.token("anna"))  # the field has the focus
    await page.keyboard.press("Enter")
    await visitor.is_live()

    async def tab_to(name: str) -> None:
        for _ in range(40):
            await page.keyboard.press("Tab")
            focused = page.locator(":focus")
            if await focused.count() and name in (await focused.inner_text()).strip().split("\n")[0]:
                outline = await focused.evaluate("element => getComputedStyle(element).outlineStyle")
                assert outline != "none", "whoever uses the keyboard sees where they are"
                return
        raise AssertionError(name)

    await page.keyboard.press("Tab")
    await expect(page.locator(":focus")).to_have_text("Skip to the content")
    await page.keyboard.press("Enter")
    await tab_to("React")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Enter")  # the first flag
    await heard(house, Reacted)
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator(":focus")).to_have_text("React")
    await page.locator("#words").focus()
    await page.keyboard.type("two lines")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("one message")
    await page.keyboard.press("Enter")
    (event,) = await heard(house, Said)
    assert event.text == "two lines\none message"
    assert visitor.problems == []


async def test_pages_are_read_without_a_script(house: House, browser: Browser) -> None:
    await house.say("Refunded 17.", agent="desk")
    run = await told_run(house.store, house.settings.data)
    visitor = await visit(browser, house.url, java_script_enabled=False)
    await visitor.page.goto(house.url)
    await visitor.page.get_by_label("Your token").fill(await house.token("anna"))
    await visitor.page.get_by_role("button", name="Enter").click()
    await visitor.sees("Refunded 17.")
    await expect(visitor.page.locator("#words")).to_be_hidden()
    await expect(visitor.page.get_by_text("Reading works without JavaScript")).to_be_visible()
    await visitor.page.goto(f"{house.url}/runs/{run}")
    await visitor.page.get_by_role("link", name="Diff").click()
    await expect(visitor.page.get_by_text("return first_of(records)")).to_be_visible()


@pytest.mark.parametrize("look", ["light", "dark"])
async def test_an_accessibility_check_finds_nothing_serious(house: House, browser: Browser, look: str) -> None:
    run = await told_run(house.store, house.settings.data)
    async with house.store.changing("desk") as change:
        await swaps.add_version(change, version(0))
    report = reports.report(RunState.awaiting_consent)
    assert report.matrices
    asked = await house.say("Which tickets are late?", agent="desk")
    await house.say(cards.run(report, await picture(*report.matrices), house.room.page(run)), key=f"run:{run}")
    await house.room.chat.whisper(DESK, "anna", cards.status([reports.standing()]), "", "w-1")
    visitor = await visit(browser, house.url, color_scheme=look)
    await visitor.page.goto(house.url)
    assert await visitor.serious_findings() == []
    await visitor.enter(await house.token("anna"))
    await visitor.react("Which tickets are late?", "flag: wrong answer")
    await visitor.say("What a picture!")
    await visitor.sees("What a picture!")
    await house.room.chat.working(DESK, asked, True)
    await expect(visitor.page.get_by_text("The agent is answering")).to_be_visible()
    assert await visitor.serious_findings() == []
    await visitor.message("What a picture!").get_by_role("button", name="React").click()
    assert await visitor.serious_findings() == []
    paths = [f"/c/desk/{asked}", "/batches", "/history", f"/runs/{run}", "/c/nowhere"]
    paths += [f"/runs/{run}/{what}" for what in ("diagnosis", "plan", "diff", "trials", "matrix", "log")]
    for path in paths:
        await visitor.page.goto(house.url + path)
        assert await visitor.serious_findings() == [], path


async def test_a_phone_shows_all_of_it(house: House, browser: Browser) -> None:
    report = reports.report(RunState.awaiting_consent)
    assert report.matrices
    await house.say(cards.run(report, await picture(*report.matrices)), key="run:1")
    phone = await visit(browser, house.url, await house.token("anna"), viewport=PHONE, has_touch=True)
    await phone.sees("a repair waits for approval")
    for path in ("/c/desk", "/history", "/batches"):
        await phone.page.goto(house.url + path)
        too_wide = await phone.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not too_wide, path
    await phone.page.goto(f"{house.url}/c/desk")
    await phone.is_live()
    button = phone.message("a repair waits").get_by_role("button", name="Approve")
    box = await button.bounding_box()
    assert box
    assert box["height"] >= 32
    await button.tap()
    await heard(house, Pressed)
    assert phone.problems == []
