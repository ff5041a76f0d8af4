"""Types of ``audit.json``, which also generate its JSON schema and its page.

A class is an entry of the file, with fields in the order of the file. The docstring of
a class gives the descriptions in the schema.
"""

import functools
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypedDict,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

__all__ = ["markdown", "schema"]

_Kind = TypeVar("_Kind", bound="Entry")

NAME: Literal["fairjax-audit"] = "fairjax-audit"
VERSION: Literal["1.0"] = "1.0"
# Text names a definition of the schema; a pair adds a keyword to a type of JSON.
Number: TypeAlias = Annotated[float | int | None, "number"]
Count: TypeAlias = Annotated[int | None, "count"]
Share: TypeAlias = Annotated[float | int | None, "share"]
Series: TypeAlias = Annotated[list[float | int | None], "series"]
Status: TypeAlias = Annotated[
    Literal["ok", "insufficient", "empty", "suppressed"], "status"
]
Natural: TypeAlias = Annotated[int, ("minimum", 0)]
_SCALARS: dict[str, Any] = {
    "number": {"type": ["number", "null"]},
    "count": {"type": ["integer", "null"], "minimum": 0},
    "share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "status": {
        "enum": ["ok", "insufficient", "empty", "suppressed"],
        "description": "insufficient: fewer positives, negatives or rows than the "
        "settings require for the metric; empty: no rows; suppressed: has a small "
        "cell, of the outcome or of outcome by decision, or would reveal a small "
        "cell; ok: otherwise.",
    },
    "series": {"type": "array", "items": {"$ref": "#/$defs/number"}},
}


class Settings(TypedDict):
    """Settings of the audit. Further settings may appear.

    Attributes:
      confidence: Confidence of the intervals; tests use 1 minus the confidence.
      seed: Seed of all random draws.
      replicates: Draws of the simulations, and shuffles of the search (at most 999).
      min_positives: A group with fewer rows with the outcome is insufficient for
        metrics that need such rows. If patients have several rows, independent rows
        count.
      min_negatives: A group with fewer rows without the outcome is insufficient for
        metrics that need such rows. If patients have several rows, independent rows
        count.
      suppress_below: Groups with fewer positives or negatives, but not 0, are
        suppressed; 0 suppresses nothing.
      margin: Loss of AUROC that still counts as no harm when models are compared.
      correction: Correction of the p-values for the number of tests.
      intersections: Whether intersections of attributes were audited.
    """

    confidence: Annotated[float, ("exclusiveMinimum", 0), ("exclusiveMaximum", 1)]
    seed: int
    replicates: Natural
    min_positives: Natural
    min_negatives: Natural
    suppress_below: Natural
    margin: Annotated[float | int, ("minimum", 0)]
    correction: Literal["holm", "benjamini-hochberg"]
    intersections: bool


# The definitions of the schema, in its order.
_DEFINED: dict[str, Any] = {"settings": Settings}


@dataclass_transform(frozen_default=True)
class Entry:
    """An entry of the file: a frozen dataclass whose fields are also items.

    An entry with a name is a definition of the schema; other entries are inlined.
    """

    defined = ""

    def __init_subclass__(cls, *, name: str = "", kw_only: bool = False) -> None:
        cls.defined = name
        dataclass(frozen=True, kw_only=kw_only)(cls)
        if name:
            _DEFINED[name] = cls

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    @classmethod
    def of(cls: type[_Kind], found: Any) -> _Kind:
        """Returns an entry from JSON, or the argument if it is an entry.

        A field without default that JSON lacks raises AttributeError when it is read.

        Example:
          >>> found = Document.of({"gaps": [{"metric": "auroc_difference"}]})
          >>> found.gaps[0].metric
          'auroc_difference'
        """
        return found if isinstance(found, cls) else _read(cls, found)


def _is_entry(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Entry)


def _read(kind: Any, found: Any) -> Any:
    if get_origin(kind) is list:
        return [_read(get_args(kind)[0], item) for item in found]
    if not _is_entry(kind) or isinstance(found, kind):
        return found
    made = object.__new__(kind)
    for name, (hint, default) in _fields_of(kind).items():
        if name in found:
            object.__setattr__(made, name, _read(hint, found[name]))
        elif default is not MISSING:
            object.__setattr__(made, name, default())
    return made


