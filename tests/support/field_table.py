"""The table of a model's fields as the documentation shows it, from the JSON Schema that a coder gets."""

from typing import Any

from pydantic import BaseModel

from core.model.replies import Reply


def field_table(model: type[BaseModel]) -> str:
    """Fields are optional only in replies: in the files that Moss writes none is ever missing."""
    shape = model.model_json_schema()
    required = shape.get("required", []) if issubclass(model, Reply) else shape["properties"]
    rows = ["| field | holds | meaning |", "|---|---|---|"]
    for name, field in shape["properties"].items():
        holds = _holds(field, shape.get("$defs", {})) + ("" if name in required else "; optional")
        rows.append(f"| `{name}` | {holds} | {field['description']} |")
    return "\n".join(rows)


def _holds(field: dict[str, Any], shared: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_holds(one, shared) for one in field["anyOf"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return _holds(shared[name], shared) if "enum" in shared[name] else name
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    match field["type"]:
        case "array":
            return f"list{_range(field, 'Items')} of {_holds(field['items'], shared)}"
        case "string":
            pattern = f" matching `{field['pattern']}`" if "pattern" in field else ""
            return f"text{_range(field, 'Length', ' characters')}{pattern}"
        case "integer":
            return f"number from {field['minimum']}" if "minimum" in field else "number"
    return str(field["type"])


def _range(field: dict[str, Any], what: str, unit: str = "") -> str:
    low, high = field.get(f"min{what}", 0), field.get(f"max{what}")
    return f" ({low} to {high}{unit})" if high is not None else ""
