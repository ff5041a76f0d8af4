"""Rules that an audit can fail, such as ``equalized_odds_difference(race) > 0.1``.

A rule states a condition that must not hold. The interval decides, not the estimate: a
rule *failed* if the whole interval lies beyond the bound, and *passed* otherwise. A
rule is *undecided*, which is not a pass, in two cases:

- The value was not estimated, because groups are too small or suppressed.
- A gap leaves out a group that has rows, and does not fail without the group. The gap
  with the group is unknown.

    [model:] metric(WHERE) OP NUMBER

WHERE is empty for all rows; an attribute, ``race``, or an intersection,
``sex * race``; or one group, ``race=black`` or ``sex=F, race=black``. OP is ``>``,
``>=``, ``<`` or ``<=``. A rule without a model applies to each model. A metric of one
group with an attribute, ``true_positive_rate(race) < 0.6``, applies to each group that
has rows.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Final, Literal

from fairjax.audit._errors import AuditError, near_miss
from fairjax.audit._templates import sentences
from fairjax.audit.schema import Document, DocumentLike, Entry
from fairjax.groups import ATTRIBUTE_JOINT, LEVEL_JOINT
from fairjax.metrics.definitions import AUDITED, METRICS

# Metrics that a rule may name: metrics of all rows or of one group,
RATE_METRICS: Final = tuple(
    sorted(name for name, row in METRICS.items() if row.audited and row.interval)
)
# and metrics that compare the groups of an attribute.
GAP_METRICS: Final = tuple(sorted(AUDITED))

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BEYOND = {">": gt, ">=": ge, "<": lt, "<=": le}
_NEXT_GROUP = re.compile(r"[,*×](?=[^,*×=]+=)")
# The model is optional and tried last: a group's name may hold a colon.
_RULE = re.compile(
    rf"\s*(?:(?P<model>\S.*?)\s*:\s*)??(?P<metric>\w+)\s*\((?P<where>.*)\)"
    rf"\s*(?P<operator>[<>]=?)\s*(?P<bound>{_NUMBER})\s*"
)


@dataclass(frozen=True)
class Rule:
    """One parsed rule of ``--fail-on``.

    Attributes:
        text: The rule as the user gave it.
        model: Name of the model; None for each model.
        metric: Name of the metric.
        attributes: The attributes in WHERE; empty for all rows.
        levels: The categories of the attributes, if WHERE names a group; else empty.
        operator: ``">"``, ``">="``, ``"<"`` or ``"<="``.
        bound: The number that the metric must not be beyond.
    """

    text: str
    model: str | None
    metric: str
    attributes: tuple[str, ...]
    levels: tuple[str, ...]
    operator: Literal[">", ">=", "<", "<="]
    bound: float


def parse(text: str) -> Rule:
    """Parses a rule.

    Args:
        text: The rule, such as ``"auroc() < 0.7"``.

    Returns:
        The parsed rule.

    Raises:
        AuditError: If the text is not a rule, if its metric is unknown, or if the
            metric does not fit the parentheses.

    Example:
        >>> rule = parse("equalized_odds_difference(sex * race) > 0.1")
        >>> rule.metric, rule.attributes, rule.operator, rule.bound
        ('equalized_odds_difference', ('sex', 'race'), '>', 0.1)
        >>> rule = parse("new: true_positive_rate(race=black) < .6")
        >>> rule.model, rule.attributes, rule.levels
        ('new', ('race',), ('black',))
    """
    match = _RULE.fullmatch(text)
    if not match:
        raise AuditError(
            f"cannot read the rule {text!r}; a rule is like "
            "'equalized_odds_difference(race) > 0.1' or 'auroc() < 0.7'"
        )
    metric = match["metric"]
    known = (*RATE_METRICS, *GAP_METRICS)
    if metric not in known:
        raise AuditError(
            f"the rule {text!r} must name an audited metric{near_miss(metric, known)}"
        )
    attributes, levels = _where(text, match["where"])
    if metric in GAP_METRICS and (levels or not attributes):
        raise AuditError(
            f"the rule {text!r} must name an attribute, and not a group, in its "
            f"parentheses, because {metric} compares the groups of an attribute"
        )
    operator: Any = match["operator"]
    return Rule(
        text=text.strip(),
        model=match["model"],
        metric=metric,
        attributes=attributes,
        levels=levels,
        operator=operator,
        bound=float(match["bound"]),
    )


def judge(document: DocumentLike, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Applies the rules to the values of a document.

    Args:
        document: The audit. Reads ``overall``, ``groups``, ``gaps``, and the names of
            the models in ``data``.
        rules: The conditions that must not hold.

    Returns:
        The document's ``gate``, with one entry for each rule, and for each model if the
        rule names no model. An entry has the ``rule``, the ``estimate`` and interval
        that decided, the ``status`` ("failed", "passed" or "undecided"), and the
        ``reason``.

    Example:
        >>> gap = {"model": "risk", "attribute": "race", "status": "ok",
        ...        "metric": "equalized_odds_difference", "estimate": 0.2,
        ...        "lower": 0.12, "upper": 0.28, "left_out": []}
        >>> document = {"data": {"models": [{"name": "risk"}], "attributes": []},
        ...             "overall": [], "groups": [], "gaps": [gap]}
        >>> rules = [parse("equalized_odds_difference(race) > 0.1")]
        >>> judge(document, rules)[0]["status"]
        'failed'
    """
    document = Document.of(document)
    names = [model.name for model in document.data.models]
    gate = []
    for rule in rules:
        models = names if rule.model is None else [rule.model]
        for model in models:
            prefix = f"{model}: " if rule.model is None and len(names) > 1 else ""
            verdict = _assess_model(document, rule, model)
            gate.append({"rule": prefix + rule.text} | verdict)
    return gate


