"""What becomes of each kind of event. Everything behind here may happen twice to one event, and does its work once."""

from typing import assert_never

import structlog

from bot import buttons, commands, converse, reactions
from bot.chat import Commanded, Flagged, Pressed, Reacted, Replied, Said
from bot.inbox import Delivery, TookTooLong
from bot.verbs import Moss
from bot.whispers import answer
from core.model.errors import MossError, Unavailable

log = structlog.get_logger(__name__)


async def receive(moss: Moss, delivery: Delivery) -> None:
    """What cannot be done is told privately, in one sentence. What may work later is raised, to be tried again."""
    try:
        match delivery.event:
            case Said():
                await converse.said(moss, delivery)
            case Replied():
                await converse.replied(moss, delivery)
            case Reacted():
                await reactions.reacted(moss, delivery)
            case Flagged():
                await reactions.flagged(moss, delivery)
            case Commanded():
                await commands.commanded(moss, delivery)
            case Pressed():
                await buttons.pressed(moss, delivery)
            case unknown:
                assert_never(unknown)
    except Unavailable:
        raise
    except MossError as problem:
        if isinstance(delivery.event, Replied):  # the agent itself spoke, and waits for no answer
            log.warning("a reply of the agent was not kept", delivery=delivery.key, reason=problem.sentence)
        else:
            await answer(moss, delivery, problem.sentence)


async def give_up(moss: Moss, delivery: Delivery, problem: Exception) -> None:
    """It was tried again and again. Whoever waits for an answer hears why there is none."""
    if isinstance(delivery.event, Replied):
        return
    if isinstance(problem, TookTooLong):
        await answer(moss, delivery, problem.sentence)
        return
    why = problem.sentence if isinstance(problem, MossError) else "Moss failed inside; its log has the reason."
    await answer(moss, delivery, f"That did not work, and was tried several times: {why}")
