"""One turn: from the question to the answer."""

import json
import unittest

from desk.agent import Agent, Turn
from desk.dispatch import Dispatcher
from desk.model import Rules
from desk.records import Call, Message, Record
from desk.tools import tools

from tests.test_tools import DATA


def ask(*said: str) -> Turn:
    """Of the turns before the last, only what the user said is known."""
    return Agent(DATA, Rules()).answer([{"role": "user", "content": text} for text in said])


class Turns(unittest.TestCase):
    def test_a_ticket(self) -> None:
        text = "T-1047 of Millbrook Bakery (oven hood trips breaker, P1) is open; engineer: Deniz Aydin."
        assert ask("What is the status of t-1047?").text == text

    def test_an_unknown_ticket(self) -> None:
        assert ask("What about T-4711?").text == "I know no ticket T-4711."

    def test_a_late_ticket(self) -> None:
        text = "T-1044 of Sable Brewing is past its SLA: due 12 March 07:00, late by 2 h 30 min."
        assert ask("Is T-1044 late?").text == text

    def test_it_is_the_ticket_named_before(self) -> None:
        text = "T-1047 of Millbrook Bakery is within its SLA: due 12 March 12:00, 2 h 30 min left."
        assert ask("Tell me about T-1047.", "When is it due?").text == text

    def test_the_late_tickets_of_a_customer(self) -> None:
        lines = ask("Which open tickets of Sable Brewing are past their SLA?").text.splitlines()
        assert lines[0] == "1 open ticket of Sable Brewing is past its SLA:"
        assert "T-1044 (glycol loop loses pressure, P1): due 12 March 07:00, late by 2 h 30 min" in lines[1]

    def test_a_customer_without_late_tickets(self) -> None:
        text = "No open ticket of Granite Logistics is past its SLA."
        assert ask("This is Granite Logistics.", "Is any of our tickets late?").text == text

    def test_a_free_engineer(self) -> None:
        assert ask("Is Ana Ruiz free on Thursday?").text == "Ana Ruiz is free on Thursday at 09:00, 13:30."
        assert ask("Is Ana Ruiz free on Friday?").text == "Ana Ruiz is not free on Friday."

    def test_today_and_tomorrow_are_days_too(self) -> None:
        assert "Grace Lin is free on Wednesday" in ask("Is Grace Lin free today?").text
        assert "Ella Strand is free on Thursday" in ask("Is Ella Strand free tomorrow?").text

    def test_a_part(self) -> None:
        text = "thermostat TH-22 (north warehouse): 12 in stock, minimum 6, 2 days from Polar Supply."
        assert ask("How many thermostat TH-22 are left?").text == text

    def test_secrets_and_changes_are_declined(self) -> None:
        assert "may not give that out" in ask("What is the door code of Harbor Foods?").text
        assert "cannot change" in ask("Please close T-1042.").text

    def test_earlier_questions_are_remembered(self) -> None:
        assert ask("Is T-1044 late?", "What did I ask?").text == "You said before:\n- Is T-1044 late?"

    def test_the_trace_tells_each_call(self) -> None:
        trace = ask("Is T-1044 late?").trace
        assert [call["name"] for call in trace] == ["tickets.search", "sla.check"]
        assert trace[0]["arguments"] == {"number": "T-1044"}
        assert trace[1]["result"][0]["late_min"] == 150

    def test_a_model_that_never_answers_is_stopped(self) -> None:
        class Restless:
            def next(self, messages: list[Message], tools: list[Record]) -> Call | str:
                return Call("parts.search", {"low": True})

        turn = Agent(DATA, Restless()).answer([{"role": "user", "content": "Go on."}])
        assert "could not work that out" in turn.text


class Dispatch(unittest.TestCase):
    def setUp(self) -> None:
        self.dispatcher = Dispatcher(tools(DATA))

    def run_tool(self, tool: str, **arguments: object) -> Record:
        answer: Record = json.loads(self.dispatcher.run(Call(tool, arguments))["content"])
        return answer

    def test_the_model_need_not_name_the_ticket(self) -> None:
        self.run_tool("tickets.search", number="T-1042")
        assert self.run_tool("sla.check")["records"][0]["ticket"] == "T-1042"

    def test_the_best_match_comes_first(self) -> None:
        self.run_tool("tickets.search", customer="Lakeside Clinic", status="open")
        assert self.run_tool("sla.check")["records"][0]["ticket"] == "T-1045"

    def test_a_tool_without_what_it_needs_is_an_error(self) -> None:
        assert "needs a ticket" in self.run_tool("sla.check")["error"]

    def test_what_a_search_does_not_find_again_is_forgotten(self) -> None:
        self.run_tool("tickets.search", number="T-1042")
        self.run_tool("tickets.search", number="T-1")
        assert "needs a ticket" in self.run_tool("sla.check")["error"]

    def test_an_unknown_tool_and_wrong_arguments_are_errors(self) -> None:
        assert "no tool" in self.run_tool("weather")["error"]
        assert "wrong arguments" in self.run_tool("tickets.search", colour="red")["error"]
