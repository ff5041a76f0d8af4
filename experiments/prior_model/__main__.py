"""Writes a published model's predictions for real patients, to audit.

``python -m experiments.prior_model predictions.csv`` writes RHC's patients with the
risk of death within 60 days that SUPPORT's prognostic model gave them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments.core import runner
from experiments.core.files import write_whole
from experiments.datasets.prior_model import rhc_prior_model


@dataclass(frozen=True)
class Options:
    """Writes a published model's predictions for real patients, as a table to audit."""

    path: Annotated[Path, tyro.conf.Positional] = Path("predictions.csv")
    """The CSV file to write."""


def run(options: Options, _: Console) -> None:
    """Writes the table, and prints a description."""
    table = rhc_prior_model()
    write_whole(
        options.path,
        lambda path: table.to_csv(path, index=False, lineterminator="\n"),
    )
    print(
        f"{options.path}: {len(table):,} patients of the right heart catheterisation "
        f"study, {table['died'].mean():.1%} died within 60 days. A published model, "
        "which was not fitted to these patients, predicted `risk`."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return runner.main(
        Options, run, arguments, command="python -m experiments.prior_model"
    )


if __name__ == "__main__":
    sys.exit(main())
