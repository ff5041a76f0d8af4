"""Coverage and errors of the intervals and tests, in a short form of the benchmark."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from experiments.bench import inference, timing
from experiments.bench.inference import Options, claims, covers
from experiments.bench.simulations import Clusters, Scenario, find, find_clustered
from experiments.reporting.docs import ROOT

OPTIONS = Options(runs=200, replicates=40, permutations=19, draws=1000)
# Three standard errors of a share of 95 % over the runs.
SLACK = 3 * (0.95 * 0.05 / OPTIONS.runs) ** 0.5
SIX = Scenario("TPR", (60,) * 6)
THREE = Clusters(40, 3)


simulated = functools.cache(inference.many)


def many(one, options, truth, *settings):
    """Each simulation once: the command's tables are of the same ones."""
    assert dataclasses.replace(options, output=OPTIONS.output, docs=False) == OPTIONS
    return simulated(one, OPTIONS, truth, *settings)


def test_shares_by_hand():
    intervals = np.array([[0.0, 0.2], [0.1, 0.3], [0.25, 0.5], [0.3, 0.3]])
    # The ends belong to an interval, and 0 is not above 0.
    assert covers(intervals, 0.3) == 0.75
    assert covers(intervals, np.array([0.1, 0.0, 0.3, 0.4])) == 0.5
    assert claims(intervals) == 0.75
    assert inference.width(intervals) == pytest.approx(0.65 / 4)


def test_a_line_by_hand():
    line = inference.Line(("10", "a"), (0.95, float("nan")), ((0.0, 0.1234),))
    assert line.cells() == ["10", "a", "0.950", "-", "[0.000, 0.123]"]
    text = timing.markdown(("n", "x"), "rr", [["1", "2"]], "made so")
    assert text == "made so\n\n| n | x |\n|--:|--:|\n| 1 | 2 |\n"


@pytest.mark.slow
def test_gap_intervals_hold_where_the_percentile_interval_fails():
    parity, apart = (
        many(find, OPTIONS, gap, SIX, OPTIONS.sizes) for gap in (0.0, 0.15)
    )
    assert covers(parity.interval, 0) > 0.95 - SLACK
    assert covers(apart.interval, 0.15) > 0.95 - SLACK
    assert claims(parity.interval) < 0.05 + SLACK
    assert np.mean(parity.p_value <= 0.05) < 0.05 + SLACK
    # It knows more than nothing: some gaps are found, and more than at parity.
    assert claims(apart.interval) > 0.15
    assert np.mean(apart.p_value <= 0.05) > 0.15
    assert claims(parity.percentile) > 0.2
    assert covers(apart.percentile, 0.15) < 0.8
    # What noise adds is mostly taken off where there is no gap, and little elsewhere.
    raw, corrected = parity.gap.mean(axis=0)
    assert corrected < 0.5 * raw
    assert abs(apart.gap[:, 1].mean() - 0.15) < abs(apart.gap[:, 0].mean() - 0.15)
    # Far from 0, not only just above it.
    assert np.median(parity.percentile[:, 0]) > 0.05


@pytest.mark.slow
def test_patients_are_what_counts():
    found = many(find_clustered, OPTIONS, 0.0, THREE, OPTIONS.draws)
    by_row, by_patient = found.gap[:, 0], found.gap[:, 1]
    assert claims(by_row) > 0.2
    assert claims(by_patient) < 0.05 + SLACK
    # Three intervals a run make this more certain than one.
    assert covers(found.rates[:, 1], 0.75) > 0.95 - SLACK
    assert covers(found.rates[:, 0], 0.75) < 0.85


@pytest.mark.slow
def test_single_rates_and_aurocs(monkeypatch):
    monkeypatch.setattr(inference, "many", many)
    wilson, jeffreys, percentile = inference.rate_line(OPTIONS, 10, 0.05).found[:3]
    # An interval of ten rows is conservative or not by chance: the exact shares are
    # .914 and .988.
    np.testing.assert_allclose((wilson, jeffreys), (0.914, 0.988), atol=SLACK + 0.01)
    assert percentile < 0.5
    smooth, plain = inference.auroc_line(OPTIONS, 12, 0.9).found
    assert smooth > 0.95 - SLACK
    assert plain < 0.9


@pytest.mark.slow
def test_the_command_writes_every_table(tmp_path, monkeypatch):
    document = tmp_path / "inference.md"
    marks = [
        f"<!-- table: begin inference-{name} -->\n<!-- table: end inference-{name} -->"
        for name in inference.TABLES
    ]
    document.write_text("\n".join(marks))
    monkeypatch.setattr(inference, "DOCUMENT", document)
    monkeypatch.setattr(inference, "many", many)
    monkeypatch.setattr(inference, "RATES", [(10, 0.05)])
    monkeypatch.setattr(inference, "AUROCS", [(12, 0.9)])
    monkeypatch.setattr(inference, "SCENARIOS", [SIX, Scenario("AUROC", (12,) * 2)])
    monkeypatch.setattr(inference, "EXTREME", [])
    monkeypatch.setattr(inference, "CLUSTERS", [THREE])
    monkeypatch.setattr(inference, "GAPS", (0.0,))
    found = inference.main(dataclasses.replace(OPTIONS, output=tmp_path, docs=True))
    assert [len(lines) for lines in found.values()] == [1, 1, 2, 1]
    saved = json.loads((tmp_path / "inference.json").read_text())
    assert saved["options"]["runs"] == OPTIONS.runs
    text = document.read_text()
    for name, (columns, _) in inference.TABLES.items():
        cells = found[name][0].cells()
        assert len(cells) == len(columns)
        assert f"| {' | '.join(cells)} |" in text
        assert (tmp_path / f"inference-{name}.md").read_text() in text
    assert "200 data sets a line" in text


def test_the_tables_of_the_document_come_from_full_runs():
    text = (ROOT / inference.DOCUMENT).read_text(encoding="utf-8")
    made = f"{Options().runs:,} data sets a line"
    assert text.count(made) == len(inference.TABLES)
    for columns, _ in inference.TABLES.values():
        assert f"| {' | '.join(columns)} |" in text


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="--runs must be 10 or more"):
        inference.main(Options(runs=5, output=tmp_path))
