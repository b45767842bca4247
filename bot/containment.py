"""From the settings to the sandbox that coders work in."""

from pathlib import Path

from bot import built_in
from bot.settings import Settings
from core.coders.choose import Choice, choose
from core.coders.showing import Secret


async def containment(settings: Settings) -> Choice:
    return await choose(
        settings.coder, secret(settings.data, settings.file), harmless=built_in.recorded(settings.coder)
    )


def secret(data: Path, file: Path | None) -> Secret:
    return Secret(data.resolve(), Path("~").expanduser().resolve(), file.resolve() if file else None)
