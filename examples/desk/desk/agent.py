"""One turn: the model asks for tools until it can answer."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from desk.dispatch import Dispatcher
from desk.model import DAYS, Model
from desk.records import Message, Record
from desk.tools import tools

MAX_STEPS = 8
PROMPT = Path(__file__).parent / "prompt.md"


class Turn(NamedTuple):
    text: str
    trace: list[Record]


class Agent:
    def __init__(self, data: Record, model: Model) -> None:
        self._tools = tools(data)
        self._specs = [{"name": tool.name, "description": tool.does} for tool in self._tools.values()]
        self._system = {"role": "system", "content": system_prompt(data)}
        self._model = model

    def answer(self, conversation: list[Message]) -> Turn:
        """The conversation ends with what the user says now."""
        dispatcher = Dispatcher(self._tools)
        messages = [self._system, *conversation]
        for _ in range(MAX_STEPS):
            said = self._model.next(messages, self._specs)
            if isinstance(said, str):
                return Turn(said, dispatcher.trace)
            messages.append({"role": "assistant", "content": None, "tool_calls": [said._asdict()]})
            messages.append(dispatcher.run(said))
        return Turn("I could not work that out; please ask a dispatcher.", dispatcher.trace)


def system_prompt(data: Record) -> str:
    """The instructions, and the names that people may mention."""
    return "\n".join(
        [
            PROMPT.read_text(encoding="utf-8"),
            f"Today: {DAYS[datetime.fromisoformat(data['as_of']).weekday()]}",
            "Customers: " + "; ".join(customer["name"] for customer in data["customers"]),
            "Engineers: " + "; ".join(engineer["name"] for engineer in data["engineers"]),
            "Parts: " + "; ".join(part["name"] for part in data["parts"]),
            "Warehouses: " + "; ".join(sorted({part["warehouse"] for part in data["parts"]})),
            "Skills: " + "; ".join(sorted({skill for engineer in data["engineers"] for skill in engineer["skills"]})),
        ]
    )
