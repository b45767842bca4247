"""What the answers say. Lists begin with the count and have a line for each record."""

from datetime import datetime

from desk.records import Record


def late(customer: str | None, tickets: list[Record], levels: list[Record], limit: int) -> str:
    of = f" of {customer}" if customer else ""
    by_number = {ticket["id"]: ticket for ticket in tickets}
    past = [level for level in levels if level["late_min"] > 0]
    if not past:
        return f"No open ticket{of} is past its SLA."
    lines = [
        f"{level['ticket']} ({by_number[level['ticket']]['subject']}, {by_number[level['ticket']]['priority']}): "
        f"due {_moment(level['due'])}, late by {_span(level['late_min'])}"
        for level in past
    ]
    what = f"open ticket{of} is past its SLA" if len(past) == 1 else f"open tickets{of} are past their SLA"
    return _listing(what, lines, limit)


def due(number: str | None, tickets: list[Record], levels: list[Record]) -> str:
    if not tickets or not levels:
        return f"I know no ticket {number}."
    ticket, level = tickets[0], levels[0]
    who = f"{ticket['id']} of {ticket['customer']}"
    if level["late_min"] > 0:
        return f"{who} is past its SLA: due {_moment(level['due'])}, late by {_span(level['late_min'])}."
    return f"{who} is within its SLA: due {_moment(level['due'])}, {_span(-level['late_min'])} left."


def ticket(number: str | None, tickets: list[Record]) -> str:
    if not tickets:
        return f"I know no ticket {number}."
    found = tickets[0]
    engineer = found["engineer"] or "nobody yet"
    what = f"{found['subject']}, {found['priority']}"
    return f"{found['id']} of {found['customer']} ({what}) is {found['status']}; engineer: {engineer}."


def free(engineer: str | None, skill: str | None, day: str, slots: list[Record], limit: int) -> str:
    when, work = day.capitalize(), f" for {skill}" if skill else ""
    open_slots = [slot for slot in slots if slot["slots"]]
    if engineer:
        times = ", ".join(open_slots[0]["slots"]) if open_slots else None
        return f"{engineer} is free on {when} at {times}." if times else f"{engineer} is not free on {when}."
    if not open_slots:
        return f"No engineer is free on {when}{work}."
    lines = [f"{slot['engineer']}: {', '.join(slot['slots'])}" for slot in open_slots]
    what = "engineer is" if len(lines) == 1 else "engineers are"
    return _listing(f"{what} free on {when}{work}", lines, limit)


def low(warehouse: str | None, parts: list[Record], supplies: list[Record], limit: int) -> str:
    where = f" at the {warehouse} warehouse" if warehouse else ""
    if not parts:
        return f"No part{where} is below its minimum."
    by_part = {supply["part"]: supply for supply in supplies}
    lines = [f"{part['name']}: {_stock(part)}{_delivery(by_part.get(part['name']))}" for part in parts]
    what = f"part{where} is below its minimum" if len(lines) == 1 else f"parts{where} are below their minimum"
    return _listing(what, lines, limit)


def part(name: str | None, parts: list[Record], supplies: list[Record]) -> str:
    if not parts:
        return f"I know no part {name}."
    found = parts[0]
    return f"{found['name']} ({found['warehouse']} warehouse): {_stock(found)}{_delivery(next(iter(supplies), None))}."


def recall(earlier: tuple[str, ...]) -> str:
    if not earlier:
        return "You have not asked anything before."
    return "You said before:\n" + "\n".join(f"- {text}" for text in earlier)


def greeting(customer: str | None) -> str:
    to = f", {customer}" if customer else ""
    return f"Hello{to}. I can look up tickets and their SLAs, free engineers and spare parts."


def _listing(what: str, lines: list[str], limit: int) -> str:
    more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([f"{len(lines)} {what}:", *(f"- {line}" for line in lines[:limit] + more)])


def _moment(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%d %B %H:%M")


def _span(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _stock(part: Record) -> str:
    return f"{part['stock']} in stock, minimum {part['minimum']}"


def _delivery(supply: Record | None) -> str:
    return f", {supply['lead_days']} days from {supply['supplier']}" if supply else ""
