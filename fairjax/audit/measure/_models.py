"""Comparison of the first model with each other model, in groups that are shown."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fairjax import metrics
from fairjax.audit.measure import _entries as entries
from fairjax.audit.measure._small_cells import Suppressed, without
from fairjax.audit.options import Options
from fairjax.audit.reading.data import AuditData, Model
from fairjax.audit.schema import Change, Comparison, GroupChange
from fairjax.groups import Grouping

_ALL = "all attributes"

_positive_sum = jax.jit(
    metrics.positive_sum,
    static_argnames=(
        "num_groups",
        "confidence",
        "min_positives",
        "min_negatives",
        "num_patients",
        "margin",
    ),
)


def compare_models(
    data: AuditData,
    families: Sequence[Grouping],
    suppressed: Suppressed | None,
    options: Options,
    *,
    num_groups: int,
    by_patient: bool,
) -> Iterator[Comparison]:
    """Yields an entry for each later model and grouping, and one for all groupings.

    Args:
      data: The rows.
      families: The groupings.
      suppressed: The suppressed groups and metrics; None for no suppression.
      options: The options of the audit.
      num_groups: Number of groups that every grouping is padded to.
      by_patient: Whether patients have several rows.
    """
    baseline, *others = data.models
    together = Grouping(_ALL, (), np.empty(0, np.int32))
    for place, model in enumerate(others, start=1):
        open_to_all = families
        if suppressed is not None:
            open_to_all = _open(place, families, suppressed)
        for family in (*open_to_all, together):
            parts = open_to_all if family is together else (family,)
            if family is together and len(parts) < 2:
                continue
            levels: list[str | None] = []
            hidden, occurs = [], []
            for part in parts:
                padding = num_groups - len(part.levels)
                start = "" if len(parts) == 1 else f"{part.name} = "
                levels += [f"{start}{level}" for level in part.levels]
                levels += [None] * padding
                hidden += [*_hidden(place, part, suppressed), *[False] * padding]
                codes = part.codes[part.codes >= 0]
                occurs += (np.bincount(codes, minlength=num_groups) > 0).tolist()
            found = _gains(data, model, parts, options, num_groups, by_patient)
            worst = int(found.worst_group)
            changes = _changes(found.group_gains, found.group_lower, found.group_upper)
            compared = np.asarray(found.compared)
            # Groups without a name are padding.
            named = [(i, level) for i, level in enumerate(levels) if level is not None]
            yield Comparison(
                model.name,
                baseline.name,
                family.name,
                Change(*_changes(found.gain, found.gain_lower, found.gain_upper)[0]),
                GroupChange(
                    *_changes(found.worst, found.worst_lower, found.worst_upper)[0],
                    levels[worst] if worst >= 0 else None,
                ),
                options.margin,
                metrics.VERDICTS[int(found.verdict)],
                [GroupChange(*changes[i], level) for i, level in named if compared[i]],
                [
                    level
                    for i, level in named
                    if occurs[i] and not compared[i] and not hidden[i]
                ],
                [level for i, level in named if hidden[i]],
            )


def _changes(
    value: Any, lower: Any, upper: Any
) -> list[tuple[float | None, float | None, float | None]]:
    """Returns estimates with the lower and upper ends of their intervals."""
    found = (entries.numbers(ends) for ends in (value, lower, upper))
    return list(zip(*found, strict=True))


def _open(
    model: int, families: Sequence[Grouping], suppressed: Suppressed
) -> Sequence[Grouping]:
    """Returns groupings without groups whose AUROC is suppressed in either model."""
    if suppressed.overall_ranking[0] or suppressed.overall_ranking[model]:
        return ()
    return [without(f, np.array(_hidden(model, f, suppressed))) for f in families]


def _hidden(model: int, family: Grouping, suppressed: Suppressed | None) -> list[bool]:
    """Returns the groups whose AUROC is suppressed in the model or the baseline."""
    if suppressed is None:
        return [False] * len(family.levels)
    ranking = suppressed.ranking
    return (ranking[0][family.name] | ranking[model][family.name]).tolist()


def _gains(
    data: AuditData,
    model: Model,
    parts: Sequence[Grouping],
    options: Options,
    num_groups: int,
    by_patient: bool,
) -> metrics.PositiveSum:
    return _positive_sum(
        data.labels.astype(np.int32),
        np.asarray(model.scores, float),
        np.asarray(data.models[0].scores, float),
        np.stack([part.codes for part in parts]),
        num_groups=(num_groups,) * len(parts),
        margin=options.margin,
        confidence=options.confidence,
        min_positives=max(options.min_positives, 2),
        min_negatives=max(options.min_negatives, 2),
        patients=data.patients if by_patient else None,
        num_patients=data.num_patients if by_patient else None,
    )
