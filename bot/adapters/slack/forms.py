"""The forms that Slack shows: for a complaint with words, and for the reason behind a button. Pure."""

from typing import Any

from pydantic import ValidationError

from bot.adapters.slack.payloads import Field_, Subject, View
from core.model.evidence import FailureKind

FLAG_FORM, PRESS_FORM = "moss_flag_form", "moss_press_form"
KIND, REASON = "kind", "reason"
REASON_CHARS = 3000
META_CHARS = 3000
"""Of private metadata, by Slack's limits."""


def flag_form(about: Subject) -> dict[str, Any]:
    kinds = [_option(kind) for kind in FailureKind]
    kind = {
        "type": "input",
        "block_id": KIND,
        "label": _text("What went wrong?"),
        "element": {
            "type": "static_select",
            "action_id": KIND,
            "options": kinds,
            "initial_option": _option(FailureKind.other),
        },
    }
    return _form(FLAG_FORM, "Flag for Moss", "Flag", about, [kind, _reason("What should it have done?", optional=True)])


def reason_form(about: Subject) -> dict[str, Any]:
    verb = about.value.partition(" ")[0].capitalize()[:20] or "Go on"
    return _form(PRESS_FORM, verb, verb, about, [_reason("Why?", optional=False)])


def subject_of(view: View) -> Subject | None:
    try:
        return Subject.model_validate_json(view.private_metadata)
    except ValidationError:
        return None


def reason_of(view: View) -> str:
    return (_filled(view, REASON).value or "").strip()


def flag_of(view: View) -> FailureKind:
    chosen = _filled(view, KIND).selected_option or {}
    try:
        return FailureKind(str(chosen.get("value")))
    except ValueError:
        return FailureKind.other


def _filled(view: View, name: str) -> Field_:
    return view.state.values.get(name, {}).get(name, Field_())


def _form(id: str, title: str, submit: str, about: Subject, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    meta = about.model_dump_json()
    if len(meta) > META_CHARS:  # without the address for a private answer there is another way to give one
        meta = about.model_copy(update={"answer_to": ""}).model_dump_json()
    return {
        "type": "modal",
        "callback_id": id,
        "title": _text(title),
        "submit": _text(submit),
        "close": _text("Cancel"),
        "private_metadata": meta,
        "blocks": blocks,
    }


def _reason(label: str, *, optional: bool) -> dict[str, Any]:
    return {
        "type": "input",
        "block_id": REASON,
        "label": _text(label),
        "optional": optional,
        "element": {
            "type": "plain_text_input",
            "action_id": REASON,
            "multiline": True,
            "max_length": REASON_CHARS,
        },
    }


def _option(kind: FailureKind) -> dict[str, Any]:
    return {"text": _text(kind.replace("_", " ")), "value": kind.value}


def _text(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}
