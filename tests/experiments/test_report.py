"""The report of a system with metrics of its own: made-up numbers, every file read."""

import csv
import gzip
import io
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from experiments.core import runner
from experiments.core.evaluation import Predictions
from experiments.core.files import locked, write_text
from experiments.core.results import Results, compare_to_baseline
from experiments.reporting import docs, report, tables, wording
from experiments.reporting.prediction_audit import audited_table
from experiments.reporting.report import System
from experiments.reporting.tables import Column
from fairjax.evaluation import Evaluation, crossed_name
from fairjax.evaluation.names import (
    AUROC_GAP,
    EQUITY,
    GAP,
    PARITY,
    full_names,
)

CROSSED = "sex × race"
METHODS = {
    "unimodal": "Labs alone",
    "joint": "Joint training",
    "ogm": "OGM-GE",
    "multifair": "MultiFair",
}
GROUP_METRICS = (GAP, PARITY, AUROC_GAP, EQUITY)


@dataclass(frozen=True)
class Options:
    dataset: str = "made"
    output: Path = Path("results")
    seed: int = 7
    bootstrap: int = 50
    permutations: int = 20
    repeats: int = 2
    rho: float = 1.2


@dataclass(frozen=True)
class Budget:
    steps: int = 10


def names_of(results):
    attributes = (*results.splits.attributes, crossed_name(results.splits.attributes))
    groups = [n for metric in GROUP_METRICS for n in full_names(metric, attributes)]
    return ("auroc", "brier", *groups, "group_auroc/sex=female")


@pytest.fixture(scope="module")
def results(splits):
    """Two repeats of four methods; corrected gaps are not defined."""
    rng = np.random.default_rng(0)
    rows = len(splits.table.label)
    weights = rng.gamma(4.0, 0.25, rows).astype(np.float32)
    made = Results(Options(), splits, Budget(), {}, {}, {}, {}, {}, weights=weights)
    for number, (method, title) in enumerate(METHODS.items()):
        scores = rng.random((2, rows)).astype(np.float32)
        setting = "selected" if method == "multifair" else ""
        made.predictions[method] = Predictions(method, setting, scores, scores >= 0.5)
        made.titles[method] = title
        means = {
            m: 0.7 - 0.01 * number + 0.001 * i for i, m in enumerate(names_of(made))
        }
        grouped = [m for m in means if m.split("/")[0] in GROUP_METRICS]
        made.evaluations[method] = Evaluation(
            {m: value + np.array([-0.001, 0.001]) for m, value in means.items()},
            {m: value + rng.normal(0, 0.002, 50) for m, value in means.items()},
            dict.fromkeys(grouped, 0.0312),
            dict.fromkeys(grouped, math.nan),
            dict.fromkeys(grouped, 0.5),
        )
    return made


def answers(results, tests):
    c = tests["auroc"]["multifair"]
    return [f"MultiFair less joint training: {c.difference:+.3f}."]


def protocol(results):
    return wording.shared(results, "joint training")


def columns(results):
    return [
        Column("AUROC", "auroc", digits=4, interval=3, terminal=True),
        Column("ES-AUROC", f"{EQUITY}/{CROSSED}", digits=4, terminal=True),
        Column("corrected", f"{GAP}/mean", "corrected"),
        Column("p", f"{EQUITY}/{CROSSED}", "p", terminal=True),
    ]


SYSTEM = System(
    title="MultiFair",
    baseline="joint",
    metrics=names_of,
    tests=lambda results: compare_to_baseline(
        results, "joint", names_of(results), ("unimodal",)
    ),
    columns=columns,
    said={
        "legend": "What columns mean.",
        "remark": "A remark.",
        "picture.one": "The first",
        "picture.two": "Not drawn",
    },
    pictures={"one": lambda results: Figure(), "two": lambda results: None},
    answers=answers,
    protocol=protocol,
    extra=lambda results: {"ablation": [0.123456789, math.nan]},
)


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name in ("one.svg", "two.png", "two.svg"):
        (folder / name).write_text("of an earlier run")
    report.write(SYSTEM, results, folder)
    return folder


@pytest.fixture(scope="module")
def summary(written):
    return json.loads((written / "summary.json").read_text(encoding="utf-8"))


def test_files(written):
    assert {path.name for path in written.iterdir()} == {
        *("results.csv", "summary.json", "summary.md", "one.png"),
    }


