"""The tools: what can be looked up. Each is a function of the data; rows come best match first.

A tool that *needs* a kind of record gets it from the case (see `dispatch`), never from the model: a model that cannot
write an id cannot make one up.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from desk.records import Record, ToolError


class Tool(NamedTuple):
    name: str
    does: str
    run: Callable[..., list[Record]]
    gives: str
    needs: str | None = None


def tools(data: Record) -> dict[str, Tool]:
    """Everything the desk offers, over this data."""
    services = Services(data)
    offered = (
        Tool("tickets.search", "tickets by number, customer and status", services.search_tickets, gives="ticket"),
        Tool("sla.check", "when a ticket is due and how late it is", services.check_sla, gives="sla", needs="ticket"),
        Tool("engineers.search", "engineers by name, skill and free day", services.search_engineers, gives="engineer"),
        Tool("engineers.slots", "free slots of an engineer", services.slots, gives="slots", needs="engineer"),
        Tool("parts.search", "spare parts by name and warehouse", services.search_parts, gives="part"),
        Tool("parts.supply", "who delivers a part, and when", services.supply, gives="supply", needs="part"),
    )
    return {tool.name: tool for tool in offered}


class Services:
    def __init__(self, data: Record) -> None:
        self._data = data
        self._now = datetime.fromisoformat(data["as_of"])

    def search_tickets(
        self, number: str | None = None, customer: str | None = None, status: str | None = None
    ) -> list[Record]:
        """The most urgent first: by priority, then by age."""
        found = [
            ticket
            for ticket in self._data["tickets"]
            if number in (None, ticket["id"])
            and customer in (None, ticket["customer"])
            and status in (None, ticket["status"])
        ]
        return sorted(found, key=lambda ticket: (ticket["priority"], ticket["opened"], ticket["id"]))

    def check_sla(self, ticket: Record) -> list[Record]:
        plan = next((c["plan"] for c in self._data["customers"] if c["name"] == ticket["customer"]), None)
        hours = self._data["plans"].get(plan, {}).get(ticket["priority"])
        if hours is None:
            raise ToolError(f"no service level is agreed for {ticket['id']}")
        due = datetime.fromisoformat(ticket["opened"]) + timedelta(hours=hours)
        late_min = int((self._now - due).total_seconds() // 60)
        return [{"ticket": ticket["id"], "plan": plan, "due": due.isoformat(timespec="minutes"), "late_min": late_min}]

    def search_engineers(
        self, name: str | None = None, skill: str | None = None, day: str | None = None
    ) -> list[Record]:
        """Who is free earliest first."""
        found = [
            engineer
            for engineer in self._data["engineers"]
            if name in (None, engineer["name"])
            and (skill is None or skill in engineer["skills"])
            and (day is None or engineer["free"].get(day))
        ]
        return sorted(found, key=lambda engineer: (engineer["free"].get(day) or [""], engineer["name"]))

    def slots(self, engineer: Record, day: str) -> list[Record]:
        return [{"engineer": engineer["name"], "day": day, "slots": engineer["free"].get(day, [])}]

    def search_parts(self, name: str | None = None, warehouse: str | None = None, low: bool = False) -> list[Record]:
        """The emptiest shelf first."""
        found = [
            part
            for part in self._data["parts"]
            if name in (None, part["name"])
            and warehouse in (None, part["warehouse"])
            and (not low or part["stock"] < part["minimum"])
        ]
        return sorted(found, key=lambda part: (part["stock"] / part["minimum"], part["name"]))

    def supply(self, part: Record) -> list[Record]:
        return [{"part": part["name"], "supplier": part["supplier"], "lead_days": part["lead_days"]}]
