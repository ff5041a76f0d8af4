"""Rules that an audit can fail, such as ``equalized_odds_difference(race) > 0.1``.

A rule names what must not be. It is judged on the interval and not on the estimate: it
*failed* where the whole interval lies beyond the bound, and *passed* otherwise. What
could not be estimated, because groups are too small or are withheld, is *undecided*,
which is not a pass. So is a gap that a group with rows has no part in, unless it fails
without that group: nobody knows what the group would add.

    [model:] metric(WHERE) OP NUMBER

WHERE is nothing, for all rows together; an attribute, ``race``, or an intersection,
``sex * race``; or one group, ``race=black`` or ``sex=F, race=black``. OP is ``>``,
``>=``, ``<`` or ``<=``. Without a model the rule holds for each model. A metric of
single groups with an attribute, ``true_positive_rate(race) < 0.6``, holds for each
group of it that has rows.
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

# The metrics that a rule may name: those of all rows or of one group,
RATE_METRICS: Final = tuple(
    sorted(name for name, row in METRICS.items() if row.audited and row.interval)
)
# and those that compare the groups of an attribute.
GAP_METRICS: Final = tuple(sorted(AUDITED))
# How the document joins the names of the attributes, and of the levels, that cross.

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
    """One rule of ``--fail-on``, read.

    Attributes:
        text: The rule as it was given.
        model: The model that it is about; None for each.
        metric: The metric's name.
        attributes: The attributes that WHERE names; none for all rows together.
        levels: Their levels, if WHERE names a group; none otherwise.
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
    """Reads a rule.

    Raises:
        AuditError: If it is no rule, or its metric is unknown or does not go with
            what the parentheses hold.

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
            f"the rule {text!r} names no metric of an audit{near_miss(metric, known)}"
        )
    attributes, levels = _where(text, match["where"])
    if metric in GAP_METRICS and (levels or not attributes):
        raise AuditError(
            f"the rule {text!r} must name an attribute, and no group, in its "
            f"parentheses: {metric} compares the groups of one"
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
    """Holds the rules against the values of a document.

    Args:
        document: The audit's ``overall``, ``groups`` and ``gaps`` are read, and
            ``data`` for the models' names.
        rules: What must not be.

    Returns:
        The document's ``gate``: for each rule, and each model where the rule names
        none, the ``rule``, the ``estimate`` and interval that decided, the ``status``
        ("failed", "passed" or "undecided"), and the ``reason``.

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
            verdict = _judge_one(document, rule, model)
            gate.append({"rule": prefix + rule.text} | verdict)
    return gate


def gate_fails(
    gate: Iterable[Mapping[str, Any]], *, allow_undecided: bool = False
) -> bool:
    """Whether a document's gate is shut: a rule failed, or could not be decided.

    Example:
        >>> gate = [{"status": "passed"}, {"status": "undecided"}]
        >>> gate_fails(gate), gate_fails(gate, allow_undecided=True)
        (True, False)
    """
    shut = {"failed"} if allow_undecided else {"failed", "undecided"}
    return any(entry["status"] in shut for entry in gate)


def _where(text: str, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The attributes and the levels of what the parentheses hold."""
    if not where.strip():
        return (), ()
    if "=" not in where:
        names = tuple(part.strip() for part in re.split(r"[,*×]", where))
        if not all(names) or len(set(names)) < len(names):
            raise AuditError(f"the rule {text!r} names an attribute twice, or none")
        return names, ()
    # A joint parts two groups only if another attribute follows, because a level may
    # hold one: "race=Black, Caribbean".
    pairs = [part.partition("=") for part in _NEXT_GROUP.split(where)]
    names = tuple(name.strip() for name, _, _ in pairs)
    levels = tuple(level.strip() for _, _, level in pairs)
    if not all(names + levels) or len(set(names)) < len(names):
        raise AuditError(
            f"the rule {text!r} names an attribute twice, or lacks one or its level"
        )
    return names, levels


def _judge_one(document: Document, rule: Rule, model: str) -> dict[str, Any]:
    found = [entry for entry in _entries(document, rule) if entry.model == model]
    if not found:
        return _verdict(None, "undecided", "the audit holds no such value")
    if not rule.levels:
        # Among all groups one that is declared and has nobody is passed over.
        found = [e for e in found if getattr(e, "status", None) != "empty"] or found
    # Alone the values over all rows have no status that says so.
    suppressing = getattr(document, "settings", {}).get("suppress_below", 0) > 0
    may_be_withheld = suppressing and not rule.attributes
    verdicts = [_judge_entry(entry, rule, may_be_withheld) for entry in found]
    above = rule.operator.startswith(">")

    def badness(verdict: Mapping[str, Any]) -> tuple[int, float]:
        rank = {"failed": 2, "undecided": 1, "passed": 0}[verdict["status"]]
        estimate = verdict["estimate"]
        if estimate is None:
            return rank, -math.inf
        return rank, estimate if above else -estimate

    return max(verdicts, key=badness)


def _entries(document: Document, rule: Rule) -> list[Any]:
    """The document's values that a rule is about, of every model."""
    if not rule.attributes:
        return [row for row in document.overall if row.metric == rule.metric]
    room = document.gaps if rule.metric in GAP_METRICS else document.groups
    rows: list[Any] = [row for row in room if row.metric == rule.metric]
    if len(rule.attributes) == 1:
        crossed = {rule.attributes[0]: rule.attributes}
    else:
        # An intersection may be named in any order.
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


def _judge_entry(entry: Any, rule: Rule, may_be_withheld: bool) -> dict[str, Any]:
    """Holds a rule against one value; the reasons are in ``words/rule.txt``."""
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
        "may_be_withheld": may_be_withheld,
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
