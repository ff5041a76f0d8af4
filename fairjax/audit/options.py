"""Options of an audit, and the checks that need no data."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fairjax.audit._errors import AuditError, listed, near_miss
from fairjax.audit.reading.thresholds import parse_threshold_rule
from fairjax.audit.rules import Rule, parse

# JAX makes keys from 32 bits if 64-bit types are not enabled.
_MAX_SEED = 2**32 - 1
_MIN_REPLICATES, _MAX_REPLICATES = 100, 100_000
# More values are seldom categories, and the audit compares every pair.
MAX_LEVELS = 50
# Fields whose flag has a different name.
_FLAGS = {
    "scores": "score",
    "names": "name",
    "thresholds": "threshold",
    "intersections": "no-intersections",
}

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of an audit, as on its command line.

    Sequences become tuples. A single string or threshold is a sequence of one.

    Attributes:
        table: Path of a CSV or Parquet file; None if the table is a DataFrame.
        outcome: Column of the outcome.
        scores: Column of scores for each model; the first model is the baseline.
        attributes: Columns whose groups are compared.
        positive: Value of the outcome that counts as 1; None if the outcome is 0 and 1,
            or false and true.
        names: Name of each model; the scores' columns by default.
        logits: Whether scores are log-odds, which the audit maps to [0, 1].
        decisions: Column of 0/1 decisions for each model, instead of a threshold.
        patient_id: Column that identifies the patient; None if each row is a different
            patient.
        bins: Attribute -> edges that cut its numbers, or number of quantiles.
        levels: Attribute -> its categories, in order. Any other value is an error; a
            category without rows stays in the report.
        missing: ``"level"`` makes a missing value of an attribute a category,
            ``"refuse"`` makes it an error.
        missing_scores: ``"refuse"`` makes a missing score an error, ``"drop"`` leaves
            out and counts its row.
        missing_outcomes: ``"refuse"`` or ``"drop"``, for a missing outcome.
        thresholds: Threshold in [0, 1] of all models, or one for each model.
        validation: Column and value of the rows that choose the threshold; the audit
            leaves these rows out.
        threshold_rule: How to choose the threshold: ``"youden"``, ``"prevalence"``,
            ``"f1"`` or ``"sensitivity:S"``.
        intersections: Whether the attributes are crossed.
        max_intersection_depth: Largest number of attributes in an intersection, at
            least 2.
        min_positives: Smallest number of positives for a group to be assessed on
            metrics that need positives.
        min_negatives: Smallest number of negatives for a group to be assessed on
            metrics that need negatives.
        suppress_below: Groups and rates with smaller counts are suppressed, and so are
            others that would reveal these counts; 0 shows all.
        confidence: Confidence of every interval, in (0, 1).
        replicates: Draws of the simulations for intervals and tests of gaps, and
            shuffles of the search, which uses at most 999.
        seed: Seed of the random numbers.
        margin: Loss of AUROC in a group that still counts as no harm when models are
            compared, in [0, 1).
        correction: Correction of the p-values for the number of gaps tested:
            ``"holm"`` or ``"benjamini-hochberg"``.
        fail_on: Rules that fail the gate, in the syntax of `fairjax.audit.rules`.
        allow_undecided: Whether an undecided rule passes the gate.
        separator: Separator of the fields of a CSV file; by the suffix of the file if
            None.
        decimal: Decimal mark in a CSV file, ``"."`` or ``","``.
        title: Title of the report; made from the models' names if None.
        rules: The parsed rules of `fail_on`.

    Raises:
        AuditError: If an option is out of range, or if two options contradict each
            other.

    Example:
        >>> options = Options(outcome="died", scores="risk", attributes=["sex", "race"])
        >>> options.scores, options.attributes, options.names
        (('risk',), ('sex', 'race'), ('risk',))
    """

    table: str | None = None
    outcome: str
    scores: Sequence[str]
    attributes: Sequence[str]
    positive: str | None = None
    names: Sequence[str] = ()
    logits: bool = False
    decisions: Sequence[str] = ()
    patient_id: str | None = None
    bins: Mapping[str, int | Sequence[float | int]] = field(default_factory=dict)
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: Literal["level", "refuse"] = "level"
    missing_scores: Literal["refuse", "drop"] = "refuse"
    missing_outcomes: Literal["refuse", "drop"] = "refuse"
    thresholds: float | int | Sequence[float | int] = ()
    validation: tuple[str, str] | None = None
    threshold_rule: str | None = None
    intersections: bool = True
    max_intersection_depth: int = 2
    min_positives: int = 10
    min_negatives: int = 10
    suppress_below: int = 0
    confidence: float = 0.95
    replicates: int = 10_000
    seed: int = 0
    margin: float | int = 0.0
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    fail_on: Sequence[str] = ()
    allow_undecided: bool = False
    separator: str | None = None
    decimal: Literal[".", ","] = "."
    title: str | None = None
    rules: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Converts sequences to tuples, and checks all options."""
        for name in ("scores", "attributes", "names", "decisions", "fail_on"):
            self._set(name, _strings(name, getattr(self, name)))
        self._set("thresholds", self.cuts)
        self._set("names", self.names or self.scores)
        self._set("bins", {name: _bins(name, of) for name, of in self.bins.items()})
        levels = {name: _strings("levels", of) for name, of in self.levels.items()}
        self._set("levels", levels)
        self._set("rules", tuple(parse(rule) for rule in self.fail_on))
        self._check_columns()
        self._check_numbers()
        self._check_attributes()
        self._check_thresholds()
        self._check_rules()

    @property
    def depth(self) -> int:
        """The largest number of attributes in an intersection; 1 without crossing."""
        return self.max_intersection_depth if self.intersections else 1

    @property
    def cuts(self) -> tuple[float, ...]:
        """The thresholds, one for all models or one for each model."""
        return _numbers("--threshold", self.thresholds)

    def settings(self) -> dict[str, Any]:
        """Returns the options that the results depend on, as types of JSON.

        Example:
          >>> options = Options(outcome="died", scores="risk", attributes="sex", seed=3)
          >>> settings = options.settings()
          >>> settings["scores"], settings["seed"], "title" in settings
          (['risk'], 3, False)
        """
        left_out = {"table", "fail_on", "allow_undecided", "rules", "title"}
        return {
            f.name: _plain(getattr(self, f.name))
            for f in fields(self)
            if f.name not in left_out
        }

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_columns(self) -> None:
        if not self.scores:
            raise AuditError("no score: name one column or more with --score")
        if not self.attributes:
            raise AuditError("no attribute: name one column or more with --attributes")
        taken: dict[str, str] = {}
        for role, names in (
            ("--outcome", [self.outcome]),
            ("--score", self.scores),
            ("--decisions", self.decisions),
            ("--patient-id", [self.patient_id] if self.patient_id else []),
            ("--attributes", self.attributes),
        ):
            for name in names:
                if name in taken:
                    where = " and ".join(dict.fromkeys((taken[name], role)))
                    raise AuditError(f"column {name!r} is named twice, by {where}")
                taken[name] = role
        # The validation rows may be one category of an attribute, such as a hospital.
        split = self.validation[0] if self.validation else None
        if split in taken and split not in self.attributes:
            raise AuditError(
                f"column {split!r} is named twice, by --validation and {taken[split]}"
            )
        for option, values in (("--name", self.names), ("--decisions", self.decisions)):
            if values and len(values) != len(self.scores):
                raise AuditError(
                    f"{option} must have as many values as --score, in the same order: "
                    f"{len(self.scores)}; got {len(values)}"
                )
        if len(set(self.names)) < len(self.names):
            raise AuditError(f"--name must be unique; got {listed(self.names)}")

    def _check_numbers(self) -> None:
        if not 0 < self.confidence < 1:
            raise AuditError(
                "--confidence must be above 0 and below 1, such as 0.95; got "
                f"{self.confidence:g}"
            )
        if not 0 <= self.margin < 1:
            raise AuditError(f"--margin must be in [0, 1); got {self.margin}")
        for name, low, high in (
            ("replicates", _MIN_REPLICATES, _MAX_REPLICATES),
            ("seed", 0, _MAX_SEED),
            ("min_positives", 1, None),
            ("min_negatives", 1, None),
            ("suppress_below", 0, None),
            ("max_intersection_depth", 2, None),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                span = f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
                raise AuditError(f"{flag(name)} must be {span}; got {value:,}")
        for name, kind in get_type_hints(Options).items():
            allowed = get_args(kind)
            if get_origin(kind) is Literal and getattr(self, name) not in allowed:
                raise AuditError(
                    f"{flag(name)} must be {' or '.join(allowed)}; got "
                    f"{getattr(self, name)!r}"
                )
        if self.separator is not None and (
            len(self.separator) != 1 or self.separator in '\r\n"'
        ):
            raise AuditError(
                f"--separator must be one character; got {self.separator!r}"
            )
        if self.separator == self.decimal:
            raise AuditError(
                f"--separator and --decimal must differ; both are {self.decimal!r}. "
                "Tables with decimal commas often have the separator ;"
            )

    def _check_named(self, what: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.attributes:
                raise AuditError(
                    f"{what} {name!r}, which is not one of --attributes"
                    f"{near_miss(name, self.attributes)}"
                )

    def _check_attributes(self) -> None:
        for option, given in (("--bins", self.bins), ("--levels", self.levels)):
            self._check_named(f"{option} names", given)
        both = [name for name in self.bins if name in self.levels]
        if both:
            raise AuditError(
                f"attribute {both[0]!r} has both --bins and --levels; give only one, "
                "because the bins make the categories"
            )
        declared = [(name, "--levels", len(of)) for name, of in self.levels.items()]
        cut = ((name, of) for name, of in self.bins.items() if not isinstance(of, int))
        declared += [(name, "--bins", len(edges) + 1) for name, edges in cut]
        for name, option, number in declared:
            if number > MAX_LEVELS:
                raise AuditError(
                    f"{option} of {name!r} must make at most {MAX_LEVELS} categories; "
                    f"got {number:,}"
                )
        for name, levels in self.levels.items():
            repeated = [level for level in levels if levels.count(level) > 1]
            if repeated or not levels or not all(levels):
                what = f"{repeated[0]!r} twice" if repeated else "an empty name"
                raise AuditError(f"--levels of {name!r} must be distinct; got {what}")

    def _check_thresholds(self) -> None:
        if self.cuts and len(self.cuts) not in (1, len(self.scores)):
            raise AuditError(
                "--threshold must have one value, or as many as --score: "
                f"{len(self.scores)}; got {len(self.cuts)}"
            )
        odd = [value for value in self.cuts if not 0 <= value <= 1]
        if odd:
            after = ", to which --logits maps scores" if self.logits else ""
            raise AuditError(f"--threshold must be in [0, 1]{after}; got {odd[0]:g}")
        ways = {
            "--threshold": self.cuts,
            "--decisions": self.decisions,
            "--validation": self.validation,
        }
        used = [name for name, given in ways.items() if given]
        if len(used) > 1:
            raise AuditError(
                f"{' and '.join(used)} contradict each other; give only one, because "
                "decisions have one source"
            )
        if (self.validation is None) != (self.threshold_rule is None):
            raise AuditError(
                "--validation and --threshold-rule must be given together: the rows "
                "that choose the threshold, and how"
            )
        if self.threshold_rule is not None:
            parse_threshold_rule(self.threshold_rule)

    def _check_rules(self) -> None:
        for rule in self.rules:
            if rule.model is not None and rule.model not in self.names:
                raise AuditError(
                    f"the rule {rule.text!r} must name one of the models "
                    f"{listed(self.names)}; got {rule.model!r}"
                )
            self._check_named(f"the rule {rule.text!r} names", rule.attributes)
            if len(rule.attributes) > self.depth:
                crossed = self.depth if self.depth > 1 else "none"
                raise AuditError(
                    f"the rule {rule.text!r} crosses {len(rule.attributes)} attributes;"
                    f" this audit crosses {crossed}: change "
                    "--max-intersection-depth or --no-intersections"
                )


def flag(name: str) -> str:
    """Returns the flag of an option on the command line.

    Example:
      >>> flag("suppress_below")
      '--suppress-below'
    """
    return f"--{_FLAGS.get(name) or name.replace('_', '-')}"


def _strings(name: str, value: Any) -> tuple[str, ...]:
    return _all_of(str, name, "text", value)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    return tuple(map(float, _all_of(Real, name, "a number", value)))


def _all_of(kind: type, name: str, words: str, value: Any) -> tuple[Any, ...]:
    """Returns one value or several as a tuple, and checks their type."""
    values = (value,) if isinstance(value, (str, kind)) else tuple(value)
    odd = [item for item in values if not isinstance(item, kind)]
    if odd:
        raise AuditError(f"{name} must be {words}; got {odd[0]!r}")
    return values


def _bins(name: str, of: Any) -> int | tuple[float, ...]:
    if isinstance(of, int):
        if not 2 <= of <= 20:
            raise AuditError(f"--bins of {name!r} must be 2 to 20 quantiles; got {of}")
        return of
    edges = tuple(float(edge) for edge in of)
    ascending = all(a < b for a, b in itertools.pairwise(edges))
    if not edges or not all(map(math.isfinite, edges)) or not ascending:
        raise AuditError(
            f"--bins of {name!r} must be ascending numbers, such as 18,40,65; got "
            f"{','.join(f'{edge:g}' for edge in edges) or 'nothing'}"
        )
    return edges


def _plain(value: Any) -> Any:
    """Converts a value to a type of JSON."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
