"""The provider `command`: any program becomes a coding agent. `docs/coder-protocol.md` is written for its author."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.coders.coder import Api, Brief, Heard, Start, Versions, Way
from core.coders.reply import NotAReply, last_object
from core.model.run import Spend


class Report(BaseModel):
    """`spend` in a reply: what the program's model has cost, by its own account."""

    model_config = ConfigDict(extra="ignore")
    money_usd: float = Field(default=0, ge=0, le=1e6, allow_inf_nan=False)
    tokens: int = Field(default=0, ge=0, le=10**12)


class ModelVariable(StrEnum):
    """What leads the program to its model, where the gateway has a way for it: ours, and what libraries look for."""

    MOSS_GATEWAY = "MOSS_GATEWAY"
    MOSS_GATEWAY_TOKEN = "MOSS_GATEWAY_TOKEN"
    ANTHROPIC_BASE_URL = "ANTHROPIC_BASE_URL"
    ANTHROPIC_API_KEY = "ANTHROPIC_API_KEY"
    OPENAI_BASE_URL = "OPENAI_BASE_URL"
    OPENAI_API_KEY = "OPENAI_API_KEY"
    GOOGLE_GEMINI_BASE_URL = "GOOGLE_GEMINI_BASE_URL"
    GEMINI_API_KEY = "GEMINI_API_KEY"


_CUSTOMARY: Mapping[Api, tuple[ModelVariable, str, ModelVariable]] = {
    "anthropic": (ModelVariable.ANTHROPIC_BASE_URL, "/anthropic", ModelVariable.ANTHROPIC_API_KEY),
    "openai": (ModelVariable.OPENAI_BASE_URL, "/openai/v1", ModelVariable.OPENAI_API_KEY),
    "gemini": (ModelVariable.GOOGLE_GEMINI_BASE_URL, "/gemini", ModelVariable.GEMINI_API_KEY),
}


@dataclass(frozen=True, slots=True)
class Command:
    own: tuple[str, ...] = ()
    """Variables that the program gets from Moss's environment: who gives it a key, or an address, means that."""
    api: Api | None = None
    versions: Versions | None = None

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        env: dict[str, str] = {}
        if way:
            env = {ModelVariable.MOSS_GATEWAY: way.url, ModelVariable.MOSS_GATEWAY_TOKEN: way.token}
            for api in way.apis:
                url, below, key = _CUSTOMARY[api]
                if not {url, key} & set(self.own):  # a key of theirs must not be sent to us, nor our token to others
                    env |= {url: way.url + below, key: way.token}
        return Start(arguments=(), env=env)

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        try:
            told = last_object(said).get("spend") if '"spend"' in said else None
            report = Report.model_validate({} if told is None else told)
        except NotAReply:
            return Heard(said)
        except ValidationError:
            return Heard(said, problem="its reply reports a `spend` that is no amount of tokens and money")
        return Heard(said, Spend(money_usd=report.money_usd, tokens=report.tokens))
