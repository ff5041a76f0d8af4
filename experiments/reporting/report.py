"""Reports of all systems, generated from the data: tables, figures and texts.

A `System` has the metrics, columns, figures and answers of one system. All systems
write the same files: `results.csv`, `summary.json`, `summary.md`, and the figures.
"""

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.core.files import csv_text, write_text
from experiments.core.results import AnyResults
from experiments.reporting import figures, markdown, tables
from experiments.reporting.tables import Column
from fairjax.evaluation import Comparison, Evaluation, Tests

# Draws a figure of a run, or returns None if the run has nothing to show.
Draw = Callable[[Any], Figure | None]


@dataclass(frozen=True)
class System:
    """The parts of a report that differ by system; callables take the run's `Results`.

    Attributes:
      title: The system's name for readers.
      baseline: Title of the method that all others are compared with.
      metrics: Full names of the metrics in `summary.json`, in order.
      tests: Metric -> method -> comparison with the baseline, for all of `metrics`.
      columns: Columns of the results table, after the method's name.
      said: The system's words: ``legend``, the meaning of the columns; ``remark``, on
        the patients; and for each figure ``picture.NAME``, what the figure shows.
      pictures: Name of a figure's files -> draws the figure, in order.
      answers: Lines of Markdown that answer the system's questions.
      protocol: Step -> how it was done; numbers, texts, lists and mappings.
      extra: Further entries of `summary.json`, at its end.
      files: Further text files: name -> content.
      audited: Methods whose predictions are audited, each against the first.
    """

    title: str
    baseline: str
    metrics: Callable[[Any], Sequence[str]]
    tests: Callable[[Any], Tests]
    columns: Callable[[Any], Sequence[Column]]
    said: Mapping[str, str]
    pictures: Mapping[str, Draw]
    answers: Callable[[Any, Tests], list[str]]
    protocol: Callable[[Any], Mapping[str, Any]]
    extra: Callable[[Any], Mapping[str, Any]]
    files: Callable[[Any], Mapping[str, str]] = lambda _: {}
    audited: Collection[str] = ()


