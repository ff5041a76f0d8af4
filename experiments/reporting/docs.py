"""Writes results into the documents: ``python -m experiments.reporting.docs``.

A document marks where the table of a data set goes, so that no number is typed:

    <!-- results: support2 -->
    <!-- end -->

This table is FairGrad's; a table of another system is marked ``multifair/nafld``. The
verdicts on the claims of a system's paper, on every data set, are marked

    <!-- claims: intersectional -->
    <!-- end -->

An argument may be the folder of a run, such as ``results/fairgrad/support2``. Then the
command first copies the files of the run for the documents, with tables compressed.
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
from experiments.reporting import tables, words
from experiments.reporting.tables import Column
from fairjax.evaluation import names

_SAID = words.read(__file__)
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
      chosen: What validation folds choose.
      columns: The columns after the method's name.
    """

    baseline: tuple[str, str]
    chosen: str
    columns: Sequence[Column]


def _mean(
    heading: str, metric: str, interval: int | None = None, digits: int = 3
) -> Column:
    return Column(heading, f"{metric}/mean", digits=digits, interval=interval)


SYSTEMS: Mapping[str, Document] = {
    "fairgrad": Document(
        baseline=("erm", "ERM"),
        chosen="settings and thresholds",
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
        chosen="settings and thresholds",
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
        chosen="rules and thresholds",
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
    """Returns a document's text with every marked table written anew.

    Args:
      text: Text of the document.
      results: Folder with a folder for each system.

    Raises:
      ValueError: If a mark names an unknown system, or a data set without results.
    """

    def table(match: re.Match[str]) -> str:
        system, dataset = match[2] or "fairgrad", match[3]
        if system not in SYSTEMS:
            raise ValueError(
                f"a mark's system must be one of {', '.join(SYSTEMS)}; got {system!r}."
            )
        path = results / system / dataset / "summary.json"
        try:
            summary = json.loads(read_text(path))
        except FileNotFoundError as error:
            raise ValueError(
                f"the table {dataset} must have results in {path}; got no such file."
            ) from error
        return match[1] + results_table(summary, system) + match[4]

    def claims(match: re.Match[str]) -> str:
        found = (results / match[2]).glob("*/summary.json*")
        folders = sorted({path.parent for path in found})
        if not folders:
            raise ValueError(f"claims must have results; got none of {match[2]}.")
        summaries = {
            folder.name: json.loads(read_text(folder / "summary.json"))
            for folder in folders
        }
        return match[1] + claims_table(summaries) + match[3]

    return _CLAIMED.sub(claims, _MARKED.sub(table, text))


def put(document: Path, place: str, table: str) -> None:
    """Writes a table where the document marks its place.

    Raises:
      ValueError: If the document does not mark exactly one such place.
    """
    marked = rf"(?s)(?<=<!-- results: {re.escape(place)} -->\n).*?(?=<!-- end -->)"
    text = document.read_text(encoding="utf-8")
    text, places = re.subn(marked, lambda _: f"\n{table.strip()}\n\n", text)
    if places != 1:
        raise ValueError(f"{document} must mark one place for {place}; got {places}.")
    write_text(document, text)


def claims_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Makes a table of the verdicts on a paper's claims, with a column per data set.

    If the verdict differs under the other kind of threshold, both verdicts are shown.
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
    """Makes a Markdown table of a summary's main methods, below a description."""
    document, protocol = SYSTEMS[system], summary["protocol"]
    baseline, its_name = document.baseline
    made = _SAID["table"].format(
        summary=summary,
        protocol=protocol,
        weighted=" when weighted" if "weights" in protocol else "",
        attributes=", ".join(protocol["attributes"]),
        inputs=", ".join(protocol["attributes_among_inputs"]) or "none",
        chosen=document.chosen,
        baseline=its_name,
    )
    header, rows = tables.table(
        summary["methods"], document.columns, baseline=baseline, floor="*noise floor*"
    )
    return "\n".join(["", made, "", *tables.as_markdown(header, rows), "", ""])


def keep(run: Path, results: Path) -> None:
    """Copies a run's report into the results of its system, with tables compressed."""
    folder = prepare_folder(results / run.parent.name / run.name)
    for path in sorted(run.resolve(strict=True).glob("*.*")):
        if path.suffix in (".csv", ".json"):
            write_text(folder / f"{path.name}.gz", path.read_text(encoding="utf-8"))
        elif path.suffix in (".md", ".png"):
            shutil.copyfile(path, folder / path.name)


def main(runs: Sequence[str] = ()) -> int:
    """Fills the tables of all documents, or of none; returns the exit code."""
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
