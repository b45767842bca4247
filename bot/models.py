"""The way of coding agents to their models: which APIs there are follows from the settings and from the environment."""

from bot.settings import Settings, variable
from core.gateway.apis import APIS
from core.gateway.gateway import Gateway, Record


def gateway(settings: Settings, *record: Record) -> Gateway:
    keys = {api: variable(settings.gateway.of(api).key_from) for api in APIS}
    return Gateway(settings.gateway, {api: key for api, key in keys.items() if key}, *record)