def entries_of(kind: Any) -> dict[str, Any]:
    """Returns the fields that are lists of entries, and the types of the entries.

    Example:
      >>> entries_of(Document)["gaps"] is Gap
      True
    """
    lists = {name: get_args(hint)[:1] for name, hint in get_type_hints(kind).items()}
    return {name: of[0] for name, of in lists.items() if of and is_dataclass(of[0])}


@functools.cache
def _fields_of(kind: Any) -> dict[str, tuple[Any, Any]]:
    """Returns field -> its type and the factory of its default."""
    hints = get_type_hints(kind)
    return {f.name: (hints[f.name], f.default_factory) for f in fields(kind)}


class Outcome(Entry):
    """The column of the outcome, and the value that counts as positive.

    Attributes:
      column: Name of the column.
      positive: The value that counts as the outcome.
    """

    column: str
    positive: str


class Model(Entry):
    """A model that is audited.

    Attributes:
      name: Name of the model.
      column: Column of the scores.
      threshold: Scores at or above the threshold are selected; null if decisions were
        given.
      threshold_source: Origin of the threshold, in words.
    """

    name: str
    column: str
    threshold: Number
    threshold_source: str


class Attribute(Entry):
    """An attribute or an intersection.

    Attributes:
      name: Name of the column; of an intersection, the names joined by " × ".
      levels: The groups, in order.
      binned: How numbers were cut into categories, in words.
      intersection: Whether the attribute crosses several columns.
    """

    name: str
    levels: list[str]
    binned: str | None
    intersection: bool


class Data(Entry, name="data"):
    """The audited data.

    Attributes:
      source: Name of the file, without its folder, or "DataFrame".
      sha256: Hash of the file's bytes.
      rows_read: Rows in the table.
      rows_used: Rows audited.
      rows_left_out: Reason to number of rows.
      missing: Column of the outcome, a score or an attribute to the number of rows read
        without a value; null if suppressed.
      patients: Number of distinct patients, if an identifier was given.
      outcome: The column of the outcome, and the value that counts as positive.
      positives: Rows with the outcome.
      prevalence: Fraction of rows with the outcome.
      models: The models; the first is the baseline.
      attributes: The attributes, then their intersections.
    """

    source: str
    sha256: Annotated[str | None, ("pattern", "^[0-9a-f]{64}$")]
    rows_read: Natural
    rows_used: Natural
    rows_left_out: dict[str, Natural]
    missing: dict[str, Count]
    patients: Count
    outcome: Outcome
    positives: Count
    prevalence: Share
    models: list[Model]
    attributes: list[Attribute]


class Finding(Entry, name="finding"):
    """A finding on the quality of the data.

    Attributes:
      severity: warning: may change the meaning of the results.
      code: A fixed name for programs.
      message: The finding in words.
      rows: Number of rows that the finding concerns.
    """

    severity: Literal["info", "warning"]
    code: str
    message: str
    rows: Count


class Overall(Entry, name="overall"):
    """A metric of a model over all rows.

    Attributes:
      model: Name of the model.
      metric: Name of the metric, as in fairjax.metrics.
      estimate: The value on all rows.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
      method: Method of the interval.
    """

    model: str
    metric: str
    estimate: Number
    lower: Number
    upper: Number
    method: str | None


class Cohort(Entry, name="cohort"):
    """A group's size.

    Attributes:
      attribute: Name of the attribute or intersection.
      group: The group.
      rows: Rows in the group.
      patients: Distinct patients in the group.
      positives: Rows with the outcome.
      negatives: Rows without the outcome.
      prevalence: Fraction of rows with the outcome.
      lower: Lower end of the interval of the prevalence.
      upper: Upper end of the interval.
    """

    attribute: str
    group: str
    rows: Count
    patients: Count
    positives: Count
    negatives: Count
    prevalence: Share
    lower: Share
    upper: Share
    status: Status


