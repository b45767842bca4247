"""The provider `command`: any program becomes a coding agent. `docs/coder-protocol.md` is written for its author."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.coders.coder import Api, Brief, Heard, Start, Versions, Way
from core.coders.customary import variables
from core.coders.reply import NotAReply, last_object
from core.model.run import Spend


class Report(BaseModel):
    """`spend` in a reply: what the program's model has cost, by its own account."""

    model_config = ConfigDict(extra="ignore")
    money_usd: float = Field(default=0, ge=0, le=1e6, allow_inf_nan=False)
    tokens: int = Field(default=0, ge=0, le=10**12)


@dataclass(frozen=True, slots=True)
class Command:
    own: tuple[str, ...] = ()
    """Variables that the program gets from Moss's environment: who gives it a key, or an address, means that."""
    api: Api | None = None
    versions: Versions | None = None

    def start(self, brief: Brief, home: Path, way: Way | None) -> Start:
        return Start(arguments=(), env=variables(way, self.own) if way else {})

    def hear(self, said: str, complaint: str, exit_code: int) -> Heard:
        try:
            told = last_object(said).get("spend") if '"spend"' in said else None
            report = Report.model_validate({} if told is None else told)
        except NotAReply:
            return Heard(said)
        except ValidationError:
            return Heard(said, problem="its reply reports a `spend` that is no amount of tokens and money")
        return Heard(said, Spend(money_usd=report.money_usd, tokens=report.tokens))
