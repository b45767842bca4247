"""Presses of buttons. A press carries a verb and an id and nothing else; what it allows was fixed when it was asked."""

from bot import verbs
from bot.chat import Pressed
from bot.inbox import Delivery
from bot.looking import artefact, whole_run
from bot.permits import refusal
from bot.verbs import Moss
from bot.whispers import answer
from core.model.errors import BadInput, Refused

OUT_OF_DATE = "That button asks for nothing that can be done here; `/moss status` shows what waits for people."


async def pressed(moss: Moss, delivery: Delivery) -> None:
    event = delivery.event
    assert isinstance(event, Pressed)
    person = moss.settings.person(event.person)
    match event.verb:
        case "approve" | "decline":
            approve = event.verb == "approve"
            if not event.subject.startswith("consent-"):
                raise BadInput(OUT_OF_DATE)
            if not approve and not event.reason.strip():
                raise BadInput("Declining takes a reason of a few words; press it again and say why.")
            decision = await verbs.decide(moss, event.subject, person, approve, event.reason.strip() or None)
            await answer(moss, delivery, decision.sentence)
        case "diff" | "report":
            if refused := await refusal(moss.settings, moss.chats, "run", event):
                raise Refused(refused)
            run, diff = event.subject, event.verb == "diff"
            look = artefact(moss, event, run, "diff") if diff else whole_run(moss, event, run)
            await answer(moss, delivery, await look)
        case _:
            raise BadInput(OUT_OF_DATE)
