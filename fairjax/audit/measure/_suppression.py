"""Removal of suppressed values from comparisons, and then from the document."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from fairjax.audit import schema
from fairjax.audit.measure import _pointwise
from fairjax.audit.measure._comparisons import Odds, Support
from fairjax.audit.measure._estimates import Measured, shrunken
from fairjax.audit.measure._small_cells import Suppressed, count
from fairjax.audit.reading.data import AuditData
from fairjax.groups import LEVEL_JOINT, Grouping

_KEPT = ("model", "attribute", "group", "metric")
_ODDS = ("true_positive_rate", "false_positive_rate")
_Row = TypeVar("_Row", schema.Cohort, schema.Group)


def masked(
    measured: Measured,
    supported: Support,
    odds: Odds,
    hidden: Callable[[str], np.ndarray],
) -> tuple[Measured, Support, Odds]:
    """Removes suppressed groups from comparisons.

    Shrunken rates only depend on the rates of groups that are shown.

    Args:
      measured: Metrics of the grouping.
      supported: The groups that are compared.
      odds: The rates of equalized odds.
      hidden: Metric -> groups whose metric is suppressed.
    """
    masks = hidden("selection_rate"), hidden("auroc")
    padding = 0, odds.rates.shape[-1] - len(masks[0])
    decisions, ranking = (np.pad(mask, padding) for mask in masks)
    shares = measured.shares
    shown = shares._replace(trials=np.where(decisions, 0, shares.trials))
    return (
        measured._replace(shrunken=shrunken(shown)),
        Support(supported.shares & ~decisions, supported.both & ~ranking),
        odds._replace(valid=odds.valid & ~decisions),
    )


def suppress(
    document: schema.Document,
    suppressed: Suppressed,
    families: Sequence[Grouping],
    data: AuditData,
) -> schema.Document:
    """Returns the document without suppressed values.

    Names of suppressed groups stay, so that readers see the suppression.

    Args:
      document: The document with all values.
      suppressed: The suppressed groups and metrics.
      families: The groupings, with rows of suppressed groups in no group.
      data: The rows.
    """
    models = {model.name: place for place, model in enumerate(data.models)}
    by_name = {family.name: family for family in families}

    def shown(entry: _Row, mask: np.ndarray) -> _Row:
        if not mask[by_name[entry.attribute].levels.index(entry.group)]:
            return entry
        gone = dict.fromkeys({f.name for f in fields(entry)} - {*_KEPT})
        return replace(entry, **gone | {"status": "suppressed"})

    def group(entry: schema.Group) -> schema.Group:
        where = entry.attribute, models[entry.model], entry.metric
        return shown(entry, suppressed.hidden(*where))

    def cohort(entry: schema.Cohort) -> schema.Cohort:
        if entry.attribute in suppressed.shared:
            # With the total, the counts reveal how many patients are in several groups.
            entry = replace(entry, patients=None)
        return shown(entry, suppressed.groups[entry.attribute])

    def overall(entry: schema.Overall) -> schema.Overall:
        if not suppressed.hidden_overall(models[entry.model], entry.metric):
            return entry
        return replace(entry, estimate=None, lower=None, upper=None)

    def found(entry: schema.Discovery) -> bool:
        """Returns whether the tables show the group and its decisions."""
        model = models[entry.model]
        if suppressed.overall[model]:
            return False
        for family in families:
            if set(family.attributes) == set(entry.attributes):
                level = LEVEL_JOINT.join(entry.attributes[a] for a in family.attributes)
                place = family.levels.index(level)
                return not suppressed.decisions[model][family.name][place]
        return False

    # Rows without a value of an attribute are a group.
    attributes = {attribute.name for attribute in data.attributes}
    missing = {
        name: None if name in attributes else rows
        for name, rows in document.data.missing.items()
    }
    # The rows of a bin are not its number of patients.
    repeated = data.num_patients is not None and data.num_patients < len(data.labels)
    bins = [] if repeated else document.curves.calibration
    groups = [group(entry) for entry in document.groups]
    return replace(
        document,
        data=replace(document.data, missing=missing),
        cohort=[cohort(entry) for entry in document.cohort],
        overall=[overall(entry) for entry in document.overall],
        groups=groups,
        # ROC and decision curves would reveal the scores of a group's patients.
        curves=schema.Curves(
            [], [_close_bins(curve, suppressed.floor) for curve in bins], []
        ),
        sensitivity=[
            _close_thresholds(
                sweep, groups, suppressed.floor, by_name[sweep.attribute], data
            )
            for sweep in document.sensitivity
        ],
        discovery=[entry for entry in document.discovery if found(entry)],
    )


def _close_bins(curve: schema.Calibration, floor: int) -> schema.Calibration:
    """Empties bins with few events or non-events, and further bins to protect them."""
    rows = np.array(curve.rows, float)
    events = np.round(rows * np.array(curve.observed, float))
    cells = np.stack([events, rows - events], axis=1)
    hidden = np.asarray(((cells > 0) & (cells < floor)).any(axis=1))
    while hidden.any() and not hidden.all():
        together = cells[hidden].sum(axis=0)
        if hidden.sum() > 1 and not ((together > 0) & (together < floor)).any():
            break
        shown = np.flatnonzero(~hidden)
        hidden[shown[cells[shown].min(axis=1).argmin()]] = True
    return _without(curve, ("predicted", "observed", "lower", "upper", "rows"), hidden)


def _close_thresholds(
    sweep: schema.Sensitivity,
    groups: Sequence[schema.Group],
    floor: int,
    family: Grouping,
    data: AuditData,
) -> schema.Sensitivity:
    """Leaves out thresholds at which a compared group has a small cell."""
    (scores,) = (model.scores for model in data.models if model.name == sweep.model)
    compared = {
        group.group
        for group in groups
        if (group.model, group.attribute) == (sweep.model, sweep.attribute)
        and group.metric in _ODDS
        and group.status == "ok"
    }
    inside = np.array([level in compared for level in family.levels])
    known = family.codes >= 0
    shown = replace(family, codes=family.codes[known])
    patients = None if data.patients is None else data.patients[known]

    def small(threshold: float) -> bool:
        cells = 2 * data.labels.astype(np.int64) + (scores >= threshold)
        counts = count(shown, cells[known], 4, patients)[inside]
        return bool(((counts > 0) & (counts < floor)).any())

    hidden = np.array([small(t) for t in _pointwise.SENSITIVITY_THRESHOLDS])
    return _without(sweep, ("estimate", "lower", "upper"), hidden)


def _without(entry: Any, names: Sequence[str], hidden: np.ndarray) -> Any:
    """Returns the entry with hidden points of some series as None."""
    series = {
        name: [
            None if gone else value
            for gone, value in zip(hidden, entry[name], strict=True)
        ]
        for name in names
    }
    return replace(entry, **series)
