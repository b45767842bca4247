"""The room's page in a real browser: everything a person does there, with the mouse and without."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from bot import cards
from bot.chat import Action, Card, Commanded, Flagged, Line, Picture, Pressed, Reacted, Said, Section, Style, Tone
from core.store import people
from tests.support import reports
from tests.support.browser import Visitor, a_browser, visit
from tests.support.needs import needs_chromium
from tests.support.rooms import DESK, House, a_room, answering, heard, serving

pytestmark = needs_chromium

CARD = Card(
    title="desk: a repair waits for approval",
    tone=Tone.asking,
    lines=(Line(name="Change", text="2 files, +18 -6"),),
    actions=(
        Action(label="Approve", verb="approve", subject="consent-1", style=Style.primary),
        Action(label="Decline", verb="decline", subject="consent-1", style=Style.danger, wants_reason=True),
    ),
)
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</textarea>{{ 7*7 }}<!channel> @everyone [x](javascript:alert(1)) \x1b[31mred\x1b]0;t\x07 \u202egnp.exe `/moss`"
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_room(tmp_path) as house:
        yield house


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


@pytest.fixture
async def anna(house: House, browser: Browser) -> AsyncIterator[Visitor]:
    visitor = await visit(browser, house.url, await house.token("anna"))
    yield visitor
    assert visitor.problems == []


async def test_a_question_is_asked_and_its_answer_comes_by_itself(house: House, anna: Visitor) -> None:
    asked = asyncio.Event()

    async def answer(event: Said | Commanded) -> None:
        assert isinstance(event, Said)
        await house.room.chat.working(DESK, event.message, True)
        await asked.wait()
        place = DESK.model_copy(update={"thread": event.message})
        await house.room.chat.post(place, "Order 17 is refunded.", "reply-1", as_agent="desk")
        await house.room.chat.working(DESK, event.message, False)

    async with answering(house, answer):
        await anna.say("Refund order 17?")
        question = anna.message("Refund order 17?")
        await expect(question).to_contain_text("The agent is answering")
        asked.set()
        await anna.sees("Order 17 is refunded.")
        await expect(question).not_to_contain_text("The agent is answering")
    reply = anna.message("Order 17 is refunded.")
    await expect(reply).to_contain_text("desk")
    await expect(reply.locator("xpath=ancestor::ol[@class='replies']")).to_be_visible()
    await expect(anna.page.locator("#heard")).to_have_text("desk: Order 17 is refunded.")


async def test_a_bad_answer_is_flagged_and_the_flag_taken_back(house: House, anna: Visitor) -> None:
    id = await house.say("Refunded 17.", agent="desk")
    await anna.message("Refunded 17.").get_by_role("button", name="React").click()
    first = anna.page.get_by_role("dialog").get_by_role("button").first
    assert (await first.get_attribute("aria-label") or "").startswith("flag: ")
    await anna.page.keyboard.press("Escape")
    await anna.react("Refunded 17.", "flag: wrong answer")
    chip = anna.message("Refunded 17.").get_by_role("button", name="flag: wrong answer, anna")
    await expect(chip).to_have_attribute("aria-pressed", "true")
    await chip.click()
    await expect(chip).to_have_count(0)
    events = await heard(house, Reacted, 2)
    assert [(event.message, event.emoji, event.added) for event in events] == [(id, "x", True), (id, "x", False)]


async def test_a_complaint_is_said_in_words(house: House, anna: Visitor) -> None:
    id = await house.say("Refunded 17.", agent="desk")
    await anna.react("Refunded 17.", "say in words what is wrong")
    dialog = anna.page.get_by_role("dialog")
    await dialog.get_by_label("Kind").select_option("incomplete")
    await dialog.get_by_label("In your words").fill("I asked for two.")
    await dialog.get_by_role("button", name="Flag it").click()
    (event,) = await heard(house, Flagged)
    assert (event.message, event.failure, event.reason) == (id, "incomplete", "I asked for two.")


async def test_a_command_and_its_answer_are_private(house: House, browser: Browser, anna: Visitor) -> None:
    ben = await visit(browser, house.url, await house.token("ben"))

    async def answer(event: Said | Commanded) -> None:
        card = cards.status([reports.standing()])
        await house.room.chat.whisper(DESK, event.person, card, "", event.id)

    async with answering(house, answer):
        await anna.say("/moss status")
        await anna.sees("How things stand")
    await expect(anna.message("How things stand")).to_contain_text("Only you see this")
    await expect(anna.message("/moss status").first).to_contain_text("Only you see this")
    await house.say("News for all.")
    await ben.sees("News for all.")
    await expect(ben.page.get_by_text("How things stand")).to_have_count(0)
    assert ben.problems == []


async def test_a_card_changes_before_ones_eyes_and_its_buttons_are_pressed(house: House, anna: Visitor) -> None:
    id = await house.say(CARD)
    await anna.press("a repair waits", "Approve")
    await anna.press("a repair waits", "Decline", "It is too much at once.")
    events = await heard(house, Pressed, 2)
    assert [(event.verb, event.subject, event.reason) for event in events] == [
        ("approve", "consent-1", ""),
        ("decline", "consent-1", "It is too much at once."),
    ]
    live = Card(title="desk: the repair is live", tone=Tone.good)
    await house.room.chat.edit(DESK, id, live)
    await anna.sees("desk: the repair is live")
    await expect(anna.page.locator("article", has_text="a repair waits")).to_have_count(0)
    await expect(anna.page.get_by_role("button", name="Approve")).to_have_count(0)


async def test_a_button_that_is_gone_meanwhile_is_refused_in_a_sentence(house: House, browser: Browser) -> None:
    await house.say(CARD)
    late = await visit(browser, house.url, await house.token("anna"))
    await late.page.route(
        "**/api/messages/*/press", lambda route: route.continue_(post_data='{"verb":"x","subject":"y"}')
    )
    await late.press("a repair waits", "Approve")
    await expect(late.page.get_by_role("alert")).to_contain_text("That button is not on the message")


async def test_a_thread_has_a_page_of_its_own(house: House, anna: Visitor) -> None:
    root = await house.say("desk: run-1 is under way")
    for n in range(5):
        await house.say(f"Milestone {n}", DESK.model_copy(update={"thread": root}), key=f"m{n}")
    await anna.page.reload()
    await anna.is_live()
    await expect(anna.page.locator(".replies article")).to_have_count(3)
    await anna.page.get_by_role("link", name="All 5 replies").click()
    await anna.is_live()
    await expect(anna.page.get_by_role("heading", level=1)).to_have_text("Thread")
    await expect(anna.page.locator("article.message")).to_have_count(6)
    await anna.say("Shall we?")
    await anna.sees("Shall we?")
    (event,) = await heard(house, Said)
    assert (event.place.thread, event.addressed) == (root, False)


async def test_what_happens_meanwhile_is_there_when_the_connection_comes_back(
    house: House, browser: Browser, anna: Visitor
) -> None:
    await anna.page.context.set_offline(True)
    await house.say("Said in the dark.")
    await anna.page.context.set_offline(False)
    await anna.sees("Said in the dark.")
    await expect(anna.page.locator("article", has_text="Said in the dark.")).to_have_count(1)
    anna.problems.clear()  # the browser says that it was offline


async def test_a_restart_of_moss_is_lived_through(tmp_path: Path, browser: Browser) -> None:
    async with a_room(tmp_path) as house:
        port = int(house.url.rsplit(":", 1)[1])
        fixed = house.settings.model_copy(update={"room": house.settings.room.model_copy(update={"port": port})})
        anna = await visit(browser, house.url, await house.token("anna"))
        house.room.stop()
        await expect(anna.page.locator("#room")).to_have_attribute("data-live", "no")
        await expect(anna.page.get_by_role("status")).to_contain_text("connection is lost")
        await asyncio.sleep(0.3)  # the port is free a moment later
        async with serving(house.store, fixed) as again:
            await again.say("Back again.")
            await anna.sees("Back again.", 20_000)
            await expect(anna.page.locator("#link")).to_have_text("")


async def test_who_is_removed_is_shown_the_door(house: House, anna: Visitor) -> None:
    await people.remove(house.store, "anna")
    await expect(anna.page).to_have_url(f"{house.url}/enter?next=%2Fc%2Fdesk")


async def test_whoever_leaves_is_out_and_can_come_back(house: House, anna: Visitor) -> None:
    await anna.page.goto(f"{house.url}/history")
    await anna.page.get_by_role("button", name="Leave").click()
    await expect(anna.page.get_by_role("heading", level=1)).to_have_text("Enter the room")
    await anna.page.goto(f"{house.url}/history")
    await anna.page.get_by_label("Your token").fill("moss_wrong")
    await anna.page.get_by_role("button", name="Enter").click()
    await expect(anna.page.get_by_role("alert")).to_contain_text("Nobody here has that token")
    anna.problems.clear()  # the browser says that the answer was 401
    await anna.page.goto(f"{house.url}/enter?next=/history#{await house.token('anna')}")
    await expect(anna.page).to_have_url(f"{house.url}/enter?next=/history")
    await anna.page.keyboard.press("Enter")
    await expect(anna.page).to_have_url(f"{house.url}/history")


async def test_words_of_any_kind_are_only_words(house: House, anna: Visitor) -> None:
    await anna.page.evaluate("document.title = 'mine'")
    await anna.say(HOSTILE)
    await house.say(HOSTILE, agent="desk")
    await house.say(
        Card(
            title=HOSTILE,
            lines=(Line(name=HOSTILE, text=HOSTILE),),
            body=(
                Section(heading=HOSTILE, text=HOSTILE),
                Section(text=HOSTILE, look="quote"),
                Section(text=HOSTILE, look="code"),
            ),
            picture=Picture(png=b"no picture", alt=HOSTILE),
            actions=(Action(label=HOSTILE, verb="approve", subject="consent-1"),),
            link="javascript:document.title='owned'",
        ),
        key="card",
    )
    await expect(anna.page.locator("article.message")).to_have_count(3)
    for _ in range(2):  # as the stream brings it, and as the page is drawn
        assert (
            await anna.page.locator("article script, article img:not(.picture), article a[href^=javascript]").count()
            == 0
        )
        text = await anna.page.locator("article.message").first.inner_text()
        assert "<script>document.title='owned'</script>" in text
        assert "{{ 7*7 }}" in text
        assert "\x1b" not in await anna.page.content()
        assert "\u202e" not in await anna.page.content()
        await anna.page.reload()
        await anna.is_live()
        assert await anna.page.title() != "owned"
    await anna.message("owned").get_by_role("button", name="script").click()
    (event,) = await heard(house, Pressed)
    assert event.subject == "consent-1"
    anna.problems.clear()  # a picture that is none
