"""Which reactions complain about a reply, and of what."""

import re
from collections.abc import Mapping

from core.model.evidence import FailureKind

FLAGS: Mapping[str, tuple[str, FailureKind]] = {
    "triangular_flag_on_post": ("🚩", FailureKind.other),
    "thumbsdown": ("👎", FailureKind.other),
    "bug": ("🐛", FailureKind.other),
    "warning": ("⚠️", FailureKind.other),
    "x": ("❌", FailureKind.wrong_answer),
    "wrench": ("🔧", FailureKind.wrong_tool),
    "hammer_and_wrench": ("🛠️", FailureKind.wrong_tool),
    "mag": ("🔍", FailureKind.retrieval),
    "world_map": ("🗺️", FailureKind.plan),
    "clipboard": ("📋", FailureKind.wrong_format),
    "lock": ("🔒", FailureKind.permission),
    "octagonal_sign": ("🛑", FailureKind.stopping),
    "repeat": ("🔁", FailureKind.stopping),
    "twisted_rightwards_arrows": ("🔀", FailureKind.routing),
    "brain": ("🧠", FailureKind.state),
    "scissors": ("✂️", FailureKind.incomplete),
    "angry": ("😠", FailureKind.tone),
}
"""Name, character, and what it complains of."""

_OTHER_NAMES = {
    "-1": "thumbsdown",
    "thumbs_down": "thumbsdown",
    "triangular_flag": "triangular_flag_on_post",
    "stop_sign": "octagonal_sign",
    "tools": "hammer_and_wrench",
    "map": "world_map",
    "cross_mark": "x",
    "rage": "angry",
}
_VARIANT = "\ufe0f"
_TONES = re.compile("[\U0001f3fb-\U0001f3ff]|(?:::?|_)skin-tone-[2-6]|_tone[1-5]")
_NAMES = {character.replace(_VARIANT, ""): name for name, (character, _) in FLAGS.items()} | _OTHER_NAMES


def name_of(emoji: str) -> str:
    """One name for an emoji, however it is written: `👎🏽`, `:-1::skin-tone-4:` and `thumbsdown` are the same."""
    bare = _TONES.sub("", emoji.strip().lower()).replace(_VARIANT, "").strip(":")
    return _NAMES.get(bare, bare)


def meanings(configured: Mapping[str, FailureKind]) -> dict[str, FailureKind]:
    """What each emoji complains of, by its name. What is configured wins."""
    return {name: kind for name, (_, kind) in FLAGS.items()} | {name_of(own): kind for own, kind in configured.items()}


def kind_of(emoji: str, configured: Mapping[str, FailureKind]) -> FailureKind | None:
    """None when it is no complaint."""
    return meanings(configured).get(name_of(emoji))
