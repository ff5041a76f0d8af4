"""The audit in sentences: what was found, with no more certainty than there is."""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from fairjax.audit.formats import (
    count,
    interval,
    joined,
    level,
    number,
    p_value,
    percent,
    plural,
    select,
    some,
)
from fairjax.audit.glossary import RANKING, phrase
from fairjax.audit.limits import limits
from fairjax.audit.schema import Document, DocumentLike, Gap
from fairjax.audit.tripod import tripod_ai
from fairjax.metrics.definitions import GAPS

Verdict = Literal["clear", "lead", "chance", "unknown"]
# Gaps that a clear one of another metric speaks for.
WITHIN = {
    "equal_opportunity_difference": ("equalized_odds_difference",),
    "false_positive_rate_difference": ("equalized_odds_difference",),
    "demographic_parity_ratio": ("demographic_parity_difference",),
}
# The gap that stands for a family in the summary: the first that the audit has.
HEADLINES = (
    "equalized_odds_difference",
    "equal_opportunity_difference",
    "demographic_parity_difference",
    "auroc_difference",
)


def words(document: DocumentLike) -> dict[str, Any]:
    """The document's entries ``summary``, ``limits`` and ``tripod_ai``.

    Example:
      >>> entries = words({"cohort": [], "groups": [], "gaps": [], "gate": [],
      ...     "settings": {"confidence": 0.95}, "quality": [], "overall": [],
      ...     "discovery": [], "comparison": [], "sensitivity": [],
      ...     "data": {"models": [], "attributes": [], "rows_used": 3,
      ...         "rows_read": 3, "rows_left_out": {}, "patients": None,
      ...         "outcome": {"column": "died", "positive": "1"},
      ...         "positives": 1, "prevalence": 1 / 3}})
      >>> entries["summary"]
      ['The table was audited on 3 rows; 33.3 % have the outcome (died = 1).']
    """
    document = Document.of(document)
    sentences = [
        _audited(document),
        _overall(document),
        _clear(document),
        _besides(document, "clear"),
        _unclear(document),
        _besides(document, "lead"),
        _too_few(document),
        _withheld(document),
        _intersections(document),
        _compared(document),
        _gate(document),
    ]
    return {
        "summary": [sentence for sentence in sentences if sentence],
        "limits": limits(document),
        "tripod_ai": tripod_ai(document),
    }


def judge(gap: Gap | Mapping[str, Any], confidence: float = 0.95) -> Verdict:
    """What a gap's interval and its adjusted p-value together allow to be said.

    ``clear``: the interval leaves out equality, and the test does after correction for
    all tests. ``lead``: only the interval does, which is that of one gap by itself.
    ``chance``: neither. ``unknown``: neither exists.

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
        # The tolerance is that of 1 - 0.95 in floating point.
        evidence.append(gap.p_adjusted < 1 - confidence - 1e-12)
    if not evidence:
        return "unknown"
    return "clear" if all(evidence) else "lead" if any(evidence) else "chance"


def headlines(document: DocumentLike) -> list[Gap]:
    """The gap that stands for each model and attribute, in the document's order.

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
    """The attribute, and the model where there are several."""
    model = f" in {gap.model}" if _several(document) else ""
    partly = gap.withheld and gap.status == "ok"
    return f"{'the groups shown of ' if partly else ''}{gap.attribute}{model}"


def _of(document: Document, gap: Gap) -> str:
    """Which of its two rates equalized odds is the gap of, before who differs in it."""
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


def _audited(document: Document) -> str:
    data = document.data
    models = [m.name for m in data.models]
    what = "The table" if not models else f"The score{'s' * (len(models) > 1)} "
    patients = data.patients
    people = f" from {plural(patients, 'patient')}" if patients is not None else ""
    outcome = f"{data.outcome.column} = {data.outcome.positive}"
    sentence = (
        f"{what}{joined(models)} {'were' if len(models) > 1 else 'was'} audited on "
        f"{plural(data.rows_used, 'row')}{people}; {percent(data.prevalence)} "
        f"have the outcome ({outcome})"
    )
    thresholds = {m.threshold for m in data.models}
    if len(thresholds) == 1 and None not in thresholds:
        source = joined(sorted({m.threshold_source for m in data.models}))
        cut = f"{thresholds.pop():g}"
        sentence += f"; a row is selected at a score of {cut} or above ({source})"
    warnings = len(select(document.quality, severity="warning"))
    if warnings:
        sentence += f"; {plural(warnings, 'warning')} on data quality should be read"
    return f"{sentence}."