def test_summary_is_that_of_the_declared_metrics(summary, results):
    assert list(summary) == [
        *("dataset", "rows", "outcome", "prevalence", "protocol", "methods"),
        "ablation",
    ]
    label = results.splits.table.label
    weighted = (label * results.weights).sum() / results.weights.sum()
    assert summary["prevalence"] == pytest.approx(weighted, rel=1e-6)
    assert summary["ablation"] == [0.1234568, None]
    method = summary["methods"]["multifair"]
    assert set(method[EQUITY]) == {"sex", "race", CROSSED, "mean", "worst"}
    assert method[EQUITY][CROSSED]["null"] == 0.0312
    assert method[GAP]["mean"]["corrected"] is None
    assert set(method["group_auroc"]["sex=female"]) == {"mean", "low", "high"}
    tests = {name: m["test_vs_joint"] for name, m in summary["methods"].items()}
    assert tests["joint"] == {}
    assert tests["ogm"]["auroc"]["difference"] == pytest.approx(-0.01)
    p, p_holm = (tests["multifair"]["auroc"][kind] for kind in ("p", "p_holm"))
    assert p_holm == pytest.approx(2 * p, rel=1e-5)
    # A reference is compared on its own.
    assert tests["unimodal"]["auroc"]["difference"] == pytest.approx(0.01)
    assert tests["unimodal"]["auroc"]["p_holm"] is None


def test_csv_keeps_a_group_s_whole_name(written, results):
    with (written / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * len(names_of(results))
    attributes = {row["attribute"] for row in rows if row["metric"] == EQUITY}
    assert attributes == {"sex", "race", CROSSED, "mean", "worst"}
    (found,) = {r["attribute"] for r in rows if r["metric"] == "group_auroc"}
    assert found == "sex=female"


def test_markdown(written):
    text = (written / "summary.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# MultiFair on SUPPORT2, seriously ill inpatients"
    rows = [line for line in lines if line.startswith("|")]
    assert rows[0] == "| Method | AUROC | ES-AUROC | corrected | p |"
    assert rows[1] == "|---|---|---|---|---|"
    assert rows[3].startswith("| Joint training | 0.6900 [0.6")
    assert rows[3].endswith(" | - |  |")
    assert rows[6] == "| Noise floor of the gaps |  | 0.0312 |  |  |"
    assert "![The first](one.png)" in lines
    assert "two.png" not in text
    assert "MultiFair less joint training: -0.020." in lines
    assert "corrected: not defined with weights" in text
    assert "in which each patient keeps their weight" in text
    assert "paired difference from joint training" in text
    assert "nan" not in text


def test_terminal_is_the_short_table(results):
    console = Console(width=80, record=True, file=io.StringIO())
    report.show(SYSTEM, results, console)
    shown = console.export_text()
    assert "0.6900" in shown
    assert "[" not in shown
    assert "corrected" not in shown


def test_a_document_s_table(summary, tmp_path):
    (tmp_path / "multifair" / "made").mkdir(parents=True)
    path = tmp_path / "multifair" / "made" / "summary.json"
    path.write_text(json.dumps(summary), encoding="utf-8")
    text = "before\n<!-- results: multifair/made -->\nearlier\n<!-- end -->\nafter\n"
    filled = docs.fill(text, tmp_path)
    assert filled.startswith("before\n<!-- results: multifair/made -->\n\n1,200 patien")
    assert filled.endswith("\n\n<!-- end -->\nafter\n")
    assert "earlier" not in filled
    assert docs.fill(filled, tmp_path) == filled
    rows = [line for line in filled.splitlines() if line.startswith("|")]
    assert "| AUROC | ES-AUROC | AUROC gap |" in rows[0]
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        *(f"| {title}" for title in METHODS.values()),
        "| *noise floor*",
    ]
    assert "p: paired test against joint training" in filled


def test_a_run_kept_for_the_documents(written, summary, tmp_path):
    """Compressed tables hold the same bytes, and fill the same documents."""
    run = tmp_path / "results" / "multifair" / "made"
    shutil.copytree(written, run)
    docs.keep(run, tmp_path / "kept")
    folder = tmp_path / "kept" / "multifair" / "made"
    assert {path.name for path in folder.iterdir()} == {
        *("results.csv.gz", "summary.json.gz", "summary.md", "one.png"),
    }
    for path in run.iterdir():
        packed = folder / f"{path.name}.gz"
        kept = folder / path.name
        found = (
            kept.read_bytes() if kept.exists() else gzip.decompress(packed.read_bytes())
        )
        assert found == path.read_bytes()
    # The header's time is 0, so that an equal run is an equal file.
    assert (folder / "summary.json.gz").read_bytes()[4:8] == bytes(4)
    text = "<!-- results: multifair/made -->\n<!-- end -->\n"
    assert docs.fill(text, tmp_path / "kept") == docs.fill(text, tmp_path / "results")


def test_what_became_of_claims_on_every_data_set(tmp_path):
    for name, verdicts in (("b", ("holds", "not shown")), ("a", ("not run", "holds"))):
        (tmp_path / "made" / name).mkdir(parents=True)
        claims = [
            {"claim": claim, "verdict": verdict}
            for claim, verdict in zip(("One.", "Two."), verdicts, strict=True)
        ]
        path = tmp_path / "made" / name / "summary.json"
        # In `a` the first is another under the other kind of threshold.
        under = [{**claims[0], "verdict": "holds" if name == "a" else verdicts[0]}]
        other = {"thresholds": "common", "claims": [*under, claims[1]]}
        summary = {"claims": claims, "claims_under_other_thresholds": other}
        # Some results are compressed.
        packed = path if name == "a" else path.with_name("summary.json.gz")
        write_text(packed, json.dumps(summary))
    filled = docs.fill("<!-- claims: made -->\nold\n<!-- end -->\n", tmp_path)
    rows = [line for line in filled.splitlines() if line.startswith("|")]
    assert rows[0] == "| Claim | `a` | `b` |"
    assert rows[2:] == [
        "| 1. One. | not run; common threshold: holds | holds |",
        "| 2. Two. | holds | not shown |",
    ]
    with pytest.raises(
        ValueError, match="claims must have results; got none of unmade"
    ):
        docs.fill("<!-- claims: unmade -->\n<!-- end -->", tmp_path)


def test_a_table_goes_where_its_place_is_marked(tmp_path):
    document = tmp_path / "page.md"
    mark = "<!-- results: {} -->\n{}<!-- end -->\n"
    document.write_text(mark.format("a", "old\n") + mark.format("b", ""))
    docs.put(document, "a", r"| \g<1> |")
    docs.put(document, "b", "\n| b |\n")
    filled = mark.format("a", "\n| \\g<1> |\n\n") + mark.format("b", "\n| b |\n\n")
    assert document.read_text() == filled
    with pytest.raises(ValueError, match=r"page\.md must mark one place for c; got 0"):
        docs.put(document, "c", "")
    assert document.read_text() == filled


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("unfair/made", "one of fairgrad, multifair, .*; got 'unfair'"),
        ("multifair/none", "in .*multifair/none/summary.json; got no such file"),
        ("none", "in .*fairgrad/none/summary.json; got no such file"),
    ],
)
def test_markers_without_results(tmp_path, marker, words):
    with pytest.raises(ValueError, match=words):
        docs.fill(f"<!-- results: {marker} -->\n<!-- end -->", tmp_path)