def write(system: System, results: AnyResults, folder: Path) -> None:
    """Writes all files of the report; each is replaced whole or stays as it was."""
    tests = system.tests(results)
    summary = _summary(system, results, tests)
    drawn = {name: draw(results) for name, draw in system.pictures.items()}
    shown = {name: figure for name, figure in drawn.items() if figure is not None}
    words = _markdown(system, results, tests, summary, shown)
    written = json.dumps(_rounded(summary), indent=1, allow_nan=False)
    texts = {
        "results.csv": _rows(results),
        "summary.md": words,
        "summary.json": f"{written}\n",
        **system.files(results),
    }
    # Files of an earlier report stay until all files of this report are written.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
        made = Path(scratch)
        for name, figure in shown.items():
            figures.save(figure, made, name)
        for name, text in texts.items():
            write_text(made / name, text)
        for name in sorted(path.name for path in made.iterdir()):
            (made / name).replace(folder / name)
    # Figures that this run did not draw are of an earlier run, which may have used SVG.
    for name in drawn:
        for suffix in ("svg",) if name in shown else ("png", "svg"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def show(system: System, results: AnyResults, console: Console) -> None:
    """Prints the results table in the terminal."""
    columns = [column for column in system.columns(results) if column.terminal]
    summary = _summary(system, results, system.tests(results))
    header, rows = _table(system, summary, columns)
    source = results.splits.table
    table = Table(title=escape(f"{source.title}: {source.outcome}"))
    for number, name in enumerate(header):
        table.add_column(escape(name), justify="left" if number == 0 else "right")
    for row in rows:
        # Intervals are in the report; a terminal is 80 columns wide.
        table.add_row(*(cell.split(" [")[0] for cell in row))
    console.print(table)


def comparison(c: Comparison) -> dict[str, float]:
    """Returns a comparison as an entry of `summary.json`."""
    return dataclasses.asdict(c)


def _table(
    system: System, summary: Mapping[str, Any], columns: Sequence[Column]
) -> tuple[list[str], list[list[str]]]:
    return tables.table(
        summary["methods"],
        columns,
        baseline=system.baseline,
        floor="Noise floor of the gaps",
    )


def _summary(system: System, results: AnyResults, tests: Tests) -> dict[str, Any]:
    """Makes the content of `summary.json`, before rounding and with NaN for null."""
    source = results.splits.table
    names = system.metrics(results)
    methods = {}
    for title, evaluation in results.evaluations.items():
        test: dict[str, Any] = {}
        if title != system.baseline:
            test = _nested({m: comparison(tests[m][title]) for m in names})
        methods[title] = {
            "title": results.titles[title],
            **_nested({m: _estimate(evaluation, m) for m in names}),
            f"test_vs_{system.baseline}": test,
        }
    return {
        "dataset": results.options.dataset,
        "rows": len(source.label),
        "outcome": source.outcome,
        "prevalence": results.prevalence,
        "protocol": system.protocol(results),
        "methods": methods,
        **system.extra(results),
    }


def _estimate(evaluation: Evaluation, metric: str) -> dict[str, float]:
    low, high = evaluation.interval(metric)
    found = {"mean": evaluation.mean(metric), "low": low, "high": high}
    if metric in evaluation.null:
        found["null"] = evaluation.null[metric]
        found["p_null"] = evaluation.p_noise[metric]
        found["corrected"] = evaluation.corrected[metric]
    return found


def _nested(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Nests entries: the entry of ``a/b`` is under ``a``, and there under ``b``."""
    found: dict[str, Any] = {}
    for metric, entry in entries.items():
        name, _, part = metric.partition("/")
        if part:
            found.setdefault(name, {})[part] = entry
        else:
            found[name] = entry
    return found


def _rounded(value: Any) -> Any:
    """Rounds numbers to seven digits, so that files are readable; None for NaN."""
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _rows(results: AnyResults) -> str:
    """Makes results.csv: a row per method, setting, repeat, metric and attribute."""
    rows = []
    for title, evaluation in results.evaluations.items():
        found = results.predictions[title]
        for name, values in evaluation.repeats.items():
            metric, _, attribute = name.partition("/")
            for repeat, value in enumerate(values):
                row = [found.name, found.setting, repeat, metric, attribute]
                rows.append([*row, f"{value:.7g}"])
    header = ["method", "setting", "repeat", "metric", "attribute", "value"]
    return csv_text(header, rows)


def _markdown(
    system: System,
    results: AnyResults,
    tests: Tests,
    summary: Mapping[str, Any],
    shown: Iterable[str],
) -> str:
    source = results.splits.table
    header, rows = _table(system, summary, system.columns(results))
    patients = (
        f"{summary['rows']:,} patients; {markdown.escape(source.outcome)}: "
        f"{summary['prevalence']:.1%}. Sensitive attributes: "
        f"{markdown.escape(', '.join(results.splits.attributes))}. "
        f"{system.said['remark']}"
    )
    lines = [
        f"# {system.title} on {markdown.escape(source.title)}",
        "",
        patients,
        "",
        "## Results",
        "",
        *tables.as_markdown([markdown.escape(name) for name in header], rows),
        "",
        system.said["legend"],
        "",
    ]
    for name in shown:
        lines += [f"![{system.said[f'picture.{name}']}]({name}.png)", ""]
    lines += ["## Answers", "", *system.answers(results, tests), ""]
    lines += ["## Protocol", ""]
    for name, value in summary["protocol"].items():
        text = value
        if isinstance(value, Mapping):
            text = "; ".join(f"{k}: {v}" for k, v in value.items()) or "none"
        elif isinstance(value, list):
            text = ", ".join(value)
        lines.append(f"- **{name.replace('_', ' ')}**: {markdown.escape(str(text))}")
    origin = f"Source: {source.citation}. Licence: {source.licence}."
    lines += ["", markdown.escape(origin), ""]
    return "\n".join(lines)