class OfGroup(Entry):
    """Results of a model in a group.

    Attributes:
      model: Name of the model.
      attribute: Name of the attribute or intersection.
      group: The group.
    """

    model: str
    attribute: str
    group: str


class Group(OfGroup, name="group"):
    """A metric of a model in a group.

    Attributes:
      metric: Name of the metric, as in fairjax.metrics.
      estimate: The value in the group.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
      method: Method of the interval.
      shrunken: The empirical-Bayes estimate, shrunk towards the other groups of the
        attribute.
      rows: Rows in the group.
      positives: Rows with the outcome.
      denominator: Rows that the metric is a fraction or mean of.
    """

    metric: str
    estimate: Number
    lower: Number
    upper: Number
    method: str | None
    shrunken: Number
    rows: Count
    positives: Count
    denominator: float | None
    status: Status


class Gap(Entry, name="gap"):
    """A gap between groups: highest minus lowest; for a ratio, lowest over highest.

    Attributes:
      model: Name of the model.
      attribute: Name of the attribute or intersection.
      metric: Name of the gap, as in fairjax.metrics.
      estimate: The observed gap.
      lower: Lower end of the interval, which is simultaneous over all pairs of groups.
      upper: Upper end of the interval.
      corrected: The gap minus the part due to chance.
      noise_floor: The gap that chance alone gives on average.
      p: P-value of the test that there is no gap.
      p_adjusted: The p-value, corrected for the number of tests.
      test: The test of the p-value.
      highest: The group with the highest value.
      lowest: The group with the lowest value.
      compared: The groups compared.
      left_out: The groups with rows that are not compared because they have too few
        positives or negatives.
      withheld: The groups that are not compared because they are suppressed.
    """

    model: str
    attribute: str
    metric: str
    estimate: Number
    lower: Number
    upper: Number
    corrected: Number
    noise_floor: Number
    p: Share
    p_adjusted: Share
    test: str | None
    highest: str | None
    lowest: str | None
    compared: list[str]
    left_out: list[str]
    withheld: list[str]
    status: Status


class Curves(Entry, name="curves"):
    """Points of the curves by group.

    Attributes:
      roc: ROC curves; none if small cells are suppressed.
      calibration: Calibration curves.
      decision: Decision curves; none if small cells are suppressed.
    """

    roc: "list[Roc]"
    calibration: "list[Calibration]"
    decision: "list[Decision]"


class Roc(OfGroup, name="roc"):
    """A ROC curve.

    Attributes:
      fpr: False positive rates, ascending.
      tpr: True positive rates at these false positive rates.
    """

    fpr: Series
    tpr: Series


class Calibration(OfGroup, name="calibration"):
    """A calibration curve, with a bin of scores for each point.

    Attributes:
      predicted: Mean score of each bin.
      observed: Fraction with the outcome in each bin.
      lower: Lower end of the interval of the fraction.
      upper: Upper end of the interval.
      rows: Rows in each bin.
    """

    predicted: Series
    observed: Series
    lower: Series
    upper: Series
    rows: Series


class Decision(OfGroup, name="decision"):
    """A decision curve.

    Attributes:
      threshold: Thresholds, ascending.
      net_benefit: Net benefit of the model's decisions.
      treat_all: Net benefit of selecting everyone.
    """

    threshold: Series
    net_benefit: Series
    treat_all: Series


class Sensitivity(Entry, name="sensitivity"):
    """A gap as a function of the threshold.

    Attributes:
      model: Name of the model.
      attribute: Name of the attribute or intersection.
      metric: Name of the gap.
      threshold: Thresholds, ascending.
      estimate: The gap at each threshold.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
    """

    model: str
    attribute: str
    metric: str
    threshold: Series
    estimate: Series
    lower: Series
    upper: Series


class Discovery(Entry, name="discovery"):
    """A group that the search found.

    Attributes:
      model: Name of the model.
      metric: Name of the metric.
      group: The group, as "sex = F, insurance = Medicaid".
      attributes: Attribute to category.
      rows: Rows in the group.
      positives: Rows with the outcome.
      estimate: The metric in the group.
      rest: The metric in all other rows.
      difference: The metric in the group minus the metric in all other rows.
      p: P-value of this group alone.
      p_corrected: P-value, corrected for the search.
      searched: Number of groups searched.
    """

    model: str
    metric: str
    group: str
    attributes: dict[str, str]
    rows: Count
    positives: Count
    estimate: Number
    rest: Number
    difference: Number
    p: Share
    p_corrected: Share
    searched: Natural