def _overall(document: Document) -> str:
    at = level(document.settings["confidence"])
    found = [
        f"{number(e.estimate)} ({at} interval {interval(e.lower, e.upper)})"
        + (f" for {e.model}" if _several(document) else "")
        for e in select(document.overall, metric="auroc")
        if e.estimate is not None
    ]
    return f"Over all rows the AUROC is {joined(found)}." if found else ""


def _clear(document: Document) -> str:
    confidence = document.settings["confidence"]
    found = [g for g in headlines(document) if judge(g, confidence) == "clear"]
    if not found:
        return ""
    found.sort(key=lambda g: -(g.corrected or 0.0))
    parts = []
    for gap in found[:3]:
        part = (
            f"{_where(document, gap)} ({phrase(gap.metric)} "
            f"{number(gap.estimate)}, {interval(gap.lower, gap.upper)}"
        )
        if gap.noise_floor and gap.estimate is not None:
            times = number(gap.estimate / gap.noise_floor, 1)
            part += f", {times} times what chance alone gives on average"
        if gap.highest is not None and gap.lowest is not None:
            part += f"; {_of(document, gap)}highest {gap.highest}, "
            part += f"lowest {gap.lowest}"
        parts.append(f"{part})")
    more = [f"{len(found) - 3} more"] if len(found) > 3 else []
    return (
        "Groups differ by more than chance explains, after correction for all tests, "
        f"over {joined(parts + more)}."
    )


def _besides(document: Document, verdict: Literal["clear", "lead"]) -> str:
    """The other gaps so judged, which the headline counts and no sentence names.

    Leads are told where they are the most that there is.
    """
    confidence = document.settings["confidence"]
    if verdict == "lead" and any(
        judge(gap, confidence) == "clear" for gap in document.gaps
    ):
        return ""
    judged = [g for g in document.gaps if judge(g, confidence) == verdict]
    told = {(g.model, g.attribute, g.metric) for g in headlines(document)}
    known = {(g.model, g.attribute, g.metric) for g in judged}

    def new(gap: Gap) -> bool:
        where = gap.model, gap.attribute
        # Of a gap that is told it is a part, or asks the same.
        same = [(*where, name) for name in WITHIN.get(gap.metric, ())]
        return (*where, gap.metric) not in told and not known & set(same)

    found = [gap for gap in judged if new(gap)]
    if not found:
        return ""
    # The surest first: sizes of different metrics do not compare.
    found.sort(key=lambda g: 1.0 if g.p_adjusted is None else g.p_adjusted)
    parts = [
        f"the {phrase(g.metric)} over {_where(document, g)} is "
        f"{number(g.estimate)} ({interval(g.lower, g.upper)})"
        for g in found
    ]
    if verdict == "lead":
        return (
            "Beyond chance by itself but not after correction, which is a lead and no "
            "finding: "
            f"{some(parts, 4)}."
        )
    also = "Also beyond" if _clear(document) else "Beyond"
    return f"{also} chance after correction: {some(parts, 4)}."


def _unclear(document: Document) -> str:
    """Gaps within chance, and those that correction for all tests leaves unsure."""
    confidence = document.settings["confidence"]
    judged = [(g, judge(g, confidence)) for g in headlines(document)]
    chance, leads, unknown = (
        [g for g, verdict in judged if verdict == kind]
        for kind in ("chance", "lead", "unknown")
    )
    parts = []
    if chance:
        listed = [
            f"{_where(document, g)} ({number(g.estimate)}, "
            f"{interval(g.lower, g.upper)})"
            for g in chance
        ]
        parts.append(
            f"The {phrase(chance[0].metric)} is within what chance produces for "
            f"{some(listed, 5)}, which does not show that the groups are equal"
        )
    if leads:
        listed = [_where(document, g) for g in leads]
        parts.append(
            f"for {some(listed, 5)} the gap is beyond chance by itself, but not after "
            "correction for all tests: a lead, not a finding"
        )
    reasons: dict[str, list[str]] = {}
    for gap in unknown:
        why = f"there are too few patients to tell the {phrase(gap.metric)}"
        if gap.status == "suppressed":
            why = "too many groups are withheld to tell"
        elif len(gap.compared) + len(gap.left_out) < 2:
            why = "there are no two groups to compare"
        reasons.setdefault(why, []).append(_where(document, gap))
    parts += [f"for {some(where, 5)} {why}" for why, where in reasons.items()]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _named(document: Document, groups: Collection[tuple[str, str]]) -> str:
    """Groups (attribute, level) by name, and how many intersections."""
    crossed = {a.name for a in document.data.attributes if a.intersection}
    single = [f"{name} = {level}" for name, level in groups if name not in crossed]
    rest = len(groups) - len(single)
    listed, more = some(single, 6), plural(rest, "intersection")
    return f"{listed}, and {more}" if listed and rest else listed or more