def gate_fails(
    gate: Iterable[Mapping[str, Any]], *, allow_undecided: bool = False
) -> bool:
    """Returns whether the gate of a document fails.

    Args:
        gate: The document's entries ``gate``.
        allow_undecided: If true, only a failed rule fails the gate; if false, an
            undecided rule does too.

    Example:
        >>> gate = [{"status": "passed"}, {"status": "undecided"}]
        >>> gate_fails(gate), gate_fails(gate, allow_undecided=True)
        (True, False)
    """
    shut = {"failed"} if allow_undecided else {"failed", "undecided"}
    return any(entry["status"] in shut for entry in gate)


def _where(text: str, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the attributes and the categories in the parentheses of a rule."""
    if not where.strip():
        return (), ()
    if "=" not in where:
        names = tuple(part.strip() for part in re.split(r"[,*×]", where))
        if not all(names) or len(set(names)) < len(names):
            raise AuditError(f"the rule {text!r} must name each attribute once")
        return names, ()
    # A separator splits two groups only if another attribute follows, because a
    # category may contain a separator: "race=Black, Caribbean".
    pairs = [part.partition("=") for part in _NEXT_GROUP.split(where)]
    names = tuple(name.strip() for name, _, _ in pairs)
    levels = tuple(level.strip() for _, _, level in pairs)
    if not all(names + levels) or len(set(names)) < len(names):
        raise AuditError(
            f"the rule {text!r} must give each attribute once, with a category"
        )
    return names, levels


def _assess_model(document: Document, rule: Rule, model: str) -> dict[str, Any]:
    rows = [entry for entry in _entries(document, rule) if entry.model == model]
    if not rows:
        return _verdict(None, "undecided", "the audit has no such value")
    if not rule.levels:
        # Skips declared groups without patients, unless all groups are such.
        rows = [e for e in rows if getattr(e, "status", None) != "empty"] or rows
    # Values over all rows have no status that tells whether they are suppressed.
    suppressing = getattr(document, "settings", {}).get("suppress_below", 0) > 0
    may_be_suppressed = suppressing and not rule.attributes
    verdicts = [_assess(entry, rule, may_be_suppressed) for entry in rows]
    above = rule.operator.startswith(">")

    def badness(verdict: Mapping[str, Any]) -> tuple[int, float]:
        rank = {"failed": 2, "undecided": 1, "passed": 0}[verdict["status"]]
        estimate = verdict["estimate"]
        if estimate is None:
            return rank, -math.inf
        return rank, estimate if above else -estimate

    return max(verdicts, key=badness)


def _entries(document: Document, rule: Rule) -> list[Any]:
    """Returns the document's values that a rule applies to, of every model."""
    if not rule.attributes:
        return [row for row in document.overall if row.metric == rule.metric]
    room = document.gaps if rule.metric in GAP_METRICS else document.groups
    rows: list[Any] = [row for row in room if row.metric == rule.metric]
    if len(rule.attributes) == 1:
        crossed = {rule.attributes[0]: rule.attributes}
    else:
        # The attributes of an intersection may be in any order.
        wanted = set(rule.attributes)
        crossed = {
            attribute.name: names
            for attribute in document.data.attributes
            if set(names := tuple(attribute.name.split(ATTRIBUTE_JOINT))) == wanted
        }
    rows = [row for row in rows if row.attribute in crossed]
    if rule.levels:
        level = dict(zip(rule.attributes, rule.levels, strict=True))
        rows = [
            row
            for row in rows
            if row.group
            == LEVEL_JOINT.join(level[name] for name in crossed[row.attribute])
        ]
    return rows


def _assess(entry: Any, rule: Rule, may_be_suppressed: bool) -> dict[str, Any]:
    """Applies a rule to one value; the reasons are in ``words/rule.txt``."""
    shown = getattr(entry, "status", "ok")
    left_out, withheld = (getattr(entry, k, None) for k in ("left_out", "withheld"))
    above = rule.operator.startswith(">")
    side = "above" if above else "below"
    named = hasattr(entry, "group") and not rule.levels
    facts = {
        "entry": entry,
        "where": f"{entry.group}: " if named else "",
        "withheld": withheld,
        "left_out": left_out,
        "may_be_suppressed": may_be_suppressed,
        "lonely": hasattr(entry, "compared")
        and len(entry.compared + (left_out or [])) < 2,
        "side": f"at or {side}" if rule.operator.endswith("=") else side,
        "bound": rule.bound,
    }

    def verdict(status: str, why: str, found: Entry | None = entry) -> dict[str, Any]:
        [reason] = sentences("rule", why=why, **facts)
        return _verdict(found, status, reason)

    if shown == "suppressed":
        return verdict("undecided", "suppressed", None)
    if shown != "ok" or entry.estimate is None:
        return verdict("undecided", "insufficient", None)
    if None in (entry.lower, entry.upper):
        return verdict("undecided", "no interval")
    ends = (entry.lower, entry.upper) if above else (entry.upper, entry.lower)
    nearest, farthest = (_BEYOND[rule.operator](end, rule.bound) for end in ends)
    if nearest:
        return verdict("failed", "beyond")
    if withheld or left_out:
        return verdict("undecided", "of others")
    return verdict("passed", "open" if farthest else "ruled out")


def _verdict(entry: Entry | None, status: str, reason: str) -> dict[str, Any]:
    numbers = {k: getattr(entry, k, None) for k in ("estimate", "lower", "upper")}
    return {**numbers, "status": status, "reason": reason}