class Change(Entry, name="change"):
    """A change of AUROC with its interval.

    Attributes:
      estimate: AUROC of the new model minus AUROC of the baseline.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
    """

    estimate: Number
    lower: Number
    upper: Number


class GroupChange(Change, name="change"):
    """A change of AUROC with its interval.

    Attributes:
      group: The group, if the change is of one group.
    """

    group: str | None = None


class Comparison(Entry, name="comparison"):
    """A model compared with the baseline over one attribute or several.

    Attributes:
      model: Name of the model.
      baseline: Name of the first model.
      attribute: The attribute, or "all attributes".
      gain: Change over all rows.
      worst: Smallest change over the groups.
      margin: Loss of AUROC that still counts as no harm.
      verdict: positive-sum, non-harmful gap, harmful or inconclusive.
      groups: The change of each group compared.
      left_out: Groups that the verdict excludes because they have too few positives or
        negatives.
      withheld: Groups that the verdict excludes because they are suppressed.
    """

    model: str
    baseline: str
    attribute: str
    gain: Change
    worst: GroupChange
    margin: Annotated[float | int, ("minimum", 0)]
    verdict: str
    groups: list[GroupChange]
    left_out: list[str]
    withheld: list[str]


class RuleResult(Entry, name="gate"):
    """A rule and its result.

    Attributes:
      rule: The rule as given.
      estimate: The value that the rule applies to.
      lower: Lower end of the interval.
      upper: Upper end of the interval.
      status: failed: the whole interval lies beyond the bound of the rule; undecided:
        there is no estimate, or the gap leaves out a group with rows and its interval
        does not lie beyond the bound; passed: otherwise.
      reason: Reason of the status, in words.
    """

    rule: str
    estimate: Number
    lower: Number
    upper: Number
    status: Literal["failed", "passed", "undecided"]
    reason: str


class Topic(Entry, name="topic"):
    """A topic of TRIPOD+AI (Collins et al., BMJ 2024;385:e078378).

    Attributes:
      topic: The topic.
      item: Number of the item in the guideline.
      section: The report's section that supports evidence for it.
    """

    topic: str
    item: str
    section: str


class Document(Entry, kw_only=True):
    """Results of an audit of a table of predictions.

    A number that cannot be estimated, is left out or is suppressed is null. Numbers are
    rounded to seven significant digits.

    Attributes:
      schema: Marks the file as an audit.
      schema_version: Version of this schema. The second number increases when fields
        are added, the first when a field changes its meaning or is removed.
      fairjax_version: Version of fairjax that made the audit.
      title: Title of the report, if one was given.
      versions: Versions of the packages that computed the numbers.
      quality: Findings on the quality of the table.
      cohort: Every declared group of every attribute and intersection, including empty
        groups.
      overall: Each model's metrics over all rows.
      groups: Each metric of each group and model.
      gaps: Each gap between the groups of an attribute or intersection.
      sensitivity: Gaps as functions of the threshold.
      discovery: The most disadvantaged groups that the search found.
      comparison: Each further model compared with the first.
      command: The command that reproduces the audit, with file names without folders.
      gate: Each --fail-on rule and its result.
      summary: The main findings in sentences.
      limits: What the data cannot tell, in sentences.
      tripod_ai: TRIPOD+AI topics that sections of the report support evidence for.
    """

    schema: Literal["fairjax-audit"]
    schema_version: Literal["1.0"]
    fairjax_version: str
    title: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    settings: Settings
    data: Data
    quality: list[Finding]
    cohort: list[Cohort]
    overall: list[Overall]
    groups: list[Group]
    gaps: list[Gap]
    curves: Curves
    sensitivity: list[Sensitivity]
    discovery: list[Discovery]
    comparison: list[Comparison]
    command: str | None = None
    gate: list[RuleResult]
    summary: list[str]
    limits: list[str]
    tripod_ai: list[Topic]


