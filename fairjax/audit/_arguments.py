"""The arguments of ``fairjax audit``: names, help, and how they are read."""

import argparse
import csv
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from fairjax.audit._errors import AuditError
from fairjax.audit.options import Options, flag

_DESCRIPTION = """\
Audits a table of predictions: one row a prediction, with the outcome, one or more
scores, and the attributes whose groups are compared. Writes a folder with report.html,
audit.json, tables/*.csv and figures/*.svg; the same table, options and seed give the
same bytes.
"""
_EPILOG = """\
rules
  --fail-on takes what must not be: [model:] metric(WHERE) OP NUMBER, such as
    'equalized_odds_difference(race) > 0.1'      a gap between an attribute's groups
    'equalized_odds_difference(sex * race) > .2' between those of an intersection
    'true_positive_rate(race=black) < 0.6'       a metric of one group
    'true_positive_rate(race) < 0.6'             of each group of an attribute
    'auroc() < 0.7'                              of all rows
    'new_risk: auroc() < 0.7'                    of one model of several
  A rule fails where the whole interval lies beyond the number, not the estimate alone.
  What cannot be estimated, because groups are too small or withheld, is not a pass, nor
  is a gap without them: it exits with 1 too, unless --allow-undecided is given.

exit code
  0  the audit is written
  1  it is written, and a rule failed or could not be decided
  2  the input cannot be audited; one line says why, and nothing is written
  3  another error, with its traceback; nothing is written

examples
  fairjax audit predictions.csv --outcome died --score risk \\
      --attributes sex race insurance --patient-id pid --threshold 0.3 --output audit/
  fairjax audit predictions.parquet --outcome died --score old new \\
      --attributes sex age --bins age=18,40,65 \\
      --validation split=validation --threshold-rule sensitivity:0.9
"""


