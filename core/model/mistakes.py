"""What pydantic finds wrong, in words for whoever wrote it. Never the value itself: it may be secret."""

from pydantic_core import ErrorDetails

_SHOULD_BE = {
    "string_type": "a text in quotes",
    "path_type": "a path in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a table of names and values",
    "model_type": "a table of names and values",
    "model_attributes_type": "a table of names and values",
    "timezone_aware": "a time with its zone, such as 2026-01-05T09:00:00Z",
    "datetime_from_date_parsing": "a time, such as 2026-01-05T09:00:00Z",
    "datetime_parsing": "a time, such as 2026-01-05T09:00:00Z",
    "json_type": "JSON",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def in_words(error: ErrorDetails) -> str:
    """What follows the place in a sentence, without a full stop: `should be a whole number`."""
    kind, context = error["type"], error.get("ctx", {})
    if wanted := _SHOULD_BE.get(kind):
        return f"should be {wanted}"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        limit = context[key]
        return f"should be {words} {f'{limit:g}' if isinstance(limit, float) else limit}"
    match kind:
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return "is not known here; remove it, or correct its name"
        case "literal_error" | "enum":
            return f"should be {context['expected']}"
        case "union_tag_invalid":
            return f"should be of the kind {context['expected_tags']}"
        case "string_pattern_mismatch":
            return f"should match `{context['pattern']}`"
        case "too_short" | "string_too_short":
            return "is empty; fill it in" if context["min_length"] == 1 else f"needs {context['min_length']} or more"
        case "too_long" | "string_too_long":
            return f"is too long; {context['max_length']} is the most"
        case "json_invalid":
            return f"is not JSON: {context['error']}"
        case "value_error":
            return str(context["error"]).rstrip(".")
        case _:
            said = error["msg"].removeprefix("Input ").rstrip(".")
            return said[:1].lower() + said[1:]
