"""What is forged at the room's door approves nothing; who else may approve what, the consent table says."""

from pathlib import Path

from core.model.consent import ConsentState
from tests.support.consent_case import a_case
from tests.support.consent_doors import RoomDoor
from tests.support.rooms import refused


async def test_a_forged_id_a_foreign_token_and_no_token_reach_nothing(tmp_path: Path) -> None:
    door = RoomDoor()
    async with a_case(door, tmp_path) as case:
        message, consent = await case.offered()
        _, other = await case.offered()
        body = {"verb": "approve", "subject": consent.id}
        async with await door.house.client("anna") as anna:
            for forged in (other.id, "consent-22222222", "consent-1' OR 1=1", "../consent", "run-1"):
                refused(
                    await door.posted(anna, message, **body | {"subject": forged}), 404, "button is not on the message"
                )
            refused(await door.posted(anna, message, **body, person="ben"), 400, "`person` is not known here")
        async with await door.house.client(Authorization="Bearer moss_of_another_moss") as stranger:
            refused(await door.posted(stranger, message, **body), 401, "Nobody here has that token")
        async with await door.house.client() as nobody:
            refused(await door.posted(nobody, message, **body), 401, "This needs your token")
        assert not await case.waiting()
        assert await case.outcome(other) == (ConsentState.asked, 0)