# Kind of option, then fields of `Options` with what stands for their value, and help.
_OPTIONS = """\
what is in which column
  outcome COLUMN: what happened
  positive VALUE: the outcome's value that counts as 1 (default: 1 or true)
  scores COLUMN: predicted risk, a column for each model; the first is the baseline that
    the others are compared with
  names NAME: what to call the models (default: their columns)
  logits: scores are log-odds
  patient_id COLUMN: whose row it is, if some have several
  missing_scores: drop leaves rows without a score out, and counts them (default:
    refuse)
  missing_outcomes: likewise for the outcome (default: refuse)
attributes and their groups
  attributes COLUMN: columns whose groups are compared: sex, race, insurance, site,
    scanner
  bins ATTRIBUTE=CUTS: cut numbers into levels: age=18,40,65 or age=quantile:4
  levels ATTRIBUTE=LEVELS: all levels, in order: race=white,black,asian; others are
    refused, and those without rows stay in the report
  missing: whether a missing attribute is a level of its own (default: level)
  intersections: do not cross the attributes, in the tables or in the search for the
    worst group
  max_intersection_depth N: most attributes in an intersection (default: 2); the search
    for the worst one crosses 3 at most
from scores to decisions
  thresholds T: scores of T and above are flagged; one for all models, or one for each
    (default: 0.5, and a warning)
  validation COLUMN=VALUE: choose the threshold on these rows, and audit the others
  threshold_rule RULE: how to choose it: youden, prevalence, f1 or sensitivity:S
  decisions COLUMN: decisions already taken, a column for each model, instead of a
    threshold
intervals, tests and small groups
  min_positives N: groups with fewer are not compared on them (default: 10)
  min_negatives N: likewise
  suppress_below N: withhold groups with 1 to N-1 positives or negatives, others that
    sums would give them back by, rates with 1 to N-1 in a cell of outcome by decision,
    such bins and thresholds, and ROC and decision curves; no formal disclosure control
    (default: 0, show all)
  confidence C: default: 0.95
  replicates N: draws of the simulations behind intervals and tests of gaps, and
    shuffles of the search, of which 999 are enough (default: 10000)
  seed N: default: 0
  margin D: a group's loss of AUROC by at most D is no harm (default: 0)
  correction: of p-values, over the gaps tested (default: holm)
the gate of a pipeline
  fail_on RULE: what must not be, as below; may be repeated
  allow_undecided: exit with 0 where a rule cannot be decided
files
  output DIR: where to write the report (default: audit)
  overwrite: replace an earlier audit there; a folder with other files is never touched
  title TEXT: of the report
  separator MARK: between the fields of a CSV file: ';' or tab (default: ,)
  decimal: the decimal mark of a CSV file (default: .)
"""
_OPTION = re.compile(r"^  (\w+) ?([A-Z=]*): (.*(?:\n    .*)*)", re.MULTILINE)
# What does not follow from the type and the default of the field.
_SPECIAL: dict[str, dict[str, Any]] = {
    "thresholds": {"nargs": "+", "type": float, "default": ()},
    "bins": {"nargs": "+", "action": "extend", "default": []},
    "levels": {"nargs": "+", "action": "extend", "default": []},
    "fail_on": {"action": "append", "default": []},
    "output": {"default": "audit"},
    "overwrite": {"action": "store_true"},
    "separator": {"type": lambda text: "\t" if text in ("tab", "\\t") else text},
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of the command."""

    def error(self, message: str) -> NoReturn:
        raise AuditError(f"{message} (see {self.prog} --help)")


def read_arguments(argv: Sequence[str] | None) -> tuple[Options, Path, bool]:
    """Returns the options, the folder to write, and whether it may be replaced.

    Raises:
        AuditError: If the arguments cannot be understood.
        SystemExit: After help or the version was shown.
    """
    given = vars(_parser().parse_args(argv))
    for name in ("bins", "levels"):
        given[name] = _by_attribute(name, given[name])
    if given["validation"] is not None:
        given["validation"] = _pair("--validation", given["validation"])
    folder, overwrite = Path(given.pop("output")), given.pop("overwrite")
    del given["command"]
    return Options(**given), folder, overwrite


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fairjax", description="Fairness of clinical models.")
    parser.add_argument(
        "--version", action="version", version=f"fairjax {version('fairjax')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audit = commands.add_parser(
        "audit",
        help="audit a table of predictions",
        usage="fairjax audit TABLE --outcome COLUMN --score COLUMN [COLUMN ...]\n"
        "                     --attributes COLUMN [COLUMN ...] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # A pipeline should not break when an option with the same start is added.
        allow_abbrev=False,
    )
    audit.add_argument("table", metavar="TABLE", help=".csv, .tsv, .gz or .parquet")
    for kind in re.split(r"\n(?=\w)", _OPTIONS):
        group = audit.add_argument_group(kind.partition("\n")[0])
        for name, metavar, text in _OPTION.findall(kind):
            how = _SPECIAL[name] if name in _SPECIAL else _how(name)
            how = how | ({"metavar": metavar} if metavar else {})
            group.add_argument(
                flag(name), dest=name, help=" ".join(text.split()), **how
            )
    return parser


def _how(name: str) -> dict[str, Any]:
    """How an option is read, by the type and the default of its field."""
    kind, default = get_type_hints(Options)[name], getattr(Options, name, None)
    if isinstance(default, bool):
        return {"action": "store_false" if default else "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "default": default}
    if isinstance(default, (int, float)):
        return {"type": type(default), "default": default}
    found: dict[str, Any] = {"nargs": "+"} if get_origin(kind) is Sequence else {}
    if hasattr(Options, name):
        return found | {"default": default}
    return found | {"required": True}


def _by_attribute(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Reads ``ATTRIBUTE=...``, once for each attribute."""
    flag = f"--{name}"
    found: dict[str, Any] = {}
    for text in texts:
        attribute, value = _pair(flag, text)
        if attribute in found:
            raise AuditError(f"{flag} names {attribute!r} twice")
        if name == "bins":
            found[attribute] = _cuts(text, value)
        else:
            # Quotes hold a level with a comma together.
            try:
                found[attribute] = next(csv.reader([value], skipinitialspace=True))
            except csv.Error as error:
                raise AuditError(f"cannot read {flag} {text!r}: {error}") from None
    return found


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (sign and name and value):
        raise AuditError(f"{flag} must be NAME=VALUE, not {text!r}")
    return name, value


def _cuts(text: str, value: str) -> int | list[float]:
    kind, sign, number = value.partition(":")
    try:
        if sign and kind == "quantile":
            return int(number)
        return [float(edge) for edge in value.split(",")]
    except ValueError:
        raise AuditError(
            f"--bins must be like age=18,40,65 or age=quantile:4, not {text!r}"
        ) from None
