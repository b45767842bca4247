"""Cards: what people see of runs, batches and versions in a chat. Pure: values in, a card out.

Whatever people, models or programs wrote is quoted, made harmless and cut, with a word on where the rest stands.
"""

from bot.cards.lists import all_batches, batch, history, status
from bot.cards.progress import progress
from bot.cards.rollback import rollback
from bot.cards.run import receipt, run

__all__ = ["all_batches", "batch", "history", "progress", "receipt", "rollback", "run", "status"]
