"""The whole story by hand: two people with a browser each, the demo's real Moss behind the page, and nothing else.

With MOSS_TEST_PICTURES=DIRECTORY it also takes the pictures for the documentation there.
"""

import os
import re
import tempfile
from pathlib import Path

import pytest
from playwright.async_api import expect

from bot import built_in
from bot.demo import script
from bot.demo.stage import stage
from tests.support.browser import DESKTOP, PHONE, Visitor, a_browser, visit
from tests.support.needs import needs_chromium
from tests.support.short import tmp_path as tmp_path  # noqa: PLC0414 (the fixture of this name)

pytestmark = needs_chromium

RUN_MS, SWAP_MS, TURN_MS = 240_000, 60_000, 20_000


async def ask(user: Visitor, conversation: script.Conversation) -> str:
    """Each turn of it, and the words of the last answer."""
    first, *later = conversation.said
    await user.page.goto(f"{user.url}/c/{built_in.DESK}")
    await user.is_live()
    await user.say(first)
    question = user.message(first)
    answers = question.locator("xpath=..").locator(".replies article.agent")
    await expect(answers).to_have_count(1, timeout=TURN_MS)
    await question.get_by_role("link", name="Reply").click()
    await user.is_live()
    answers = user.page.locator("article.agent")
    for turn, text in enumerate(later, start=2):
        await user.say(text)
        await expect(answers).to_have_count(turn, timeout=TURN_MS)
    return (await answers.last.locator("p.text").inner_text()).strip()


async def take(visitor: Visitor, name: str) -> None:
    if folder := os.environ.get("MOSS_TEST_PICTURES"):
        await visitor.picture(Path(folder) / f"{name}.png")


async def test_two_people_repair_the_desk_with_nothing_but_a_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = script.conversations()
    async with stage("process", "recorded", keep=False) as here, a_browser() as browser:
        user = await visit(browser, here.url, here.tokens[built_in.USER])
        operator = await visit(browser, here.url, here.tokens[built_in.OPERATOR], color_scheme="dark")

        before = ""
        for conversation in told:
            answer = await ask(user, conversation)
            before = before or answer
            await user.react(answer.splitlines()[0], f"flag: {conversation.kind.replace('_', ' ')}")
            await user.sees("Thank you, that is flagged")
        await take(user, "room-flagged")

        await user.page.goto(f"{here.url}/c/{built_in.DESK}")
        await user.is_live()
        await user.say("/moss evolve")
        await operator.sees("a repair is under way", RUN_MS)
        await operator.sees("a repair waits for approval", RUN_MS)
        card = operator.message("a repair waits for approval")
        await expect(card.get_by_role("img")).to_be_visible()
        await expect(card.get_by_role("button", name="Approve")).to_be_in_viewport()
        assert await operator.serious_findings() == []
        await operator.page.set_viewport_size({"width": 1280, "height": 1500})
        await take(operator, "room-card")
        await operator.page.set_viewport_size(DESKTOP)
        phone = await visit(browser, here.url, here.tokens[built_in.OPERATOR], viewport=PHONE)
        await phone.sees("a repair waits for approval")
        await take(phone, "room-phone")

        await card.get_by_role("link", name="Read the whole of it").click()
        run = operator.page.url
        for part in ("Diagnosis", "Plan", "Diff", "Trials", "Matrix", "Log"):
            await operator.page.get_by_role("link", name=part, exact=True).click()
            await expect(operator.page.get_by_role("link", name=part, exact=True)).to_have_attribute(
                "aria-current", "page"
            )
            assert await operator.serious_findings() == [], part
            if part == "Diff":
                await take(operator, "run-diff")
        await operator.page.goto(run)
        await operator.page.get_by_role("link", name="Its card in the conversation").click()
        await operator.is_live()

        await user.press("a repair waits for approval", "Approve")
        await user.sees("You are not one of the approvers")
        await operator.press("a repair waits for approval", "Approve")
        await operator.sees("the repair is live as version 1", SWAP_MS)
        await expect(operator.page.get_by_role("button", name="Approve")).to_have_count(0)

        after = await ask(user, told[0])
        assert before in after or len(after.splitlines()) > len(before.splitlines())
        assert after != before
        await operator.page.goto(f"{here.url}/c/{built_in.DESK}")
        await operator.is_live()
        await operator.say("/moss rollback")
        await operator.sees("version 0 is live again", SWAP_MS)
        await operator.page.get_by_role("link", name="History").click()
        await expect(operator.page.get_by_role("row", name=re.compile("brings back version 0"))).to_contain_text("live")
        assert await ask(user, told[0]) == before

        for visitor in (user, operator, phone):
            assert visitor.problems == []
    assert list(tmp_path.glob("moss-demo-*")) == []
