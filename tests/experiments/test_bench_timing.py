"""Calls are timed in turns, and a table goes where its markers are."""

import dataclasses
import json
from typing import Annotated

import pytest

from experiments.bench import timing


@dataclasses.dataclass(frozen=True)
class Row(timing.Row):
    name: Annotated[str, timing.Cell("name")]
    seconds: Annotated[
        float | None,
        timing.Cell("s", ".1f"),
        timing.Cell("twice", of=lambda row: 2 * row.seconds),
    ]
    hidden: int = 7


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
    text = timing.markdown(("x", "note"), "rl", [["1", "so"]], "Measured here.")
    assert text == "Measured here.\n\n| x | note |\n|--:|:--|\n| 1 | so |\n"


@dataclasses.dataclass(frozen=True)
class Missing(timing.Row):
    ratio: Annotated[float | None, timing.Cell("ratio", ".1f")] = None


def test_decimals():
    assert Missing(1.25).cells() == ["1.2"]
    assert Missing().cells() == ["-"]


def test_a_row_shows_the_columns_of_its_fields():
    assert Row.heads() == ["name", "s", "twice"]
    assert Row("a", 1.25).cells() == ["a", "1.2", "2.5"]


def test_rows_are_saved_beside_their_table(tmp_path):
    options = timing.Options(output=tmp_path)
    timing.save(options, "x", Row, [Row("a", 0.5)], {"cores": 2})
    saved = json.loads((tmp_path / "x.json").read_text())
    assert saved == {
        "environment": {"cores": 2},
        "rows": [{"name": "a", "seconds": 0.5, "hidden": 7}],
    }
    assert (tmp_path / "x.md").read_text() == (
        "Measured on cores 2.\n\n| name | s | twice |\n|:--|--:|--:|\n"
        "| a | 0.5 | 1.0 |\n"
    )


def test_rows_are_printed(capsys):
    timing.show(("name", "s"), [Row("a", 0.5)], width=40)
    assert "0.5" in capsys.readouterr().out


@dataclasses.dataclass(frozen=True)
class Options:
    sizes: Annotated[timing.Numbers, timing.Limit(some=True)] = (1, 2)
    members: Annotated[int, timing.Limit(0)] = 0
    share: float = 0.5
    number: int = 1
    quick: bool = False


def test_whole_numbers_among_options_have_a_least():
    timing.check_numbers(Options())
    with pytest.raises(ValueError, match="--number must be 1 or more; got 0"):
        timing.check_numbers(Options(number=0))
    with pytest.raises(ValueError, match="--members must be 0 or more; got -1"):
        timing.check_numbers(Options(members=-1))
    for sizes, shown in (((3, 0), r"\(3, 0\)"), ((), r"\(\)")):
        with pytest.raises(ValueError, match=f"--sizes must be 1 or more; got {shown}"):
            timing.check_numbers(Options(sizes=sizes))


@dataclasses.dataclass(frozen=True)
class Quick(timing.Options):
    rounds: Annotated[int, timing.Limit(quick=3)] = 9
    sizes: Annotated[timing.Numbers, timing.Limit(quick=())] = (1, 2)
    groups: int = 6


@pytest.mark.parametrize("quick", [False, True])
def test_a_quick_run_has_the_quick_values(tmp_path, quick):
    seen = []

    def tasks(options):
        seen.append((options.rounds, options.sizes, options.groups))
        yield [Row("a", 0.5)]
        yield iter([Row("b", 0.5)])

    options = Quick(output=tmp_path, quick=quick)
    (rows,) = timing.run(options, {"x-{}": Row}, tasks)
    assert [row.name for row in rows] == ["a", "b"]
    assert seen == [(3, (), 6) if quick else (9, (1, 2), 6)]
    (saved,) = tmp_path.glob("x-*.json")
    assert len(json.loads(saved.read_text())["rows"]) == 2


def test_an_error_of_the_user_is_one_line(monkeypatch):
    def main(options: Options) -> None:
        raise ValueError(f"members are {options.members}.")

    monkeypatch.setattr("sys.argv", ["bench", "--members", "3"])
    with pytest.raises(SystemExit, match="^error: members are 3.$"):
        timing.command(main, Options, "text")


@dataclasses.dataclass(frozen=True)
class Long(Row):
    SHORT = (("name", ("b", "c")),)


def test_a_long_table_is_a_page_beside_the_document(tmp_path, monkeypatch):
    document = tmp_path / "speed.md"
    monkeypatch.setattr(timing, "DOCUMENT", document)
    begin, end = timing.BEGIN.format("x"), timing.END.format("x")
    document.write_text(f"{begin}\nold\n{end}\n")
    options = timing.Options(output=tmp_path, docs=True)
    rows = [Long(name, 0.5) for name in "abcd"]
    timing.save(options, "x", Long, rows, {"cores": 2})
    whole = (tmp_path / "x.md").read_text()
    page = (tmp_path / "speed" / "x.md").read_text()
    assert page == f"# x\n\n[What the columns mean](../speed.md). {whole}"
    assert document.read_text() == (
        f"{begin}\n\nMeasured on cores 2.\n\n| name | s | twice |\n|:--|--:|--:|\n"
        "| b | 0.5 | 1.0 |\n| c | 0.5 | 1.0 |\n\n[All 4 rows](speed/x.md).\n\n"
        f"{end}\n"
    )
    # Where none of the rows is among those chosen, the document has them all.
    timing.save(options, "x", Long, [Long("a", 0.5)], {"cores": 2})
    assert "| a | 0.5 | 1.0 |" in document.read_text()
    assert "rows](" not in document.read_text()


def test_a_table_replaces_the_one_between_its_markers(tmp_path):
    path = tmp_path / "page.md"
    begin, end = timing.BEGIN.format("x"), timing.END.format("x")
    path.write_text(f"head\n{begin}\nold\n{end}\ntail\n")
    timing.copy_between_markers(path, "x", "new")
    assert path.read_text() == f"head\n{begin}\n\nnew\n{end}\ntail\n"
    with pytest.raises(ValueError, match="must have '<!-- table: begin y"):
        timing.copy_between_markers(path, "y", "new")