def test_a_column_of_no_metric(summary):
    with pytest.raises(ValueError, match="must be in the summary; got 'gap/sex'"):
        tables.table(
            summary["methods"],
            [Column("Gap", "gap/sex")],
            baseline="joint",
            floor="",
        )


def test_no_row_of_noise_where_nothing_has_a_floor(summary):
    _, rows = tables.table(
        summary["methods"], [Column("Brier", "brier")], baseline="joint", floor="floor"
    )
    assert [row[0] for row in rows] == [*METHODS.values()]


def test_the_audited_table(results):
    frame, options = audited_table(
        results, methods=("joint", "multifair", "absent"), system="MultiFair"
    )
    assert options.title.startswith("MultiFair on SUPPORT2")
    assert tuple(options.names) == ("Joint training", "MultiFair")
    scores = results.predictions["multifair"].scores[0]
    np.testing.assert_array_equal(frame["MultiFair: risk"], scores)
    np.testing.assert_array_equal(frame["MultiFair: selected"], scores >= 0.5)


def test_fingerprint_is_of_what_training_depends_on():
    first = runner.fingerprint(Options(), Budget())
    assert first == runner.fingerprint(Options(output=Path("x"), bootstrap=9), Budget())
    assert first != runner.fingerprint(Options(seed=8), Budget())
    assert first != runner.fingerprint(Options(), Budget(steps=11))
    one, two = (
        runner.fingerprint(Options(rho=rho), Budget(), ignore=("rho",))
        for rho in (1.0, 2.0)
    )
    assert one == two != first


def test_unfinished_work_is_kept_until_it_is_done(tmp_path):
    def killed():
        with runner.workplace(tmp_path, "a") as work:
            (work / "checkpoint").write_text("half")
            raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        killed()
    with runner.workplace(tmp_path, "a") as work:
        assert (work / "checkpoint").read_text() == "half"
        with (
            pytest.raises(ValueError, match="another run with the same options"),
            locked(work),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_command_s_error_is_one_line(capsys):
    def fail(options, console):
        raise ValueError(f"no {options.dataset}:\n  none")

    code = runner.main(Options, fail, ["--dataset", "x"], command="python -m made")
    assert code == 1
    assert capsys.readouterr().err == "error: no x: none\n"
    done = []
    given = ["--seed", "3"]
    assert (
        runner.main(Options, lambda o, c: done.append(o.seed), given, command="") == 0
    )
    assert done == [3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(repeats=0), "--repeats must be 1 to 1,000; got 0"),
        (Options(bootstrap=1), "--bootstrap must be 2 to 10,000; got 1"),
        (Options(permutations=10_001), "--permutations must be 2 to 10,000; got 10001"),
        (Options(seed=-1), "--seed must be 0 to 2147483647; got -1"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        runner.check(options)
