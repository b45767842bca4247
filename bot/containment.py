"""From the settings to the sandbox that coders work in."""

from pathlib import Path

from bot import built_in
from bot.settings import Settings
from core.coders.choose import Choice, choose
from core.coders.showing import Secret


async def containment(settings: Settings, owner: str) -> Choice:
    """`owner` is the id of this installation, which stands on every container that it makes."""
    hidden = secret(settings.data, settings.file)
    return await choose(settings.coder, hidden, owner, harmless=built_in.recorded(settings.coder))


def secret(data: Path, file: Path | None) -> Secret:
    return Secret(data.resolve(), Path("~").expanduser().resolve(), file.resolve() if file else None)
