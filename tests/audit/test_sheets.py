"""CSV tables: complete, the same everywhere, and harmless in a spreadsheet."""

import csv
import functools
import io

import hypothesis
import pandas as pd
import pytest
from hypothesis import strategies as st

from fairjax.audit.sheets import cell, sheets
from tests.audit.example import FORMULA, empty, example

tables_of = functools.cache(lambda make: sheets(make()))
RISKY = ("=", "+", "-", "@", "\t", "\r", "\n")


@pytest.mark.parametrize(
    "text",
    ["=cmd()", "+1", "-1+1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", "\n=1"],
)
def test_formulas_are_neutralised(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.5, "-0.5"),
        (3, "3"),
        (0.0, "0.0"),
        (None, ""),
        (True, "True"),
        ("a=b", "a=b"),
    ],
)
def test_numbers_and_plain_text_stay(value, text):
    assert cell(value) == text


def test_a_list_is_guarded_as_a_whole():
    assert cell(["=a", "b"]) == "'=a; b"
    assert cell([]) == ""


@hypothesis.given(st.text(max_size=12), st.text(max_size=12))
def test_any_name_comes_back_and_none_is_a_formula(group, attribute):
    entry = {"attribute": attribute, "group": group, "rows": 3, "status": "ok"}
    text = sheets({"cohort": [entry]})["cohort"]
    _, row = csv.reader(io.StringIO(text, newline=""))
    for value, name in zip(row, (attribute, group), strict=False):
        name = name.replace("\r\n", "\n").replace("\r", "\n")
        assert not value.startswith(RISKY)
        assert not value.lstrip().startswith(RISKY)
        assert value in (name, f"'{name}")
    assert row[2] == "3"


def test_tables_hold_the_document():
    tables = tables_of(example)
    for name in ("overall", "cohort", "groups", "gaps", "discovery", "quality", "gate"):
        frame = pd.read_csv(io.StringIO(tables[name]), keep_default_na=False)
        entries = example()[name]
        assert len(frame) == len(entries)
        assert not (set(frame.columns) ^ set(entries[0])) - {"attributes"}
    frame = pd.read_csv(io.StringIO(tables["groups"]))
    expected = [e["estimate"] for e in example()["groups"]]
    pd.testing.assert_series_equal(
        frame["estimate"], pd.Series(expected, dtype=float), check_names=False
    )
    hidden = frame[frame["status"] == "suppressed"]
    assert len(hidden)
    assert (
        hidden[["estimate", "lower", "upper", "rows", "positives"]]
        .isna()
        .to_numpy()
        .all()
    )
    assert set(hidden["group"]) == {f"'{FORMULA}", f"F, {FORMULA}", f"M, {FORMULA}"}


def test_curves_are_long():
    tables = tables_of(example)
    for kind, first in (
        ("roc", "fpr"),
        ("calibration", "predicted"),
        ("decision", "threshold"),
    ):
        frame = pd.read_csv(io.StringIO(tables[f"curve_{kind}"]))
        assert len(frame) == sum(len(c[first]) for c in example()["curves"][kind])
    frame = pd.read_csv(io.StringIO(tables["sensitivity"]))
    assert len(frame) == sum(len(e["threshold"]) for e in example()["sensitivity"])
    frame = pd.read_csv(io.StringIO(tables["comparison"]))
    parts = frame["part"].value_counts()
    assert parts["overall"] == parts["worst"] == len(example()["comparison"])
    assert parts["group"] == sum(len(e["groups"]) for e in example()["comparison"])


def test_lines_end_in_a_line_feed_and_tables_without_entries_have_a_header():
    for make in (example, empty):
        for text in tables_of(make).values():
            assert text.endswith("\n")
            assert "\r" not in text
    assert tables_of(empty)["gaps"].count("\n") == 1
    assert set(tables_of(empty)) == set(tables_of(example))
