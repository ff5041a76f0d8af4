"""The schema of audit.json: valid, in step with the docs, and strict."""

import copy
import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from fairjax.audit import schema
from tests.audit.example import VALIDATOR, empty, example, small

PAGE = Path(__file__).parents[2] / "docs" / "audit-schema.md"


def subschemas(entry):
    """The schema and every schema within it."""
    yield entry
    for value in entry.values():
        if isinstance(value, dict):
            yield from subschemas(value)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    assert schema.schema()["properties"]["schema_version"]["const"] == schema.VERSION
    assert schema.schema()["properties"]["schema"]["const"] == schema.NAME
    assert schema.VERSION in schema.schema()["$id"]


# The largest takes longest.
DOCUMENTS = [pytest.param(example, marks=pytest.mark.slow), small, empty]


@pytest.mark.parametrize("make", DOCUMENTS)
def test_documents_are_valid(make):
    document = json.loads(json.dumps(make()))
    assert [e.message for e in VALIDATOR.iter_errors(document)] == []


@pytest.mark.parametrize("make", DOCUMENTS)
def test_the_types_hold_all_of_a_document(make):
    document = make()
    typed = dataclasses.asdict(schema.Document.of(document))
    assert {name: typed[name] for name in document} == document


def change(path, value):
    """The example with one entry set, or taken out where the value is `...`."""
    document = copy.deepcopy(small())
    entry = document
    for step in path[:-1]:
        entry = entry[step]
    if value is ...:
        del entry[path[-1]]
    else:
        entry[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "other"),
        (("schema_version",), "9.0"),
        (("gaps",), ...),
        (("extra",), 1),
        (("data", "sha256"), "abc"),
        (("data", "models", 0, "threshold"), "0.3"),
        (("cohort", 0, "status"), "fine"),
        (("cohort", 0, "rows"), -1),
        (("cohort", 0, "rows"), 1.5),
        (("cohort", 0, "prevalence"), 1.5),
        (("gaps", 0, "p"), 2),
        (("gaps", 0, "compared"), None),
        (("groups", 0, "estimate"), "0.5"),
        (("groups", 0, "extra"), 1),
        (("curves", "roc", 0, "fpr", 0), "x"),
        (("gate", 0, "status"), "maybe"),
        (("settings", "confidence"), 1),
        (("summary",), [1]),
    ],
)
def test_what_is_no_audit_is_refused(path, value):
    assert not VALIDATOR.is_valid(change(path, value))


def test_settings_may_grow():
    assert VALIDATOR.is_valid(change(("settings", "bins"), {"age": [18, 65]}))


def test_every_definition_is_used_and_every_field_explained():
    text = json.dumps(schema.schema())
    for name, entry in schema.schema()["$defs"].items():
        assert f'"#/$defs/{name}"' in text
        if entry.get("type") == "object":
            assert entry["description"].endswith(".")
    for entry in subschemas(schema.schema()):
        for name, field in entry.get("properties", {}).items():
            if not isinstance(field, dict) or name == "properties":
                continue
            referred = field.get("$ref", "").rsplit("/", 1)[-1]
            target = schema.schema()["$defs"].get(referred, {})
            assert "description" in field or "description" in target, name


def test_the_page_is_in_step():
    assert PAGE.read_text(encoding="utf-8") == schema.markdown()


def test_the_page_names_every_field():
    text = schema.markdown()
    for entry in subschemas(schema.schema()):
        for name, field in entry.get("properties", {}).items():
            if isinstance(field, dict):
                assert f"| `{name}`" in text
