"""The tools give the right rows, best match first."""

import unittest
from pathlib import Path

from desk.records import Record, ToolError, load
from desk.tools import tools

DATA = load(Path(__file__).parents[1] / "data" / "desk.json")


def run(tool: str, **arguments: object) -> list[Record]:
    return tools(DATA)[tool].run(**arguments)


class Tools(unittest.TestCase):
    def test_tickets_come_most_urgent_first(self) -> None:
        found = run("tickets.search", customer="Harbor Foods", status="open")
        assert [ticket["id"] for ticket in found] == ["T-1042", "T-1038", "T-1029", "T-1051"]

    def test_a_ticket_is_found_by_its_number(self) -> None:
        assert run("tickets.search", number="T-1047")[0]["customer"] == "Millbrook Bakery"
        assert run("tickets.search", number="T-1") == []

    def test_a_service_level_knows_the_plan_of_the_customer(self) -> None:
        ticket = run("tickets.search", number="T-1042")[0]
        level = run("sla.check", ticket=ticket)[0]
        assert (level["plan"], level["due"], level["late_min"]) == ("gold", "2031-03-12T06:10", 200)

    def test_a_ticket_without_a_service_level_is_said_to_have_none(self) -> None:
        with self.assertRaisesRegex(ToolError, "no service level"):  # noqa: PT027 - there is no pytest here
            run("sla.check", ticket={"id": "T-1", "customer": "Nobody", "priority": "P1", "opened": "2031-03-12T06:10"})

    def test_engineers_are_found_by_skill_and_day(self) -> None:
        found = run("engineers.search", skill="controls", day="wednesday")
        assert [engineer["name"] for engineer in found] == ["Grace Lin", "Deniz Aydin"]

    def test_an_engineer_without_slots_is_not_free(self) -> None:
        engineer = run("engineers.search", name="Hugo Maas")[0]
        assert run("engineers.slots", engineer=engineer, day="friday")[0]["slots"] == []

    def test_the_emptiest_shelf_comes_first(self) -> None:
        found = run("parts.search", warehouse="south", low=True)
        names = ["pressure sensor PS-9", "evaporator coil EC-5", "solenoid valve SV-14"]
        assert [part["name"] for part in found] == names

    def test_a_part_has_a_supplier(self) -> None:
        part = run("parts.search", name="fan motor FM-7")[0]
        assert run("parts.supply", part=part)[0]["lead_days"] == 9
