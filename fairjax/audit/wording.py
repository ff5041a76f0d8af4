"""Sentences on what an audit found, with no more certainty than the numbers give."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from fairjax.audit._templates import sentences
from fairjax.audit.formats import count, interval, level, number, plural, select, some
from fairjax.audit.glossary import RANKING, phrase
from fairjax.audit.limits import limits
from fairjax.audit.schema import Document, DocumentLike, Gap
from fairjax.audit.tripod import tripod_ai
from fairjax.metrics.definitions import GAPS

Verdict = Literal["clear", "lead", "chance", "unknown"]
# Gap -> gaps that include it: if such a gap is clear, the summary omits the gap.
WITHIN = {
    "equal_opportunity_difference": ("equalized_odds_difference",),
    "false_positive_rate_difference": ("equalized_odds_difference",),
    "demographic_parity_ratio": ("demographic_parity_difference",),
}
_HIDDEN: Literal["suppressed"] = "suppressed"
# Rounding error of 1 - 0.95 in floating point.
_ROUNDING = 1e-12
# The summary reports one gap for each grouping: the first of these that exists.
HEADLINES = (
    "equalized_odds_difference",
    "equal_opportunity_difference",
    "demographic_parity_difference",
    "auroc_difference",
)


def words(document: DocumentLike) -> dict[str, Any]:
    """Returns the document's entries ``summary``, ``limits`` and ``tripod_ai``.

    Example:
      >>> entries = words({"cohort": [], "groups": [], "gaps": [], "gate": [],
      ...     "settings": {"confidence": 0.95}, "quality": [], "overall": [],
      ...     "discovery": [], "comparison": [], "sensitivity": [],
      ...     "data": {"models": [], "attributes": [], "rows_used": 3,
      ...         "rows_read": 3, "rows_left_out": {}, "patients": None,
      ...         "outcome": {"column": "died", "positive": "1"},
      ...         "positives": 1, "prevalence": 1 / 3}})
      >>> entries["summary"]
      ['The table was audited on 3 rows; 33.3 % of rows have the outcome (died = 1).']
    """
    document = Document.of(document)
    return {
        "summary": sentences("summary", **_facts(document)),
        "limits": limits(document),
        "tripod_ai": tripod_ai(document),
    }


def judge(gap: Gap | Mapping[str, Any], confidence: float = 0.95) -> Verdict:
    """Classifies a gap by its interval and its adjusted p-value.

    ``clear``: the interval excludes equality, and so does the test after correction for
    all tests. ``lead``: only one of the two excludes equality; usually the interval,
    which has no correction for other gaps. ``chance``: neither excludes equality.
    ``unknown``: neither exists.

    Example:
      >>> gap = {"metric": "auroc_difference", "status": "ok", "estimate": 0.1,
      ...        "lower": 0.04, "upper": 0.16, "p_adjusted": 0.2}
      >>> judge(gap), judge({**gap, "lower": 0.0}), judge({**gap, "p_adjusted": 0.01})
      ('lead', 'chance', 'clear')
    """
    gap = Gap.of(gap)
    if gap.status != "ok" or gap.estimate is None:
        return "unknown"
    evidence = []
    if gap.lower is not None and gap.upper is not None:
        ratio = gap.metric.endswith("_ratio")
        evidence.append(gap.upper < 1 if ratio else gap.lower > 0)
    if gap.p_adjusted is not None:
        evidence.append(gap.p_adjusted < 1 - confidence - _ROUNDING)
    if not evidence:
        return "unknown"
    return "clear" if all(evidence) else "lead" if any(evidence) else "chance"


def headlines(document: DocumentLike) -> list[Gap]:
    """Returns the headline gap of each model and attribute, in the document's order.

    Example:
      >>> gap = {"model": "m", "attribute": "sex", "metric": "auroc_difference"}
      >>> other = {**gap, "metric": "equalized_odds_difference"}
      >>> [found.metric for found in headlines({"gaps": [gap, other]})]
      ['equalized_odds_difference']
    """
    best: dict[tuple[str, str], Gap] = {}
    for gap in Document.of(document).gaps:
        if gap.metric not in HEADLINES:
            continue
        key = gap.model, gap.attribute
        rank = HEADLINES.index(gap.metric)
        if key not in best or rank < HEADLINES.index(best[key].metric):
            best[key] = gap
    return list(best.values())


def _several(document: Document) -> bool:
    return len(document.data.models) > 1


def _where(document: Document, gap: Gap) -> str:
    """Names the attribute, and the model if there are several."""
    model = f" in {gap.model}" if _several(document) else ""
    partly = gap.withheld and gap.status == "ok"
    return f"{'the groups shown of ' if partly else ''}{gap.attribute}{model}"


def _of(document: Document, gap: Gap) -> str:
    """Names the rate that has the equalized-odds gap, as a prefix to its groups."""
    if gap.metric != "equalized_odds_difference":
        return ""
    for name in ("equal_opportunity_difference", "false_positive_rate_difference"):
        same = select(
            document.gaps,
            model=gap.model,
            attribute=gap.attribute,
            metric=name,
            estimate=gap.estimate,
        )
        if same:
            return f"{phrase(GAPS[name].rates[0])}: "
    return ""


def _facts(document: Document) -> dict[str, Any]:
    """Returns the variables of the template ``words/summary.txt``."""
    data, settings = document.data, document.settings
    several, at = _several(document), level(settings["confidence"])
    never, partly = _too_few(document)
    searched = [d for d in document.discovery if d.p_corrected is not None]
    results = dict.fromkeys(entry.status for entry in document.gate)
    return {
        "document": document,
        "data": data,
        "settings": settings,
        "level": 1 - settings["confidence"] - _ROUNDING,
        "several": several,
        "models": [m.name for m in data.models],
        "cuts": {m.threshold for m in data.models},
        "sources": sorted({m.threshold_source for m in data.models}),
        "warnings": len(select(document.quality, severity="warning")),
        "aurocs": [
            f"{number(e.estimate)} ({at} interval {interval(e.lower, e.upper)})"
            + (f" for {e.model}" if several else "")
            for e in select(document.overall, metric="auroc")
            if e.estimate is not None
        ],
        "clear": _clear(document),
        "also_clear": _besides(document, "clear"),
        "unclear": _unclear(document),
        "leads": _besides(document, "lead"),
        "never": never,
        "partly": partly,
        "withheld": _suppressed(document),
        "worst": min(searched, key=lambda d: d.p_corrected or 0, default=None),
        "compared": _compared(document),
        "not_compared": any(entry.withheld for entry in document.comparison),
        "results": [
            f"{count(len(select(document.gate, status=status)))} {status}"
            for status in results
        ],
    }


def _assessed(gaps: Iterable[Gap], document: Document, verdict: Verdict) -> list[Gap]:
    confidence = document.settings["confidence"]
    return [gap for gap in gaps if judge(gap, confidence) == verdict]


def _clear(document: Document) -> list[str]:
    """Describes the clear headline gaps, the largest first."""
    found = _assessed(headlines(document), document, "clear")
    found.sort(key=lambda g: -(g.corrected or 0.0))
    parts = []
    for gap in found[:3]:
        part = (
            f"{_where(document, gap)} ({phrase(gap.metric)} "
            f"{number(gap.estimate)}, {interval(gap.lower, gap.upper)}"
        )
        if gap.noise_floor and gap.estimate is not None:
            times = number(gap.estimate / gap.noise_floor, 1)
            part += f", {times} times the gap that chance alone gives on average"
        if gap.highest is not None and gap.lowest is not None:
            part += f"; {_of(document, gap)}highest {gap.highest}, "
            part += f"lowest {gap.lowest}"
        parts.append(f"{part})")
    return parts + ([f"{len(found) - 3} more"] if len(found) > 3 else [])


def _besides(document: Document, verdict: Literal["clear", "lead"]) -> list[str]:
    """Describes gaps with the verdict that are neither headline gaps nor part of one.

    Leads are described only if no gap is clear.
    """
    if verdict == "lead" and _assessed(document.gaps, document, "clear"):
        return []
    wanted = _assessed(document.gaps, document, verdict)
    headline = {(g.model, g.attribute, g.metric) for g in headlines(document)}
    known = {(g.model, g.attribute, g.metric) for g in wanted}

    def new(gap: Gap) -> bool:
        where = gap.model, gap.attribute
        # The gap is part of a described gap, or tests the same question.
        same = [(*where, name) for name in WITHIN.get(gap.metric, ())]
        return (*where, gap.metric) not in headline and not known & set(same)

    # Sorted by p-value: gaps in different metrics have different scales.
    found = sorted(
        filter(new, wanted), key=lambda g: 1.0 if g.p_adjusted is None else g.p_adjusted
    )
    return [
        f"the {phrase(g.metric)} for {_where(document, g)} is "
        f"{number(g.estimate)} ({interval(g.lower, g.upper)})"
        for g in found
    ]


def _unclear(document: Document) -> str:
    """Describes headline gaps that may be due to chance, are leads, or are unknown."""
    chance, leads, unknown = (
        _assessed(headlines(document), document, verdict)
        for verdict in ("chance", "lead", "unknown")
    )
    parts = []
    if chance:
        listed = [
            f"{_where(document, g)} ({number(g.estimate)}, "
            f"{interval(g.lower, g.upper)})"
            for g in chance
        ]
        parts.append(
            f"The {phrase(chance[0].metric)} may be due to chance for "
            f"{some(listed, 5)}, which does not show that the groups are equal"
        )
    if leads:
        listed = [_where(document, g) for g in leads]
        parts.append(
            f"for {some(listed, 5)}, the gap is beyond chance before correction "
            "for all tests but not after: a lead, not a finding"
        )
    reasons: dict[str, list[str]] = {}
    for gap in unknown:
        why = f"there are too few patients to estimate the {phrase(gap.metric)}"
        if gap.status == "suppressed":
            why = "too many groups are suppressed"
        elif len(gap.compared) + len(gap.left_out) < 2:
            why = "fewer than two groups have rows"
        reasons.setdefault(why, []).append(_where(document, gap))
    parts += [f"for {some(where, 5)}, {why}" for why, where in reasons.items()]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _named(document: Document, groups: Collection[tuple[str, str]]) -> str:
    """Lists groups (attribute, category) by name, and counts intersections."""
    crossed = {a.name for a in document.data.attributes if a.intersection}
    single = [f"{name} = {level}" for name, level in groups if name not in crossed]
    listed = some(single, 6)
    if len(single) == len(groups):
        return listed
    more = plural(len(groups) - len(single), "intersection")
    return f"{listed}, and {more}" if listed else more


def _too_few(document: Document) -> tuple[str, str]:
    """Lists small groups that no gap compares, then groups that some gaps compare."""
    compared = {
        (gap.attribute, group)
        for gap in select(document.gaps, status="ok")
        for group in gap.compared
    }
    few = [
        (c.attribute, c.group)
        for c in document.cohort
        if c.status in ("insufficient", "empty")
    ]
    never = [group for group in few if group not in compared]
    partly = [group for group in few if group in compared]
    return _named(document, never), _named(document, partly)


def _suppressed(document: Document) -> list[str]:
    """Lists groups that are suppressed completely, then groups suppressed in part."""
    whole = [(c.attribute, c.group) for c in select(document.cohort, status=_HIDDEN)]
    partly: dict[tuple[str, str], dict[tuple[str, str], None]] = {}
    for entry in select(document.groups, status=_HIDDEN):
        group = entry.attribute, entry.group
        if group not in whole:
            what = "ranking and calibration" if entry.metric in RANKING else "decisions"
            partly.setdefault((what, entry.model), {})[group] = None
    parts = [_named(document, whole)] if whole else []
    for (what, model), groups in partly.items():
        of = f" of {model}" if _several(document) else ""
        parts.append(f"{what}{of} for {_named(document, groups)}")
    return parts


def _compared(document: Document) -> list[str]:
    """Describes the verdicts on the models, each with its attributes."""
    by_verdict: dict[tuple[str, str, str], list[str]] = {}
    for entry in document.comparison:
        key = entry.model, entry.baseline, entry.verdict
        worst, over = entry.worst, entry.attribute
        if worst.estimate is not None:
            sign = "+" if worst.estimate > 0 else ""
            over += f" ({sign}{number(worst.estimate)} for {worst.group}"
            if entry.left_out:
                over += f"; too few to compare: {some(entry.left_out)}"
            over += ")"
        by_verdict.setdefault(key, []).append(over)
    return [
        f"{model} against {baseline} is {verdict} for {some(over, 5)}"
        for (model, baseline, verdict), over in by_verdict.items()
    ]


def explain(gap: Gap | Mapping[str, Any], confidence: float = 0.95) -> str:
    """Returns the verdict on a gap, as words for a cell of a table.

    Example:
      >>> explain({"metric": "auroc_difference", "status": "insufficient",
      ...          "estimate": None})
      'too few patients to estimate'
    """
    gap = Gap.of(gap)
    if gap.status == "suppressed":
        return "suppressed"
    return {
        "clear": "beyond chance",
        "lead": "a lead: beyond chance before correction, not after",
        "chance": "may be due to chance",
        "unknown": "too few patients to estimate",
    }[judge(gap, confidence)]
