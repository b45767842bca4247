"""A chat on paper: it keeps what is said in it, tells keys apart as a good platform does, and stumbles on demand."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

from bot.chat import Card
from core.model.errors import Refused, Unavailable
from core.model.transcript import Message, Place

PAPER = Place(platform="paper", workspace="acme", channel="help")


@dataclass(frozen=True)
class Shown:
    place: Place
    what: Card | str
    key: str
    by: str
    message: str


@dataclass(frozen=True)
class Whispered:
    person: str
    what: Card | str
    place: Place

    @property
    def text(self) -> str:
        return self.what if isinstance(self.what, str) else self.what.text


@dataclass
class PaperChat:
    platform: str = "paper"
    shown: list[Shown] = field(default_factory=list)
    whispered: dict[str, Whispered] = field(default_factory=dict)
    signs: list[tuple[str, bool]] = field(default_factory=list)
    past: list[Message] = field(default_factory=list)
    """What `history` shows; nothing of it may be read while it is empty."""
    groups: dict[str, set[str]] = field(default_factory=dict)
    """Who is in which."""
    most: int = 1_000_000
    """Characters of a message."""
    away: int = 0
    """How many of the next calls find the platform away."""
    before: Callable[[str], None] = lambda what: None
    after: Callable[[str], None] = lambda what: None
    """Called around everything that people see."""

    def parts(self, text: str) -> list[str]:
        return [text[n : n + self.most] for n in range(0, max(len(text), 1), self.most)]

    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        self._reached(f"post {key}")
        known = next((shown for shown in self.shown if shown.key == key), None)
        if known is None:
            known = Shown(place, what, key, as_agent or "moss", f"m{len(self.shown) + 1}")
            self.shown.append(known)
        self.after(f"post {key}")
        return known.message

    async def edit(self, place: Place, message: str, card: Card) -> None:
        self._reached(f"edit {message}")
        for n, shown in enumerate(self.shown):
            if (shown.place.channel, shown.message) == (place.channel, message):
                self.shown[n] = Shown(shown.place, card, shown.key, shown.by, message)
                return
        raise Refused(f"There is no message {message}.")

    async def whisper(self, place: Place, person: str, what: Card | str, answer_to: str, key: str) -> None:
        self._reached(f"whisper {key}")
        self.whispered.setdefault(key, Whispered(person, what, place))
        self.after(f"whisper {key}")

    async def working(self, place: Place, message: str, on: bool) -> None:
        self.signs.append((message, on))

    async def history(self, place: Place, limit: int) -> list[Message]:
        if not self.past:
            raise Refused("The platform lets nobody read that.")
        return self.past[-limit:]

    async def link(self, place: Place, message: str) -> str:
        return f"https://paper.example/{place.channel}/{message}"

    async def groups_of(self, person: str, among: Collection[str]) -> frozenset[str]:
        self._reached(f"groups of {person}")
        return frozenset(name for name in among if person in self.groups.get(name, ()))

    def told(self) -> list[str]:
        """Every whisper, in the order in which they came."""
        return [whispered.text for whispered in self.whispered.values()]

    def texts(self) -> list[str]:
        return [shown.what if isinstance(shown.what, str) else shown.what.text for shown in self.shown]

    def _reached(self, what: str) -> None:
        self.before(what)
        if self.away:
            self.away -= 1
            raise Unavailable("The paper chat cannot be reached.")


def message(role: str, text: str, id: str, at: datetime | None = None) -> Message:
    return Message.model_validate({"role": role, "content": text, "id": id, "at": at, "who": "Anna A."})
