"""A whole run of any system: patients, training, report and audit, under one bar."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiments.core import runner
from experiments.core.files import prepare_folder
from experiments.core.results import AnyResults
from experiments.reporting import report
from experiments.reporting.prediction_audit import write_audit


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that is prepared: the patients are read, and training can begin.

    Attributes:
      system: The system's report.
      results: Results that are still empty.
      methods: Names of the methods.
      units: The bar's units for training and evaluation.
      train: ``train(work, bar)`` trains and evaluates, and returns the results.
      ignore: Options that matter only after training (`runner.fingerprint`).
      note: A sentence below the table in the terminal.
    """

    system: report.System
    results: AnyResults
    methods: Collection[str]
    units: int
    train: Callable[[Path, runner.Bar], AnyResults]
    ignore: Collection[str] = ()
    note: str = ""


def run(prepare: Callable[[], Prepared], console: Console) -> Path:
    """Trains, evaluates, reports and audits; returns the folder of the results.

    Raises:
      ValueError: If an option, a table or a folder cannot be used.
    """
    with runner.whole_run(console) as bar:
        made = prepare()
        system, results = made.system, made.results
        options = results.options
        # A run with wrong options must not leave a folder behind.
        folder = prepare_folder(options.output / options.dataset)
        console.print(runner.describe(results, len(made.methods)))
        mark = runner.fingerprint(options, results.budget, ignore=made.ignore)
        with runner.workplace(folder, mark) as work:
            audited = len({*system.audited} & {*made.methods})
            attributes = len(results.splits.attributes)
            after = runner.REPORT + runner.audit_units(audited, attributes)
            bar.plan(made.units + after)
            results = made.train(work, bar)
            bar.doing("writing the report")
            report.write(system, results, folder)
            bar.advance(runner.REPORT)
            page = write_audit(
                results,
                folder,
                methods=system.audited,
                system=system.title,
                advance=bar.audit,
            )
    report.show(system, results, console)
    if made.note:
        console.print(made.note)
    # A path must not be wrapped, or it could not be opened.
    for name, path in (("Report", folder / "summary.md"), ("Audit", page)):
        console.print(f"{name}: {escape(str(path))}", soft_wrap=True)
    return folder
