"""Writes results into the documents: ``python -m experiments.docs``.

A document marks where a data set's table goes, and no figure in it is typed:

    <!-- results: support2 -->
    <!-- end -->
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import markdown
from experiments.evaluation import GAP
from experiments.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = Path("docs/results/fairgrad")
DOCUMENTS = (Path("README.md"), Path("docs/fairgrad.md"))
_MARKED = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, results: Path) -> str:
    """The document with every marked table written anew.

    Raises:
      ValueError: A marked data set without results.
    """

    def table(match: re.Match[str]) -> str:
        path = results / match[2] / "summary.json"
        if not path.exists():
            raise ValueError(f"there is no {path} to fill the table {match[2]} from.")
        summary = json.loads(path.read_text(encoding="utf-8"))
        return match[1] + results_table(summary) + match[3]

    return _MARKED.sub(table, text)


def results_table(summary: Mapping[str, Any]) -> str:
    """The main methods of a summary as a Markdown table, with how it was made."""
    protocol = summary["protocol"]
    made = (
        f"{summary['rows']:,} patients, {summary['outcome']} "
        f"({summary['prevalence']:.1%}); attributes "
        f"{', '.join(protocol['attributes'])}, of which the model sees "
        f"{', '.join(protocol['attributes_among_inputs']) or 'none'}; "
        f"{protocol['repeats']} x "
        f"{protocol['folds']}-fold cross-validation by patient, settings and "
        "thresholds from validation folds, 95 % intervals over patients and repeats, "
        "p paired against ERM with Holm's correction."
    )
    columns = (
        "Method",
        "AUROC",
        "Equalized-odds difference, mean",
        "bias-corrected",
        "worst",
        "p (AUROC)",
        "p (gap)",
    )
    lines = [
        "",
        made,
        "",
        f"| {' | '.join(columns)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, method in summary["methods"].items():
        if "[" in name:
            continue
        gap, test = method[GAP], method["test_vs_erm"]
        lines.append(
            f"| {method['title']} | {_interval(method['auroc'], 4)} | "
            f"{_interval(gap['mean'], 4)} | "
            f"{markdown.number(gap['mean']['corrected'], 4)} | "
            f"{markdown.number(gap['worst']['mean'], 3)} | {_p(test.get('auroc'))} | "
            f"{_p(test.get(GAP, {}).get('mean'))} |"
        )
    floor = summary["methods"]["erm"][GAP]
    lines.append(
        f"| *noise floor* |  | {markdown.number(floor['mean']['null'], 4)} |  | "
        f"{markdown.number(floor['worst']['null'], 3)} |  |  |"
    )
    return "\n".join([*lines, "", ""])


def _interval(estimate: Mapping[str, float | None], digits: int) -> str:
    mean, low, high = (
        markdown.number(estimate[k], digits) for k in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def _p(test: Mapping[str, float | None] | None) -> str:
    if test is None:
        return ""
    return markdown.p_value(test["p"] if test["p_holm"] is None else test["p_holm"])


def main() -> int:
    """Fill the tables of all documents, or of none; returns the exit code."""
    try:
        filled = {
            ROOT / document: fill(
                (ROOT / document).read_text(encoding="utf-8"), ROOT / RESULTS
            )
            for document in DOCUMENTS
        }
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, text in filled.items():
        write_text(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
