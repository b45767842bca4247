"""Whether Discord takes what Moss was given, asked before anything is started."""

import asyncio

import discord

from bot.adapters.discord.client import reach
from bot.adapters.discord.errors import translated
from bot.sections import Discord
from core.model.errors import BadInput, Refused

LOGIN_S = 20.0


async def ping(section: Discord) -> str:
    reach(section)
    client = discord.Client(intents=discord.Intents.none())
    try:
        async with asyncio.timeout(LOGIN_S):
            with translated("a login"):
                await client.login(section.token.get_secret_value())
                about = await client.application_info()
                there = {str(guild.id) async for guild in client.fetch_guilds(limit=None)}
    except discord.LoginFailure:
        raise Refused("Discord refuses the token; give Moss the bot's present one.") from None
    finally:
        await client.close()
    may_hear = about.flags.gateway_message_content or about.flags.gateway_message_content_limited
    if section.message_content and not may_hear:
        raise BadInput(
            "Discord gives no message content; switch that intent on for the application, or set "
            "`message_content = false` in [discord]."
        )
    if missing := sorted(section.guilds - there):
        raise BadInput(f"The bot is not on the server {', '.join(missing)}; invite it, or correct `guilds`.")
    return f"Moss is @{client.user or '?'}, on {len(section.guilds)} of its servers"
