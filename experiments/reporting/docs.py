"""Writes results into the documents: ``python -m experiments.reporting.docs``.

A document marks where a data set's table goes, and no figure in it is typed:

    <!-- results: support2 -->
    <!-- end -->

The table is FairGrad's; that of another system is marked ``multifair/nafld``. What
became of the claims that a system's paper makes, on every data set, is marked

    <!-- claims: intersectional -->
    <!-- end -->

With the folder of a run, such as ``results/fairgrad/support2``, as its argument it
first keeps the files of that run for the documents, the tables compressed.
"""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.core.files import prepare_folder, read_text, write_text
from experiments.reporting import tables
from experiments.reporting.tables import Column
from fairjax.evaluation import names

ROOT = Path(__file__).parents[2]
RESULTS = Path("docs/results")
DOCUMENTS = (
    Path("README.md"),
    Path("docs/fairgrad.md"),
    Path("docs/multifair.md"),
    Path("docs/intersectional.md"),
)
_MARKED = re.compile(
    r"(<!-- results: (?:(\w+)/)?(\w+) -->\n).*?(<!-- end -->)", re.DOTALL
)
_CLAIMED = re.compile(r"(<!-- claims: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Document:
    """A system's table in a document.

    Attributes:
      baseline: The method that others are tested against, and its name for readers.
      thresholds: Where settings and decisions come from.
      columns: Those after the method's name.
    """

    baseline: tuple[str, str]
    thresholds: str
    columns: Sequence[Column]


def _mean(
    heading: str, metric: str, interval: int | None = None, digits: int = 3
) -> Column:
    return Column(heading, f"{metric}/mean", digits=digits, interval=interval)


SYSTEMS: Mapping[str, Document] = {
    "fairgrad": Document(
        baseline=("erm", "ERM"),
        thresholds="settings and thresholds from validation folds",
        columns=(
            Column("AUROC", "auroc", digits=4, interval=4),
            _mean("Equalized-odds difference, mean", names.GAP, 4, digits=4),
            Column("bias-corrected", f"{names.GAP}/mean", "corrected", digits=4),
            Column("worst", f"{names.GAP}/worst"),
            Column("p (AUROC)", "auroc", "p"),
            Column("p (gap)", f"{names.GAP}/mean", "p"),
        ),
    ),
    "multifair": Document(
        baseline=("joint", "joint training"),
        thresholds="settings and thresholds from validation folds",
        columns=(
            Column("AUROC", "auroc", digits=4, interval=4),
            _mean("ES-AUROC", names.EQUITY, 4, digits=4),
            _mean("AUROC gap", names.AUROC_GAP, 3),
            _mean("Demographic parity", names.PARITY, 3),
            _mean("Equalized odds", names.GAP, 3),
            Column("p (AUROC)", "auroc", "p"),
            Column("p (ES-AUROC)", f"{names.EQUITY}/mean", "p"),
            Column("p (AUROC gap)", f"{names.AUROC_GAP}/mean", "p"),
            Column("p (equalized odds)", f"{names.GAP}/mean", "p"),
        ),
    ),
    "intersectional": Document(
        baseline=("base", "the base model"),
        thresholds="rules and thresholds from validation folds",
        columns=(
            Column("F1", names.F1, interval=3),
            Column("AUROC", "auroc"),
            Column("Selected", "selection_rate"),
            _mean("Disparate impact", names.IMPACT),
            _mean("Statistical parity", names.STATISTICAL_PARITY, 3),
            _mean("Equal opportunity", names.OPPORTUNITY, 3),
            _mean("Average odds", names.AVERAGE_ODDS, 3),
            Column("worst", f"{names.AVERAGE_ODDS}/worst"),
            Column("p (F1)", names.F1, "p"),
            Column("p (average odds)", f"{names.AVERAGE_ODDS}/mean", "p"),
        ),
    ),
}


def fill(text: str, results: Path) -> str:
    """The document with every marked table written anew.

    Args:
      text: Of the document.
      results: Folder with a folder for each system.

    Raises:
      ValueError: A marked system that there is not, or a data set without results.
    """

    def table(match: re.Match[str]) -> str:
        system, dataset = match[2] or "fairgrad", match[3]
        if system not in SYSTEMS:
            raise ValueError(
                f"there is no system {system!r} to fill a table from; there are: "
                f"{', '.join(SYSTEMS)}."
            )
        path = results / system / dataset / "summary.json"
        try:
            summary = json.loads(read_text(path))
        except FileNotFoundError as error:
            raise ValueError(
                f"there is no {path} to fill the table {dataset} from."
            ) from error
        return match[1] + results_table(summary, system) + match[4]

    def claims(match: re.Match[str]) -> str:
        found = (results / match[2]).glob("*/summary.json*")
        folders = sorted({path.parent for path in found})
        if not folders:
            raise ValueError(f"there are no results of {match[2]} to fill claims from.")
        summaries = {
            folder.name: json.loads(read_text(folder / "summary.json"))
            for folder in folders
        }
        return match[1] + claims_table(summaries) + match[3]

    return _CLAIMED.sub(claims, _MARKED.sub(table, text))


def put(document: Path, place: str, table: str) -> None:
    """Write a table where the document marks its place.

    Raises:
      ValueError: Not one such place.
    """
    marked = rf"(?s)(?<=<!-- results: {re.escape(place)} -->\n).*?(?=<!-- end -->)"
    text = document.read_text(encoding="utf-8")
    text, places = re.subn(marked, lambda _: f"\n{table.strip()}\n\n", text)
    if places != 1:
        raise ValueError(f"{document} marks {places} places for {place}, not one.")
    write_text(document, text)


def claims_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The verdict on each claim of a paper, a column a data set.

    Where it is another under the other kind of threshold, that stands beside it.
    """
    first = next(iter(summaries.values()))["claims"]
    rows = [
        [f"{number}. {claim['claim']}"]
        + [_verdict(summary, number - 1) for summary in summaries.values()]
        for number, claim in enumerate(first, 1)
    ]
    header = ["Claim", *(f"`{name}`" for name in summaries)]
    return "\n".join(["", *tables.as_markdown(header, rows), "", ""])


def _verdict(summary: Mapping[str, Any], place: int) -> str:
    verdict = summary["claims"][place]["verdict"]
    other = summary["claims_under_other_thresholds"]
    under = other["claims"][place]["verdict"]
    if under == verdict:
        return verdict
    return f"{verdict}; {other['thresholds']} threshold: {under}"


def results_table(summary: Mapping[str, Any], system: str) -> str:
    """The main methods of a summary as a Markdown table, with how it was made."""
    document, protocol = SYSTEMS[system], summary["protocol"]
    baseline, its_name = document.baseline
    weighted = " when weighted" if "weights" in protocol else ""
    made = (
        f"{summary['rows']:,} patients, {summary['outcome']} "
        f"({summary['prevalence']:.1%}{weighted}); attributes "
        f"{', '.join(protocol['attributes'])}, of which the model sees "
        f"{', '.join(protocol['attributes_among_inputs']) or 'none'}; "
        f"{protocol['repeats']} x "
        f"{protocol['folds']}-fold cross-validation by patient, {document.thresholds}, "
        "95 % intervals over patients and repeats, p paired against "
        f"{its_name} with Holm's correction (references have none)."
    )
    header, rows = tables.table(
        summary["methods"], document.columns, baseline=baseline, floor="*noise floor*"
    )
    return "\n".join(["", made, "", *tables.as_markdown(header, rows), "", ""])


def keep(run: Path, results: Path) -> None:
    """Copy a run's report into the results of its system, tables compressed."""
    folder = prepare_folder(results / run.parent.name / run.name)
    for path in sorted(run.resolve(strict=True).glob("*.*")):
        if path.suffix in (".csv", ".json"):
            write_text(folder / f"{path.name}.gz", path.read_text(encoding="utf-8"))
        elif path.suffix in (".md", ".png"):
            shutil.copyfile(path, folder / path.name)


def main(runs: Sequence[str] = ()) -> int:
    """Fill the tables of all documents, or of none; returns the exit code."""
    try:
        for run in runs:
            keep(Path(run), ROOT / RESULTS)
        filled = {
            ROOT / document: fill(
                (ROOT / document).read_text(encoding="utf-8"), ROOT / RESULTS
            )
            for document in DOCUMENTS
        }
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, text in filled.items():
        write_text(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
