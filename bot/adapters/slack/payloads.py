"""What Slack sends, as far as Moss reads it. Whatever does not look like this is no event of ours."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Of a person, a channel, a workspace. None holds a slash, which separates the parts of a place."""
Stamp = Annotated[str, Field(pattern=r"^[0-9]{1,11}\.[0-9]{1,9}$")]
"""The id of a message in its channel, which is also its time, in seconds before the year 5138."""
Token = Annotated[str, Field(min_length=1, max_length=200)]


class Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value not in (None, "")}


class Item(Payload):
    type: str = ""
    channel: Id
    ts: Stamp


class ReactionEvent(Payload):
    type: str
    user: Id
    reaction: Token
    item: Item
    event_ts: Stamp


class MessageEvent(Payload):
    channel: Id
    ts: Stamp
    user: Id | None = None
    bot_id: Id | None = None
    app_id: Id | None = None
    channel_type: str = ""
    subtype: str | None = None
    thread_ts: Stamp | None = None
    text: str = ""


class EditEvent(Payload):
    """A message was given other words; the inner one is as it stands now, and names no channel."""

    channel: Id
    ts: Stamp
    message: dict[str, object]
    previous_message: dict[str, object] = {}


class CommandPayload(Payload):
    channel_id: Id
    user_id: Id
    text: str = ""
    trigger_id: Token
    response_url: str = ""


class Named(Payload):
    id: Id


class Message(Payload):
    ts: Stamp
    thread_ts: Stamp | None = None


class Shortcut(Payload):
    """`Flag for Moss` in the menu of a message."""

    callback_id: str
    trigger_id: Token
    channel: Named
    message: Message
    response_url: str = ""


class Container(Payload):
    channel_id: Id
    message_ts: Stamp
    thread_ts: Stamp | None = None


class Button(Payload):
    action_id: str
    value: str = ""


class Actions(Payload):
    """A press of a button."""

    user: Named
    trigger_id: Token
    container: Container | None = None
    channel: Named | None = None
    message: Message | None = None
    actions: tuple[Button, ...] = Field(min_length=1)
    response_url: str = ""

    @property
    def where(self) -> Container | None:
        """Slack says it twice."""
        if self.container or not (self.channel and self.message):
            return self.container
        return Container(channel_id=self.channel.id, message_ts=self.message.ts, thread_ts=self.message.thread_ts)


class Field_(Payload):
    value: str | None = None
    selected_option: dict[str, object] | None = None


class State(Payload):
    values: dict[str, dict[str, Field_]] = {}


class View(Payload):
    id: Token
    callback_id: str
    private_metadata: str = ""
    state: State = State()


class Submission(Payload):
    """A form that was sent."""

    user: Named
    view: View


class Subject(Payload):
    """What a form is about: it travels with the form, as its private metadata."""

    channel: Id
    message: Stamp
    thread: str = ""
    value: str = ""
    answer_to: str = ""
