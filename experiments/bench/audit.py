"""Measures a whole audit by the command, from a table on disk to a report on disk.

Run ``python -m experiments.bench.audit --help`` for the options. Each audit runs in a
new process, as a user starts it: importing, reading, compiling and drawing are in the
time, and the peak memory is that process's memory.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from experiments.bench import timing
from experiments.bench.timing import Cell, Limit

RACES = ("Asian", "Black", "other", "white")
_COMMAND = "import sys; from fairjax.audit.command import main; sys.exit(main())"
_CHUNK = 1_000_000


@dataclass(frozen=True)
class Options(timing.Options):
    """Time whole audits of simulated tables.

    Attributes:
      rows: Rows of the CSV table; by default as many as CheXpert has.
      patients: Patients of the CSV table in audits by patient; by default as many as
        CheXpert has.
      large_rows: Rows of the Parquet table; 0 for no such table.
      runs: How often the CSV table is audited; the Parquet table is audited once.
      seed: Seed of the tables.
      quick: Audit small tables, once.
    """

    rows: Annotated[int, Limit(quick=5000)] = 223_414
    patients: Annotated[int, Limit(quick=2000)] = 64_540
    large_rows: Annotated[int, Limit(0, quick=20_000)] = 10_000_000
    runs: Annotated[int, Limit(quick=1)] = 5
    seed: Annotated[int, Limit(0)] = 0


@dataclass(frozen=True)
class Row(timing.Row):
    """Audits of one table.

    Attributes:
      table: Format of the table.
      rows: Number of rows.
      patients: Number of patients; 0 if each row counts as a patient.
      groups: Number of groups of single attributes.
      crossed: Number of groups of the intersection.
      wall: Seconds of each audit.
      cpu: Processor seconds of each audit.
      peak: Peak memory, in gigabytes.
    """

    table: Annotated[str, Cell("table")]
    rows: Annotated[int, Cell("rows", ",")]
    patients: Annotated[int, Cell("patients", ",", of=lambda row: row.patients or None)]
    groups: Annotated[int, Cell("groups")]
    crossed: Annotated[int, Cell("crossed")]
    wall: Annotated[
        list[float],
        Cell("runs", of=lambda row: len(row.wall)),
        Cell("wall s", ".1f", of=lambda row: statistics.median(row.wall)),
        Cell("slowest", ".1f", of=lambda row: max(row.wall)),
    ]
    cpu: Annotated[
        list[float], Cell("CPU s", ".1f", of=lambda row: statistics.median(row.cpu))
    ]
    peak: Annotated[float, Cell("peak GB", ".2f")]


def cohort(rows: int, patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """Makes predictions of a model that underestimates the risk of one group."""
    patient = rng.integers(0, patients, rows)
    race = rng.choice(len(RACES), patients, p=[0.1, 0.2, 0.1, 0.6])[patient]
    sex = rng.integers(0, 2, patients)[patient]
    logit = rng.normal(-1.5, 1, rows)
    died = rng.random(rows) < 1 / (1 + np.exp(-logit))
    seen = logit + rng.normal(0, 0.5, rows) - 0.2 * (race == 1)
    return pd.DataFrame(
        {
            "died": died.astype(np.int8),
            "risk": np.round(1 / (1 + np.exp(-seen)), 6),
            "sex": np.array(["F", "M"])[sex],
            "race": np.array(RACES)[race],
            "patient": patient,
        }
    )


def write_parquet(path: Path, rows: int, seed: int) -> None:
    """Writes the table as Parquet, some rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    schema = pa.Schema.from_pandas(cohort(1, 1, np.random.default_rng(0)))
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _CHUNK):
            number = min(_CHUNK, rows - start)
            writer.write_table(pa.Table.from_pandas(cohort(number, number, rng)))


def audit(
    table: Path, output: Path, *, by_patient: bool = False
) -> tuple[float, float, float]:
    """Audits a table in a new process.

    Returns:
      Wall-clock seconds, processor seconds, and gigabytes of peak memory.

    Raises:
      ValueError: If the audit fails.
    """
    arguments = [
        *("audit", str(table), "--outcome", "died", "--score", "risk"),
        *("--attributes", "sex", "race", "--threshold", "0.3"),
        *("--output", str(output), "--overwrite"),
        *(("--patient-id", "patient") if by_patient else ()),
    ]
    start = time.perf_counter()
    # Only the audit's resources are measured; its output is discarded.
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *arguments], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"the audit of {table} ended with {process.returncode}.")
    wall = time.perf_counter() - start
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def measure(
    name: str, table: Path, rows: int, patients: int, runs: int, folder: Path
) -> Row:
    """Audits one table several times, one audit after another."""
    output = folder / f"audit-{name}"
    found = [audit(table, output, by_patient=patients > 0) for _ in range(runs)]
    wall, cpu, peaks = zip(*found, strict=True)
    groups, crossed = 2 + len(RACES), 2 * len(RACES)
    return Row(name, rows, patients, groups, crossed, list(wall), list(cpu), max(peaks))


def tasks(options: Options) -> Iterator[list[Row]]:
    """Measures the audits of all tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "table.csv"
        rng = np.random.default_rng(options.seed)
        cohort(options.rows, options.patients, rng).to_csv(table, index=False)
        audits = [("CSV", table, options.rows, n) for n in (0, options.patients)]
        rows = [measure(*one, options.runs, folder) for one in audits]
        if options.large_rows:
            table = folder / "table.parquet"
            write_parquet(table, options.large_rows, options.seed)
            rows.append(measure("Parquet", table, options.large_rows, 0, 1, folder))
        yield rows


def main(options: Options) -> list[Row]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used, or an audit fails.
    """
    if min(options.rows, options.patients, options.runs) < 1 or options.large_rows < 0:
        raise ValueError(
            "--rows, --patients and --runs must be 1 or more, --large-rows 0 or more; "
            f"got {options}."
        )
    (rows,) = timing.run(options, {"audit-cpu": Row}, tasks, width=150)
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
