"""Whether Slack takes what Moss was given, asked before anything is started."""

from bot.adapters.slack.web import Web
from bot.sections import Slack
from core.model.errors import Unavailable


async def ping(section: Slack) -> str:
    web = Web.of(section)
    told = await web.call("auth.test")
    who, team, id = (str(told.get(name) or "?") for name in ("user", "team", "team_id"))
    if section.app_token is None:
        return f"Moss is @{who} in {team} ({id}), and takes signed calls at {section.host}:{section.port}{section.path}"
    answer = await web.call("apps.connections.open", app_token=section.app_token.get_secret_value())
    if not answer.get("url"):
        raise Unavailable("Slack opens no socket; switch *Socket Mode* on for the app.")
    return f"Moss is @{who} in {team} ({id}), and Slack opens a socket"