# A document, or its JSON.
DocumentLike: TypeAlias = Document | Mapping[str, Any]

_JSON = {str: "string", float: "number", int: "integer", bool: "boolean"}
# A field and its description in the docstring of a class.
_MEANING = re.compile(r"^  (\w+): (.*(?:\n    .*)*)", re.MULTILINE)


@functools.cache
def schema() -> dict[str, Any]:
    """Returns the JSON schema (draft 2020-12) of ``audit.json``.

    Example:
      >>> schema()["properties"]["schema"]["const"]
      'fairjax-audit'
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fairjax:audit:{VERSION}",
        "title": f"fairjax audit, version {VERSION}",
        **_object(Document),
        "$defs": _SCALARS | {name: _object(kind) for name, kind in _DEFINED.items()},
    }


def _object(kind: Any) -> dict[str, Any]:
    """Returns the schema of an entry, with descriptions from its docstrings."""
    docs = [inspect.getdoc(base) or "" for base in (*kind.__bases__, kind)]
    meanings = {
        name: {"description": " ".join(text.split())}
        for doc in docs
        for name, text in _MEANING.findall(doc)
    }
    hints = get_type_hints(kind, include_extras=True)
    # Later versions may add settings.
    closed = is_dataclass(kind)
    optional = {
        f.name
        for f in (fields(kind) if closed else ())
        if f.default is not MISSING or f.default_factory is not MISSING
    }
    return {
        "type": "object",
        "description": " ".join(docs[-1].partition("Attributes:")[0].split()),
        "additionalProperties": not closed,
        "required": [name for name in hints if name not in optional],
        "properties": {
            name: _schema_of(hint) | meanings.get(name, {})
            for name, hint in hints.items()
        },
    }


def _schema_of(hint: Any) -> dict[str, Any]:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        of, *more = parts
        if isinstance(more[0], str):
            return {"$ref": f"#/$defs/{more[0]}"}
        return _schema_of(of) | dict(more)
    if origin is Literal:
        return {"const": parts[0]} if len(parts) == 1 else {"enum": list(parts)}
    if origin is list:
        return {"type": "array", "items": _schema_of(parts[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(parts[1])}
    if hint is Settings:
        return {"$ref": "#/$defs/settings"}
    if _is_entry(hint):
        if hint.defined:
            return {"$ref": f"#/$defs/{hint.defined}"}
        return {k: v for k, v in _object(hint).items() if k != "description"}
    # A number of JSON may be an integer.
    kinds = [_JSON.get(part, "null") for part in parts or (hint,)]
    kinds = [kind for kind in kinds if kind != "integer" or "number" not in kinds]
    return {"type": kinds[0] if len(kinds) == 1 else kinds}


def markdown() -> str:
    """Returns the schema as the page ``docs/audit-schema.md``.

    Example:
      >>> markdown().splitlines()[0]
      '# The file audit.json'
    """
    # Imported here, because templates import `formats`, which imports this module.
    from fairjax.audit._templates import environment

    page = environment(escape=False, strict=False).get_template("words/schema.txt")
    facts = {"name": NAME, "version": VERSION, "type": _type, "target": _target}
    return page.render(root=schema(), **facts)


def _target(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the definition that a field refers to, or the field itself."""
    if "$ref" not in field:
        return field
    return schema()["$defs"][field["$ref"].rsplit("/", 1)[1]]


def _type(field: Mapping[str, Any]) -> str:
    """Returns the type of a field, in words."""
    name = field.get("$ref", "").rsplit("/", 1)[-1]
    field = _target(field)
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    if kinds == ["array"]:
        items = field["items"]
        linked = items.get("$ref", "").rsplit("/", 1)[-1]
        if linked and _target(items).get("type") == "object":
            return f"list of [{linked}](#{linked})"
        return f"list of {_type(items)}"
    if kinds == ["object"]:
        if name:
            return f"[{name}](#{name})"
        more = field.get("additionalProperties")
        return f"object of {_type(more)}" if isinstance(more, Mapping) else "object"
    return " or ".join(kinds)
