"""Chat without a platform: what reaches Moss from a conversation, and what Moss can say in one.

An adapter in `bot/adapters/` translates its platform's events into these values and cards back, nothing else.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from core.model.evidence import FailureKind
from core.model.transcript import Message, Place
from core.model.value import Value

# What reaches Moss. Each event is stored before its platform hears that it arrived, and is worked on afterwards.


class Event(Value):
    id: str
    """The platform's own id of this delivery: the same id again is the same event."""
    place: Place
    """Where it happened; `thread` is empty outside of threads."""
    person: str
    """Who did it, as the platform names them: `slack:T1/U1`; in the room the name that belongs to the token."""
    at: datetime


class Said(Event):
    """A person wrote a message."""

    kind: Literal["said"] = "said"
    message: str
    """The id of the message in its channel. A thread is named by the id of the message that began it."""
    text: str
    addressed: bool = False
    """It is a direct message to Moss, or mentions it."""


class Replied(Event):
    """The agent answered under its own name, and Moss saw it."""

    kind: Literal["replied"] = "replied"
    message: str
    text: str
    edited: bool = False
    """It gave a message of before these words; `at` is when."""


class Reacted(Event):
    kind: Literal["reacted"] = "reacted"
    message: str
    emoji: str
    """Its name without colons and skin tone, or the character itself."""
    added: bool


class Flagged(Event):
    """A complaint with words: from a menu of the message, or from a form."""

    kind: Literal["flagged"] = "flagged"
    message: str
    failure: FailureKind = FailureKind.other
    reason: str = ""
    answer_to: str = ""


class Commanded(Event):
    """`/moss ...`"""

    kind: Literal["commanded"] = "commanded"
    words: str
    answer_to: str = ""
    """What the platform wants back with a private answer, such as Slack's response URL. It may be worthless later."""


class Pressed(Event):
    """A button on a card."""

    kind: Literal["pressed"] = "pressed"
    message: str
    verb: str
    subject: str
    reason: str = ""
    answer_to: str = ""


AnyEvent = Annotated[Said | Replied | Reacted | Flagged | Commanded | Pressed, Field(discriminator="kind")]


# What Moss says. All text is plain: whatever looks like markup or a mention is shown as it is and calls nobody.


class Tone(StrEnum):
    calm = "calm"
    asking = "asking"
    good = "good"
    bad = "bad"


class Style(StrEnum):
    plain = "plain"
    primary = "primary"
    danger = "danger"


class Action(Value):
    """A button. A press carries nothing but the verb and the id of what it is about."""

    label: str
    verb: str
    subject: str
    style: Style = Style.plain
    wants_reason: bool = False
    """Ask for a few words before it counts."""


class Line(Value):
    """One fact of a card: `Score`, `4 -> 11 of 12`."""

    name: str
    text: str


class Section(Value):
    """A part of a card's body."""

    heading: str = ""
    text: str
    look: Literal["text", "quote", "code"] = "text"


class Picture(Value):
    """An image; `alt` says in words what it shows."""

    png: bytes
    alt: str


class Card(Value):
    title: str
    tone: Tone = Tone.calm
    lines: tuple[Line, ...] = ()
    body: tuple[Section, ...] = ()
    picture: Picture | None = None
    actions: tuple[Action, ...] = ()
    link: str = ""
    """Where the whole of it can be read."""

    @property
    def text(self) -> str:
        """The card in one line, for notifications and screens that show no cards."""
        return " · ".join([self.title, *(f"{line.name}: {line.text}" for line in self.lines)])


class Inbox(Protocol):
    """Where an adapter hands over what happened."""

    async def take(self, event: AnyEvent) -> bool:
        """Write it down, and return once nothing can lose it any more. False when it was there already."""

    async def add(self, db: Any, event: AnyEvent) -> bool:
        """As `take`, within the caller's own transaction (`Store.writing`), so that what a chat shows and what Moss
        heard cannot come apart. Call `wake` after the transaction."""

    async def add_all(self, db: Any, events: Sequence[AnyEvent]) -> list[bool]:
        """As `add`, for many at a time."""

    def wake(self) -> None:
        """There is something to work on."""


class Health(Value):
    """How the connection to one workspace of a platform is."""

    platform: str
    workspace: str = ""
    """Empty until the platform has said it, and where one connection carries several."""
    connected: bool = False
    since: datetime | None = None
    last_event_at: datetime | None = None
    reconnects: int = 0
    problem: str = ""
    """Why it is not connected, as one sentence."""


class Chat(Protocol):
    """One platform. Everything here may raise Unavailable, which is worth another try, or Refused, which is not."""

    platform: str

    def parts(self, text: str) -> list[str]:
        """Words that are too long for one message there, as those of several: at least one, and nothing is lost."""

    async def post(self, place: Place, what: Card | str, key: str, *, as_agent: str = "") -> str:
        """Say something, in the thread when the place has one, and return the message's id. The same key is posted
        once, as far as the platform can tell: a crash may come between the posting and the writing down. `as_agent`
        names the substrate whose words these are; what has none is said by Moss itself."""

    async def edit(self, place: Place, message: str, card: Card) -> None:
        """Replace what a message of ours shows. Refused when the message is gone."""

    async def whisper(self, place: Place, person: str, what: Card | str, answer_to: str, key: str) -> None:
        """Say something that only this person sees. The same key is said once."""

    async def working(self, place: Place, message: str, on: bool) -> None:
        """A sign on a person's message that its answer is on the way. Never raises."""

    async def history(self, place: Place, limit: int) -> list[Message]:
        """The last messages of a conversation, oldest first, as far as the platform lets Moss read them."""

    async def link(self, place: Place, message: str) -> str:
        """Where a person finds this message; empty when the platform has no such thing."""

    async def groups_of(self, person: str, among: Collection[str]) -> frozenset[str]:
        """Which of these are groups or roles that the person is in now, as the platform has it, and not as the person
        says. Names that are no group of it are none. Raises when the platform cannot say."""


class Adapter(Protocol):
    """One platform, whole: what is heard there goes to the inbox, and `chat` speaks. Each is opened in this order."""

    @property
    def chat(self) -> Chat: ...

    @property
    def health(self) -> tuple[Health, ...]: ...

    def listen(self) -> None:
        """What has to be free on this machine is taken now, so that a start fails at once or not at all."""

    async def serve(self) -> None:
        """Until `stop`: from then on nothing more is heard, and it returns once all that was heard is written down."""

    def stop(self) -> None: ...

    async def close(self) -> None:
        """The end of speaking, too."""
