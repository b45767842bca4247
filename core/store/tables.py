"""The tables. A column is named as the field of the value it holds; what a value does not have is explained here."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    false,
    text,
)

from core.model.consent import Policy
from core.model.evidence import Check
from core.model.keypoints import Matrix
from core.model.run import RUN_IN_FLIGHT, Budget, Done
from core.model.substrate import Substrate
from core.model.swap import SWAP_IN_FLIGHT
from core.model.transcript import Message, Place, Transcript
from core.store.columns import Holds, Utc, Words

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _one_at_a_time(name: str, *columns: Column[Any], where: str) -> Index:
    """The database itself refuses the second: at most one row in these states per value of the columns."""
    return Index(name, *columns, unique=True, sqlite_where=text(where), postgresql_where=text(where))


def _state_is_one_of(states: tuple[str, ...]) -> str:
    return f"state IN ({', '.join(repr(str(state)) for state in states)})"


def _substrate() -> Column[str]:
    return Column("substrate", Words, ForeignKey("substrates.name"), nullable=False)


substrates = Table(
    "substrates",
    metadata,
    Column("name", Words, primary_key=True),
    Column("body", Holds(Substrate), nullable=False),
    Column("stuck", Boolean, nullable=False),
    Column("saved_at", Utc, nullable=False),
)

# The head of each substrate's chain of facts: whoever changes anything of a substrate holds this row.
chains = Table(
    "chains",
    metadata,
    Column("substrate", Words, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Words, nullable=False),
)

facts = Table(
    "facts",
    metadata,
    Column("substrate", Words, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Utc, nullable=False),
    Column("who", Words, nullable=False),
    Column("noun", Words, nullable=False),
    Column("id", Words, nullable=False),
    Column("what", Words, nullable=False),
    Column("before", Words),
    Column("after", Words),
    Column("detail", JSON, nullable=False),
    Column("previous_hash", Words, nullable=False),
    Column("hash", Words, nullable=False),
    Index("ix_facts_id", "noun", "id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Words, primary_key=True),
    _substrate(),
    Column("platform", Words, nullable=False),
    Column("workspace", Words, nullable=False),
    Column("channel", Words, nullable=False),
    Column("thread", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("sealed_at", Utc),
    Column("sealed_by", Words),
)
_one_at_a_time(
    "one_open_batch",
    batches.c.substrate,
    batches.c.platform,
    batches.c.workspace,
    batches.c.channel,
    batches.c.thread,
    where="state = 'open'",
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", Words, primary_key=True),
    Column("batch", Words, ForeignKey("batches.id"), nullable=False),
    Column("n", Integer, nullable=False),  # the order in which they came
    Column("place", Holds(Place), nullable=False),
    Column("turn", Words, nullable=False),
    Column("transcript", Holds(Transcript), nullable=False),
    Column("checks", Holds(tuple[Check, ...]), nullable=False),
    UniqueConstraint("batch", "turn"),
    Index("ix_chunks_turn", "turn"),
)

flags = Table(
    "flags",
    metadata,
    Column("id", Words, primary_key=True),
    Column("chunk", Words, ForeignKey("chunks.id"), nullable=False),
    Column("person", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("emoji", Words),
    Column("reason", Words),
    Column("at", Utc, nullable=False),
    Column("withdrawn_at", Utc),
    UniqueConstraint("chunk", "person"),
    Index("ix_flags_person", "person", "at"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Words, primary_key=True),
    _substrate(),
    Column("batch", Words, ForeignKey("batches.id"), nullable=False, index=True),
    Column("state", Words, nullable=False),
    Column("dial", Words, nullable=False),
    Column("budget", Holds(Budget), nullable=False),
    Column("starter", Words, nullable=False),
    Column("queued_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("sentence", Words, nullable=False),
    Column("archived", Boolean, nullable=False),
)
_one_at_a_time("one_run_in_flight", runs.c.substrate, where=_state_is_one_of(RUN_IN_FLIGHT))

# The spend and the end stand in `done` as well; as columns they can be summed up.
steps = Table(
    "steps",
    metadata,
    Column("run", Words, ForeignKey("runs.id"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("done", Holds(Done), nullable=False),
    Column("money_usd", Float, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("ended_at", Utc, nullable=False),
)

# What was spent, as it was spent: the record that budgets, caps and cards go by. Lines are added and never changed.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    _substrate(),
    Column("run", Words, ForeignKey("runs.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("kind", Words, nullable=False),
    Column("stage", Words, nullable=False),
    Column("what", Words, nullable=False),
    Column("question", Words, nullable=False, index=True),
    Column("provider", Words, nullable=False),
    Column("model", Words, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("money_usd", Float),  # null where nobody knows it
    Column("unpriced_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("at", Utc, nullable=False),
    Index("ix_ledger_run", "run", "n"),
    Index("ix_ledger_substrate", "substrate", "at"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("id", Words, primary_key=True),
    Column("run", Words, ForeignKey("runs.id"), nullable=False, index=True),
    Column("iteration", Integer, nullable=False),
    Column("base_commit", Words, nullable=False),
    Column("commit", Words, nullable=False),
    Column("tree", Words, nullable=False),
    Column("image", Words, nullable=False),
    Column("diff_hash", Words, nullable=False),
    Column("files", Holds(tuple[str, ...]), nullable=False),
    Column("insertions", Integer, nullable=False),
    Column("deletions", Integer, nullable=False),
    Column("baseline", Holds(Matrix), nullable=False),
    Column("control", Holds(Matrix), nullable=False),
    Column("matrix", Holds(Matrix), nullable=False),
    Column("partial", Boolean, nullable=False),
    Column("summary", Words, nullable=False),
    Column("diff_artefact", Words, nullable=False),
)

consents = Table(
    "consents",
    metadata,
    Column("id", Words, primary_key=True),
    _substrate(),
    Column("run", Words, ForeignKey("runs.id")),
    Column("candidate", Words, ForeignKey("candidates.id")),
    Column("version", Integer),
    Column("commit", Words, nullable=False),
    Column("image", Words, nullable=False),
    Column("diff_hash", Words, nullable=False),
    Column("matrix_hash", Words, nullable=False),
    Column("policy", Holds(Policy), nullable=False),
    Column("starter", Words, nullable=False),
    Column("flaggers", Holds(frozenset[str]), nullable=False),
    Column("state", Words, nullable=False),
    Column("asked_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
)
_one_at_a_time("one_asked_consent", consents.c.run, where="state = 'asked'")

votes = Table(
    "votes",
    metadata,
    Column("consent", Words, ForeignKey("consents.id"), primary_key=True),
    Column("person", Words, primary_key=True),
    Column("approve", Boolean, nullable=False),
    Column("at", Utc, nullable=False),
    Column("reason", Words),
)

swaps = Table(
    "swaps",
    metadata,
    Column("id", Words, primary_key=True),
    _substrate(),
    Column("consent", Words, ForeignKey("consents.id"), nullable=False, unique=True),
    Column("run", Words, ForeignKey("runs.id")),
    Column("state", Words, nullable=False),
    Column("commit", Words, nullable=False),
    Column("image", Words, nullable=False),
    Column("boot_id", Words, nullable=False),
    Column("old_box", Words, nullable=False),
    Column("new_box", Words, nullable=False),
    Column("planned_at", Utc, nullable=False),
    Column("stopped_at", Utc),
    Column("ended_at", Utc),
    Column("outage_ms", Integer),
    Column("problem", Words),
)
_one_at_a_time("one_swap_in_flight", swaps.c.substrate, where=_state_is_one_of(SWAP_IN_FLIGHT))

versions = Table(
    "versions",
    metadata,
    Column("substrate", Words, ForeignKey("substrates.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("commit", Words, nullable=False),
    Column("image", Words, nullable=False),
    Column("box", Words, nullable=False),
    Column("boot_id", Words, nullable=False),
    Column("swap", Words, ForeignKey("swaps.id")),
    Column("restores", Integer),
    Column("since", Utc, nullable=False),
    Column("until", Utc),
)
_one_at_a_time("one_live_version", versions.c.substrate, where="until IS NULL")

last_good = Table(
    "last_good",
    metadata,
    Column("substrate", Words, ForeignKey("substrates.name"), primary_key=True),
    Column("image", Words, nullable=False),
    Column("commit", Words, nullable=False),
    Column("box", Words, nullable=False),
    Column("recorded_at", Utc, nullable=False),
)

# Work to hand over, written by the transaction that makes it due.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    _substrate(),
    Column("kind", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("added_at", Utc, nullable=False),
    Column("done_at", Utc),
    UniqueConstraint("kind", "subject"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    _substrate(),
    Column("kind", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("at", Utc, nullable=False),
    UniqueConstraint("substrate", "kind", "subject"),
)

people = Table(
    "people",
    metadata,
    Column("name", Words, primary_key=True),
    Column("token_hash", Words, nullable=False, unique=True),
    Column("added_at", Utc, nullable=False),
)

# A slot without a holder was given back in order: nothing of it is left to resume.
leases = Table(
    "leases",
    metadata,
    Column("slot", Words, primary_key=True),
    Column("n", Integer, nullable=False, unique=True),
    Column("holder", Words),
    Column("expires_at", Utc),
)

# What reached Moss from a chat, in order, each delivery once; worked on until it is done.
inbox = Table(
    "inbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", Words, nullable=False),
    Column("workspace", Words, nullable=False),
    Column("event", Words, nullable=False),
    Column("lane", Words, nullable=False),  # events of one lane are worked on one after the other
    Column("body", JSON, nullable=False),  # redacted; without its words once it is done
    Column("altered", Boolean, nullable=False, server_default=false()),  # by redaction
    Column("meant", Words),  # what the event was taken to mean, so that it means the same when it is worked on again
    Column("at", Utc, nullable=False),  # when it arrived
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("holder", Words),  # the process that works on it
    Column("done_at", Utc),
    Column("emoji", Words),  # of a reaction
    Column("happened_at", Utc),  # when it was put on or taken off, as its platform says
    UniqueConstraint("platform", "workspace", "event"),
    Index(
        "ix_inbox_waiting",
        "lane",
        "id",
        sqlite_where=text("done_at IS NULL"),
        postgresql_where=text("done_at IS NULL"),
    ),
    Index(
        "ix_inbox_next",
        "holder",
        "id",
        sqlite_where=text("done_at IS NULL"),
        postgresql_where=text("done_at IS NULL"),
    ),
    Index("ix_inbox_lane", "lane"),
    Index(
        "ix_inbox_reactions",
        "lane",
        "happened_at",
        sqlite_where=text("emoji IS NOT NULL"),
        postgresql_where=text("emoji IS NOT NULL"),
    ),
)

# Conversations with the agent as Moss saw them, so that a flag needs no fetch.
turns = Table(
    "turns",
    metadata,
    Column("n", Integer, primary_key=True),
    _substrate(),
    Column("platform", Words, nullable=False),
    Column("workspace", Words, nullable=False),
    Column("channel", Words, nullable=False),
    Column("thread", Words, nullable=False),
    Column("message", Words, nullable=False),  # the id of the message on its platform
    Column("said", Holds(Message), nullable=False),
    Column("version", Integer),  # of the agent, for what the agent said
    Column("seconds", Float),  # it took the agent to answer
    Column("at", Utc, nullable=False),
    UniqueConstraint("platform", "workspace", "channel", "message"),
    Index("ix_turns_place", "platform", "workspace", "channel", "thread"),
)

# Messages of our own that are edited later, or must not be posted twice.
posts = Table(
    "posts",
    metadata,
    Column("key", Words, primary_key=True),
    Column("platform", Words, nullable=False),
    Column("workspace", Words, nullable=False),
    Column("channel", Words, nullable=False),
    Column("thread", Words, nullable=False),
    Column("message", Words, nullable=False),
    Column("shown", Words, nullable=False),  # the digest of what it shows
    Column("at", Utc, nullable=False),
    Index("ix_posts_message", "platform", "workspace", "channel", "message"),
)

# How far somebody has read: a follower of the facts, a scan of a session.
marks = Table(
    "marks",
    metadata,
    Column("name", Words, primary_key=True),
    Column("body", JSON, nullable=False),
    Column("at", Utc, nullable=False),
)

# The room: the chat that Moss brings along. `seq` grows with every change, so that a reader knows what is new.
room_posts = Table(
    "room_posts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("channel", Words, nullable=False),
    Column("thread", Integer),  # the post that began it
    Column("who", Words, nullable=False),
    Column("only_for", Words),  # a whisper
    Column("text", Words, nullable=False),
    Column("card", JSON),
    Column("picture", LargeBinary),
    Column("key", Words, unique=True),
    Column("at", Utc, nullable=False),
    Column("edited_at", Utc),
    Index("ix_room_posts_channel", "channel", "thread", "id"),
)

room_reactions = Table(
    "room_reactions",
    metadata,
    Column("post", Integer, ForeignKey("room_posts.id"), primary_key=True),
    Column("who", Words, primary_key=True),
    Column("emoji", Words, primary_key=True),
    Column("at", Utc, nullable=False),
)

# Browsers that are in: each holds a random secret, and this its hash. Whoever removes the person shuts them all out.
room_sessions = Table(
    "room_sessions",
    metadata,
    Column("secret_hash", Words, primary_key=True),
    Column("person", Words, ForeignKey("people.name", ondelete="CASCADE"), nullable=False),
    Column("at", Utc, nullable=False),
)
