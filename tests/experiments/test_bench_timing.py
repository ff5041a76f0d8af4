"""Calls are timed in turns, and a table goes where its markers are."""

import dataclasses
import json

import pytest

from experiments.bench import timing


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    seconds: float


def test_calls_are_made_in_turns_after_one_that_is_not_counted():
    made = []
    calls = {"a": lambda: made.append("a"), "b": lambda: made.append("b")}
    taken = timing.in_turns(calls, rounds=2)
    assert made == ["a", "b"] * 3
    assert {name: times.shape for name, times in taken.items()} == {
        "a": (2,),
        "b": (2,),
    }
    assert all((times >= 0).all() for times in taken.values())


def test_a_table_with_what_it_was_measured_on():
    text = timing.markdown(("x", "note"), "rl", [["1", "so"]], {"cores": 2})
    assert text == "Measured on cores 2.\n\n| x | note |\n|--:|:--|\n| 1 | so |\n"


def test_decimals():
    assert timing.decimals(1.25, 1) == "1.2"
    assert timing.decimals(None, 1) == "-"


def test_rows_are_saved_beside_their_table(tmp_path):
    rows = [Row("a", 0.5)]
    timing.save(tmp_path, "x", rows, "the table", {"cores": 2}, docs=False)
    saved = json.loads((tmp_path / "x.json").read_text())
    assert saved == {
        "environment": {"cores": 2},
        "rows": [{"name": "a", "seconds": 0.5}],
    }
    assert (tmp_path / "x.md").read_text() == "the table"


def test_a_table_replaces_the_one_between_its_markers(tmp_path):
    path = tmp_path / "page.md"
    begin, end = timing.BEGIN.format("x"), timing.END.format("x")
    path.write_text(f"head\n{begin}\nold\n{end}\ntail\n")
    timing.copy_between_markers(path, "x", "new")
    assert path.read_text() == f"head\n{begin}\n\nnew\n{end}\ntail\n"
    with pytest.raises(ValueError, match="no '<!-- table: begin y"):
        timing.copy_between_markers(path, "y", "new")
