"""The benchmark of the audit runs the command, and writes what it took."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments.bench import audit as bench
from experiments.bench import timing

# The command, but for the numbers, whose computation the audit's own tests have.
COMMAND = """
import sys
from fairjax.audit import command, document, output
document.analyse = lambda document, *_: document
document.words = lambda _: {"summary": []}
output.write = lambda document, folder, overwrite: folder
sys.exit(command.main())
"""


@pytest.mark.slow
def test_audits_are_measured_and_written(tmp_path, monkeypatch):
    document = tmp_path / "performance.md"
    before, after = (mark.format("audit-cpu") for mark in (timing.BEGIN, timing.END))
    document.write_text(f"{before}\nold\n{after}\n", encoding="utf-8")
    monkeypatch.setattr(timing, "DOCUMENT", document)
    monkeypatch.setattr(bench, "_COMMAND", COMMAND)
    options = bench.Options(
        rows=600, patients=300, large_rows=0, runs=1, output=tmp_path, docs=True
    )
    rows = bench.main(options)
    saved = json.loads((tmp_path / "audit-cpu.json").read_text())["rows"]
    for row, patients, kept in zip(rows, (0, 300), saved, strict=True):
        assert (row.table, row.rows, row.patients) == ("CSV", 600, patients)
        assert (row.groups, row.crossed) == (6, 8)
        assert 0.1 < row.peak < 10
        assert min(*row.cpu, *row.wall) > 0
        assert kept["wall"] == row.wall
    text = document.read_text(encoding="utf-8")
    assert "| CSV | 600 | - | 6 | 8 | 1 |" in text
    assert "| CSV | 600 | 300 | 6 | 8 | 1 |" in text
    assert "old" not in text


def test_the_parquet_table_is_the_csv_tables_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_CHUNK", 40)
    rng = np.random.default_rng(0)
    bench.cohort(100, 50, rng).to_csv(tmp_path / "a.csv", index=False)
    bench.write_parquet(tmp_path / "a.parquet", 100, 0)
    csv = pd.read_csv(tmp_path / "a.csv")
    parquet = pd.read_parquet(tmp_path / "a.parquet")
    assert len(csv) == len(parquet) == 100
    assert list(csv) == list(parquet)
    assert set(parquet["race"]) <= set(bench.RACES)
    assert np.isin(parquet["died"], [0, 1]).all()
    assert parquet["risk"].between(0, 1).all()


@pytest.mark.slow
def test_a_failure_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_COMMAND", "raise SystemExit(2)")
    with pytest.raises(ValueError, match="ended with 2"):
        bench.audit(tmp_path / "empty.csv", tmp_path / "out")


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="--rows, --patients and --runs must be"):
        bench.main(bench.Options(rows=0, output=tmp_path))
