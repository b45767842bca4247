"""Substrates: each agent under evolution as its settings described it last, and whether a person must adopt it."""

from sqlalchemy import JSON, ColumnElement, exists, insert, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.model.errors import NotFound
from core.model.events import Noun
from core.model.substrate import Substrate
from core.store.store import Change
from core.store.tables import substrates, versions


async def save(change: Change, substrate: Substrate, who: str) -> None:
    """Without a fact when nothing is new, so that every start of Moss may call it."""
    change.check_own(substrate.name)
    # Compared as plain JSON: an older Moss may have left a body that is no substrate to this one.
    body = type_coerce(substrates.c.body, JSON)
    known = await change.db.scalar(select(body).where(_is(substrate.name)))
    if known == substrate.model_dump(mode="json"):
        return
    if known is None:
        await change.db.execute(
            insert(substrates).values(name=substrate.name, body=substrate, stuck=False, saved_at=change.now)
        )
    else:
        await change.db.execute(
            update(substrates).where(_is(substrate.name)).values(body=substrate, saved_at=change.now)
        )
    await change.record(who, Noun.substrate, substrate.name, "added" if known is None else "changed")


async def get(db: AsyncConnection, name: str) -> Substrate:
    found = (await db.execute(select(substrates.c.body).where(_is(name)))).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no substrate {name}; name it in moss.toml.")
    assert isinstance(found, Substrate)
    return found


async def names(db: AsyncConnection) -> list[str]:
    return list((await db.execute(select(substrates.c.name).order_by(substrates.c.name))).scalars())


async def needs_adoption(db: AsyncConnection, name: str) -> bool:
    """True until a version of it is live, and again after a swap got stuck, until somebody says otherwise."""
    stuck = (await db.execute(select(substrates.c.stuck).where(_is(name)))).scalar_one_or_none()
    if stuck is None:
        raise NotFound(f"There is no substrate {name}; name it in moss.toml.")
    live = await db.scalar(select(exists().where(versions.c.substrate == name, versions.c.until.is_(None))))
    return stuck or not live


async def set_needs_adoption(change: Change, needed: bool, who: str, why: str) -> None:
    await change.db.execute(update(substrates).where(_is(change.substrate)).values(stuck=needed))
    what = "adoption_required" if needed else "adoption_settled"
    await change.record(who, Noun.substrate, change.substrate, what, why=why)


def _is(name: str) -> ColumnElement[bool]:
    return substrates.c.name == name
