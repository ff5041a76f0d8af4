"""What an audit is asked to do, and the checks that need no data."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fairjax.audit._errors import AuditError, listed, near_miss
from fairjax.audit.reading.thresholds import parse_threshold_rule
from fairjax.audit.rules import Rule, parse

# JAX's keys are made of 32 bits where 64 are not enabled.
_MAX_SEED = 2**32 - 1
_MIN_REPLICATES, _MAX_REPLICATES = 100, 100_000
# More are seldom categories, and every pair of them is compared.
MAX_LEVELS = 50
# Fields whose flag has another name.
_FLAGS = {
    "scores": "score",
    "names": "name",
    "thresholds": "threshold",
    "intersections": "no-intersections",
}

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that the command line of an audit can say.

    Sequences are kept as tuples; one string, or one threshold, stands for a sequence of
    one.

    Attributes:
        table: Path of a CSV or Parquet file; None if a DataFrame is handed over.
        outcome: Column of what happened.
        scores: A column for each model; the first model is the baseline.
        attributes: Columns whose groups are compared.
        positive: The outcome's value that counts as 1; None if it is 0 and 1, or false
            and true.
        names: A name for each model; the scores' columns by default.
        logits: Whether scores are log-odds, to be mapped to [0, 1].
        decisions: A column of 0/1 decisions for each model, instead of a threshold.
        patient_id: Column of whose rows they are; None if each is of another patient.
        bins: Attribute -> where to cut its numbers, or into how many quantiles.
        levels: Attribute -> its levels in order; any other value is an error, and a
            level without rows stays in the report.
        missing: ``"level"`` makes a missing attribute a level, ``"refuse"`` an error.
        missing_scores: ``"refuse"`` makes a missing score an error, ``"drop"`` leaves
            its row out and counts it.
        missing_outcomes: Likewise for the outcome.
        thresholds: The threshold of all models, or one for each.
        validation: Column and value of the rows that the threshold is chosen on, and
            which are then left out of the audit.
        threshold_rule: How to choose: ``"youden"``, ``"prevalence"``, ``"f1"`` or
            ``"sensitivity:S"``.
        intersections: Whether the attributes are crossed.
        max_intersection_depth: Most attributes in an intersection, at least 2.
        min_positives: Fewest positives for a group to be compared where they count.
        min_negatives: Likewise for negatives.
        suppress_below: Groups and rates with smaller counts are withheld, and what
            would give them back; 0 shows all.
        confidence: Of every interval, in (0, 1).
        replicates: Draws of the simulations behind the gaps' intervals and tests, and
          shuffles of the search, of which there are at most 999.
        seed: Of the random numbers.
        margin: A loss of AUROC by at most this much is no harm, when models are
            compared.
        correction: ``"holm"`` or ``"benjamini-hochberg"``, over the gaps tested.
        fail_on: Rules that shut the gate, as `fairjax.audit.rules` reads them.
        allow_undecided: Whether the gate stays open for what could not be estimated.
        separator: Between the fields of a CSV file; by its suffix if None.
        decimal: The decimal mark in a CSV file, ``"."`` or ``","``.
        title: The report's title; made from the table's name if None.
        rules: `fail_on`, read.

    Raises:
        AuditError: If an option is out of range, or two contradict each other.

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
        """Makes tuples of lists, and checks."""
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
        """How many attributes are crossed at most; 1 where none are."""
        return self.max_intersection_depth if self.intersections else 1

    @property
    def cuts(self) -> tuple[float, ...]:
        """The thresholds, one for all models or one for each."""
        return _numbers("--threshold", self.thresholds)

    def settings(self) -> dict[str, Any]:
        """What the results depend on, as the document has it; plain types only."""
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
            raise AuditError("no score: name its column with --score")
        if not self.attributes:
            raise AuditError("no attribute: name one or more with --attributes")
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
        # One hospital of an attribute's may be the validation rows.
        split = self.validation[0] if self.validation else None
        if split in taken and split not in self.attributes:
            raise AuditError(
                f"column {split!r} is named twice, by --validation and {taken[split]}"
            )
        for option, values in (("--name", self.names), ("--decisions", self.decisions)):
            if values and len(values) != len(self.scores):
                raise AuditError(
                    f"{option} has {len(values)} for {len(self.scores)} scores; give "
                    "one for each, in the same order"
                )
        if len(set(self.names)) < len(self.names):
            raise AuditError(f"two models have one name: {listed(self.names)}")

    def _check_numbers(self) -> None:
        if not 0 < self.confidence < 1:
            raise AuditError(
                "--confidence must be above 0 and below 1, such as 0.95, not "
                f"{self.confidence:g}"
            )
        if not 0 <= self.margin < 1:
            raise AuditError(f"--margin must be at least 0 and below 1: {self.margin}")
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
                raise AuditError(f"{flag(name)} must be {span}, not {value:,}")
        for name, kind in get_type_hints(Options).items():
            allowed = get_args(kind)
            if get_origin(kind) is Literal and getattr(self, name) not in allowed:
                raise AuditError(
                    f"{flag(name)} must be {' or '.join(allowed)}, not "
                    f"{getattr(self, name)!r}"
                )
        if self.separator is not None and (
            len(self.separator) != 1 or self.separator in '\r\n"'
        ):
            raise AuditError(
                f"--separator must be one character, not {self.separator!r}"
            )
        if self.separator == self.decimal:
            raise AuditError(
                f"--separator and --decimal are both {self.decimal!r}; a table with "
                "decimal commas is separated otherwise, often by ;"
            )

    def _check_named(self, what: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.attributes:
                raise AuditError(
                    f"{what} {name!r}, which is not among --attributes"
                    f"{near_miss(name, self.attributes)}"
                )

    def _check_attributes(self) -> None:
        for option, given in (("--bins", self.bins), ("--levels", self.levels)):
            self._check_named(f"{option} names", given)
        both = [name for name in self.bins if name in self.levels]
        if both:
            raise AuditError(
                f"attribute {both[0]!r} is given both --bins and --levels; its levels "
                "are made by the bins"
            )
        declared = [(name, "--levels", len(of)) for name, of in self.levels.items()]
        cut = ((name, of) for name, of in self.bins.items() if not isinstance(of, int))
        declared += [(name, "--bins", len(edges) + 1) for name, edges in cut]
        for name, option, number in declared:
            if number > MAX_LEVELS:
                raise AuditError(
                    f"{option} of {name!r} makes {number:,} levels; at most "
                    f"{MAX_LEVELS} can be compared"
                )
        for name, levels in self.levels.items():
            repeated = [level for level in levels if levels.count(level) > 1]
            if repeated or not levels or not all(levels):
                what = f"{repeated[0]!r} twice" if repeated else "one without a name"
                raise AuditError(f"--levels of {name!r} holds {what}")

    def _check_thresholds(self) -> None:
        if self.cuts and len(self.cuts) not in (1, len(self.scores)):
            raise AuditError(
                f"--threshold has {len(self.cuts)} for {len(self.scores)} "
                "scores; give one for all, or one for each"
            )
        odd = [value for value in self.cuts if not 0 <= value <= 1]
        if odd:
            after = ", to which --logits maps scores" if self.logits else ""
            raise AuditError(f"--threshold must be in [0, 1]{after}, not {odd[0]:g}")
        ways = {
            "--threshold": self.cuts,
            "--decisions": self.decisions,
            "--validation": self.validation,
        }
        used = [name for name, given in ways.items() if given]
        if len(used) > 1:
            raise AuditError(
                f"{' and '.join(used)} contradict each other: a decision is taken from "
                "a threshold given, from one chosen, or from its own column"
            )
        if (self.validation is None) != (self.threshold_rule is None):
            raise AuditError(
                "--validation and --threshold-rule go together: which rows the "
                "threshold is chosen on, and how"
            )
        if self.threshold_rule is not None:
            parse_threshold_rule(self.threshold_rule)

    def _check_rules(self) -> None:
        for rule in self.rules:
            if rule.model is not None and rule.model not in self.names:
                raise AuditError(
                    f"the rule {rule.text!r} is about {rule.model!r}, which is no "
                    f"model; there are {listed(self.names)}"
                )
            self._check_named(f"the rule {rule.text!r} names", rule.attributes)
            if len(rule.attributes) > self.depth:
                crossed = self.depth if self.depth > 1 else "none"
                raise AuditError(
                    f"the rule {rule.text!r} crosses {len(rule.attributes)} attributes;"
                    f" this audit crosses {crossed}: see "
                    "--max-intersection-depth and --no-intersections"
                )


def flag(name: str) -> str:
    """The flag of an option on the command line.

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
    """Makes a tuple of one value or several, and checks their type."""
    values = (value,) if isinstance(value, (str, kind)) else tuple(value)
    odd = [item for item in values if not isinstance(item, kind)]
    if odd:
        raise AuditError(f"{name} must be {words}, not {odd[0]!r}")
    return values


def _bins(name: str, of: Any) -> int | tuple[float, ...]:
    if isinstance(of, int):
        if not 2 <= of <= 20:
            raise AuditError(f"--bins of {name!r} must be 2 to 20 quantiles, not {of}")
        return of
    edges = tuple(float(edge) for edge in of)
    ascending = all(a < b for a, b in itertools.pairwise(edges))
    if not edges or not all(map(math.isfinite, edges)) or not ascending:
        raise AuditError(
            f"--bins of {name!r} must be ascending numbers, such as 18,40,65, not "
            f"{','.join(f'{edge:g}' for edge in edges) or 'nothing'}"
        )
    return edges


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
