"""`[gateway]`: which model APIs there are, with whose key, and what models cost."""

from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.coders.coder import Api
from core.gateway.prices import Price


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Upstream(Part):
    url: str
    """Where the API is, up to but without its version, such as `/v1`."""
    key_from: str = Field(min_length=1)
    """The variable of Moss's own environment that holds the key. Without it the API is not there."""

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not _leads_somewhere(url):
            raise ValueError("is no address; write one such as `https://api.anthropic.com`")
        if parts.username or parts.query or parts.fragment:
            raise ValueError("should be an address without user, query and fragment; the key comes from `key_from`")
        url = url.rstrip("/")
        if url.endswith(("/v1", "/v1beta")):
            raise ValueError(f"goes up to but without the version; write `{url.rpartition('/')[0]}`")
        return url


def _leads_somewhere(url: str) -> bool:
    """Whether host and port could be there."""
    try:
        host, port = urlsplit(url).hostname, urlsplit(url).port
        return bool(host) and port != 0 and bool(httpx.URL(url).host.encode("idna"))
    except (ValueError, httpx.InvalidURL):
        return False


class Anthropic(Upstream):
    url: str = "https://api.anthropic.com"
    """Up to but without `/v1`."""
    key_from: str = Field(default="ANTHROPIC_API_KEY", min_length=1)
    """The variable of Moss's own environment that holds the key. Without it the API is not there."""


class OpenAI(Upstream):
    url: str = "https://api.openai.com"
    """Up to but without `/v1`. Any service that speaks the same API will do."""
    key_from: str = Field(default="OPENAI_API_KEY", min_length=1)


class Gemini(Upstream):
    url: str = "https://generativelanguage.googleapis.com"
    """Up to but without `/v1beta`."""
    key_from: str = Field(default="GEMINI_API_KEY", min_length=1)


class GatewaySettings(Part):
    """The way of coding agents to their models: `docs/gateway.md`. With a key in the environment nothing has to be
    written here."""

    anthropic: Anthropic = Anthropic()
    openai: OpenAI = OpenAI()
    gemini: Gemini = Gemini()
    prices: dict[str, Price] = {}
    """Prices that count instead of the built-in ones, by the model's name; `*` stands for anything, such as
    `"claude-opus-*"`. Of several that fit, the longest counts."""

    def of(self, api: Api) -> Upstream:
        upstream: Upstream = getattr(self, api)
        return upstream
