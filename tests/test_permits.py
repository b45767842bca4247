"""Who may use which verb: by name, by group, and nobody whom nobody can place."""

from pathlib import Path

import pytest

from bot import permits
from bot.chat import Said
from bot.settings import Settings, load
from core.model.errors import BadInput
from core.model.transcript import Place
from tests.support.chat_moss import CONFIG, settings
from tests.support.databases import HeldClock
from tests.support.paper_chat import PAPER, PaperChat

CREW = "paper:crew"


@pytest.fixture
def chat() -> PaperChat:
    return PaperChat(groups={CREW: {"paper:gwen"}, "other:crew": {"paper:eve"}})


@pytest.fixture
def named(tmp_path: Path) -> Settings:
    known = settings(tmp_path)
    maintainers = known.permits.maintainers | {CREW, "other:crew"}
    return known.model_copy(update={"permits": known.permits.model_copy(update={"maintainers": maintainers})})


async def refusal(named: Settings, chat: PaperChat, verb: str, person: str, place: Place = PAPER) -> str | None:
    event = Said(id="e1", place=place, person=person, at=HeldClock()(), message="m1", text="")
    return await permits.refusal(named, {"paper": chat}, verb, event)


@pytest.mark.parametrize(
    ("person", "verb", "may"),
    [
        ("paper:mary", "evolve", True),
        ("paper:anna", "evolve", True),
        ("paper:gwen", "evolve", True),
        ("paper:eve", "evolve", False),
        ("paper:gwen", "approve", False),
        ("paper:gwen", "no such verb", False),
        ("paper:eve", "status", True),
    ],
)
async def test_a_verb_is_for_those_named_and_for_those_in_a_group_that_is(
    named: Settings, chat: PaperChat, person: str, verb: str, may: bool
) -> None:
    assert (await refusal(named, chat, verb, person) is None) == may


async def test_a_group_counts_only_where_it_is(named: Settings, chat: PaperChat) -> None:
    assert await refusal(named, chat, "evolve", "paper:gwen", replace_platform(PAPER, "other")) is not None
    assert await refusal(named, chat, "evolve", "paper:eve") is not None


async def test_whoever_cannot_be_looked_up_is_in_no_group(named: Settings, chat: PaperChat) -> None:
    chat.away = 1
    told = await refusal(named, chat, "evolve", "paper:gwen")
    assert told is not None
    assert told.endswith("who is in a group of paper cannot be seen at the moment.")


async def test_nobody_is_looked_up_who_is_named_or_for_what_groups_cannot_allow(
    named: Settings, chat: PaperChat
) -> None:
    chat.away = 3
    assert await refusal(named, chat, "evolve", "paper:mary") is None
    assert await refusal(named, chat, "status", "paper:eve") is None
    assert await refusal(named, chat, "approve", "paper:gwen") is not None
    assert chat.away == 3


@pytest.mark.parametrize("group", ["slack:T1/S123", "discord:1000/3000"])
def test_a_group_is_no_approver(tmp_path: Path, group: str) -> None:
    file = tmp_path / "moss.toml"
    file.write_text(CONFIG.replace('"ben"]', f'"{group}"]'))
    with pytest.raises(BadInput, match="whoever may edit that group would choose who approves"):
        load(file, {})


def replace_platform(place: Place, platform: str) -> Place:
    return place.model_copy(update={"platform": platform})