def _too_few(document: Document) -> str:
    """Groups that are compared by nothing, and those that are by some gaps only."""
    few = [
        (c.attribute, c.group)
        for c in document.cohort
        if c.status in ("insufficient", "empty")
    ]
    compared = {
        (gap.attribute, group)
        for gap in select(document.gaps, status="ok")
        for group in gap.compared
    }
    never = [group for group in few if group not in compared]
    partly = [group for group in few if group in compared]
    parts = []
    if never:
        parts.append(
            f"Not judged, because they hold too few patients: {_named(document, never)}"
        )
    if partly:
        parts.append(
            "Judged in part, because they hold too few positives or negatives for the "
            f"rest: {_named(document, partly)}"
        )
    return ". ".join(parts) + "." if parts else ""


def _withheld(document: Document) -> str:
    """The groups of which nothing is shown, and those of which something is not."""
    whole = [
        (c.attribute, c.group) for c in document.cohort if c.status == "suppressed"
    ]
    partly: dict[tuple[str, str], dict[tuple[str, str], None]] = {}
    for entry in select(document.groups, status="suppressed"):
        group = entry.attribute, entry.group
        if group not in whole:
            what = "ranking and calibration" if entry.metric in RANKING else "decisions"
            partly.setdefault((what, entry.model), {})[group] = None
    parts = [_named(document, whole)] if whole else []
    for (what, model), groups in partly.items():
        of = f" of {model}" if _several(document) else ""
        parts.append(f"of the {what}{of}, {_named(document, groups)}")
    if not parts:
        return ""
    return f"Withheld, to keep small counts from being known: {'; '.join(parts)}."


def _intersections(document: Document) -> str:
    searched = [
        (d.p_corrected, d) for d in document.discovery if d.p_corrected is not None
    ]
    if not searched:
        return ""
    p, worst = min(searched, key=lambda found: found[0])
    tried = plural(worst.searched, "group")
    kinds = "searched"
    if document.settings.get("intersections", True):
        kinds += ", single and crossed"
    if p >= 1 - document.settings["confidence"] - 1e-12:
        # One that is withheld may stand out.
        none = "none"
        if document.settings.get("suppress_below", 0) > 0:
            none = "of those that may be shown none"
        return (
            f"Among {tried} {kinds}, {none} stands out once the "
            "search itself is accounted for."
        )
    return (
        f"Among {tried} {kinds}, {worst.group}"
        f"{' in ' + worst.model if _several(document) else ''} stands out: "
        f"{phrase(worst.metric)} {number(worst.estimate)} against "
        f"{number(worst.rest)} elsewhere (p = {p_value(p)} with "
        "the search accounted for)."
    )


def _compared(document: Document) -> str:
    told: dict[tuple[str, str, str], list[str]] = {}
    for entry in document.comparison:
        key = entry.model, entry.baseline, entry.verdict
        worst, over = entry.worst, entry.attribute
        if worst.estimate is not None:
            sign = "+" if worst.estimate > 0 else ""
            over += f" ({sign}{number(worst.estimate)} for {worst.group}"
            if entry.left_out:
                over += f"; too few to compare: {some(entry.left_out)}"
            over += ")"
        told.setdefault(key, []).append(over)
    parts = [
        f"{model} against {baseline} is {verdict} over {some(over, 5)}"
        for (model, baseline, verdict), over in told.items()
    ]
    if not parts:
        return ""
    hidden = any(entry.withheld for entry in document.comparison)
    who = "group shown" if hidden else "group"
    return f"By the change in AUROC of the {who} that gains least, {'; '.join(parts)}."


def _gate(document: Document) -> str:
    gate = document.gate
    if not gate:
        return ""
    found = [
        f"{count(len(select(gate, status=status)))} {status}"
        for status in dict.fromkeys(entry.status for entry in gate)
    ]
    return f"Of {plural(len(gate), 'gate rule')}, {joined(found)}."


def explain(gap: Gap | Mapping[str, Any], confidence: float = 0.95) -> str:
    """The verdict on a gap, as a table's cell says it.

    Example:
      >>> explain({"metric": "auroc_difference", "status": "insufficient",
      ...          "estimate": None})
      'too few patients to tell'
    """
    gap = Gap.of(gap)
    if gap.status == "suppressed":
        return "withheld"
    return {
        "clear": "beyond chance",
        "lead": "a lead: beyond chance by itself, not after correction",
        "chance": "within what chance produces",
        "unknown": "too few patients to tell",
    }[judge(gap, confidence)]
