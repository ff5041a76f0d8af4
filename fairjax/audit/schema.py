"""The JSON schema of an audit's document, and its description in Markdown."""

import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

NAME = "fairjax-audit"
VERSION = "1.0"
_SOURCE = (
    "This page is written from `fairjax/audit/schema.json`, a JSON Schema of draft "
    "2020-12, which the tests hold every audit against. The report, the figures and "
    "the CSV tables are all made from this file alone."
)


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``audit.json``.

    Example:
      >>> schema()["properties"]["schema"]["const"]
      'fairjax-audit'
    """
    file = resources.files("fairjax.audit").joinpath("schema.json")
    return json.loads(file.read_text(encoding="utf-8"))


def markdown() -> str:
    """The schema as the page ``docs/audit-schema.md``.

    Example:
      >>> markdown().splitlines()[0]
      '# The file audit.json'
    """
    root = schema()
    lines = [
        "# The file audit.json",
        "",
        f"Schema `{NAME}`, version {VERSION}. {root['description']}",
        "",
        _SOURCE,
        "",
        "## The whole",
        "",
        *_fields(root),
    ]
    for name, entry in root["$defs"].items():
        if entry.get("type") == "object":
            text = entry["description"]
            lines += ["", f"## {name}", "", text, "", *_fields(entry)]
            lines += _nested(entry)
    return "\n".join(lines) + "\n"


def _fields(entry: Mapping[str, Any]) -> Iterator[str]:
    """A table of an object's fields."""
    yield "| Field | Type | Meaning |"
    yield "|---|---|---|"
    required = set(entry.get("required", ()))
    for name, field in entry["properties"].items():
        meaning = field.get("description") or _target(field).get("description", "")
        optional = "" if name in required else " (optional)"
        yield f"| `{name}`{optional} | {_type(field)} | {meaning} |"


def _nested(entry: Mapping[str, Any]) -> Iterator[str]:
    """Tables of the objects that stand within a field."""
    for name, field in entry["properties"].items():
        inner = field.get("items", field)
        if "properties" in inner:
            yield from ("", f"### {name}", "", field["description"], "")
            yield from _fields(inner)


def _target(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the field refers to; itself where it refers to nothing."""
    if "$ref" not in field:
        return field
    return schema()["$defs"][field["$ref"].rsplit("/", 1)[1]]


def _type(field: Mapping[str, Any]) -> str:
    """The field's type in words."""
    name = field.get("$ref", "").rsplit("/", 1)[-1]
    field = _target(field)
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    if kinds == ["array"]:
        items = field["items"]
        linked = items.get("$ref", "").rsplit("/", 1)[-1]
        if linked and _target(items).get("type") == "object":
            return f"list of [{linked}](#{linked})"
        return f"list of {_type(items)}"
    if kinds == ["object"]:
        if name:
            return f"[{name}](#{name})"
        more = field.get("additionalProperties")
        return f"object of {_type(more)}" if isinstance(more, Mapping) else "object"
    return " or ".join(kinds)
