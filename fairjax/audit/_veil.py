"""Takes what is withheld out of an audit's entries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairjax.audit._entries import METHODS
from fairjax.audit._families import Family
from fairjax.audit._measures import Measured, shrunken
from fairjax.audit._pointwise import SENSITIVITY_THRESHOLDS
from fairjax.audit._suppression import Withheld, count
from fairjax.audit.glossary import RANKING
from fairjax.audit.reading.data import AuditData
from fairjax.audit.rules import LEVEL_JOINT

_STATUS = "suppressed"
_KEPT = ("model", "attribute", "group", "metric")
_ODDS = ("true_positive_rate", "false_positive_rate")


def shrunken_without(measured: Measured, hidden: np.ndarray) -> Measured:
    """The measurements, with rates drawn towards those of groups that are shown."""
    shares = measured.shares
    shown = shares._replace(trials=np.where(hidden, 0, shares.trials))
    return measured._replace(shrunken=shrunken(shown))


def hidden_for(ranking: np.ndarray, decisions: np.ndarray) -> dict[str, np.ndarray]:
    """Metric -> which groups of a family do not show it, for one model.

    Args:
      ranking: ``[G]``, the groups of which nothing is shown that rests on the score.
      decisions: ``[G]``, those of which nothing is that rests on decisions.
    """
    return {name: ranking if name in RANKING else decisions for name in METHODS}


def take_out(
    found: dict[str, Any],
    withheld: Withheld,
    families: Sequence[Family],
    data: AuditData,
) -> None:
    """Leaves the entries with what may be shown.

    Names stay, so that a group is seen to be withheld.

    Args:
      found: An audit's entries, which are changed.
      withheld: What is not shown.
      families: The groups, with the rows of withheld ones in none.
      data: The rows.
    """
    models = {model.name: place for place, model in enumerate(data.models)}
    places = {
        family.name: {level: i for i, level in enumerate(family.levels)}
        for family in families
    }

    def gone(masks: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> bool:
        name = entry["attribute"]
        return bool(masks[name][places[name][entry["group"]]])

    for entry in found["cohort"]:
        if gone(withheld.groups, entry):
            _empty(entry)
    for entry in found["groups"]:
        ranks = entry["metric"] in RANKING
        masks = withheld.ranking if ranks else withheld.decisions
        if gone(masks[models[entry["model"]]], entry):
            _empty(entry)
    for entry in found["overall"]:
        ranks = entry["metric"] in RANKING
        masks = withheld.overall_ranking if ranks else withheld.overall
        if masks[models[entry["model"]]]:
            entry["estimate"] = entry["lower"] = entry["upper"] = None
    # At every threshold they would tell a group's patients apart by their scores.
    found["curves"] |= {"roc": [], "decision": []}
    if data.num_patients is not None and data.num_patients < len(data.labels):
        # A bin's rows are not the number of its patients.
        found["curves"]["calibration"] = []
    for entry in found["curves"]["calibration"]:
        _close_bins(entry, withheld.floor)
    _close_thresholds(found, withheld.floor, families, data)
    found["discovery"] = [
        entry
        for entry in found["discovery"]
        if not withheld.overall[models[entry["model"]]]
        and _shown(entry, withheld.decisions[models[entry["model"]]], families)
    ]


def _empty(entry: dict[str, Any]) -> None:
    for name in entry.keys() - _KEPT:
        entry[name] = None
    entry["status"] = _STATUS


def _close_bins(entry: dict[str, Any], floor: int) -> None:
    """Empties bins with few events or non-events, and enough others to hide them."""
    rows = np.array(entry["rows"], float)
    events = np.round(rows * np.array(entry["observed"], float))
    cells = np.stack([events, rows - events], axis=1)
    hidden = np.asarray(((cells > 0) & (cells < floor)).any(axis=1))
    while hidden.any() and not hidden.all():
        together = cells[hidden].sum(axis=0)
        if hidden.sum() > 1 and not ((together > 0) & (together < floor)).any():
            break
        shown = np.flatnonzero(~hidden)
        hidden[shown[cells[shown].min(axis=1).argmin()]] = True
    for name in ("predicted", "observed", "lower", "upper", "rows"):
        entry[name] = [
            None if gone else value
            for gone, value in zip(hidden, entry[name], strict=True)
        ]


def _close_thresholds(
    found: Mapping[str, Any],
    floor: int,
    families: Sequence[Family],
    data: AuditData,
) -> None:
    """Leaves thresholds out at which a group compared has a small cell."""
    by_name = {family.name: family for family in families}
    models = {model.name: model for model in data.models}
    for entry in found["sensitivity"]:
        family, model = by_name[entry["attribute"]], models[entry["model"]]
        compared = {
            group["group"]
            for group in found["groups"]
            if group["metric"] in _ODDS
            and group["status"] == "ok"
            and (group["model"], group["attribute"]) == (model.name, family.name)
        }
        inside = np.array([level in compared for level in family.levels])
        for step, threshold in enumerate(SENSITIVITY_THRESHOLDS):
            cells = 2 * data.labels.astype(np.int64) + (model.scores >= threshold)
            known = family.codes >= 0
            counts = count(
                Family(
                    family.name, (), family.levels, family.codes[known], family.places
                ),
                cells[known],
                4,
                None if data.patients is None else data.patients[known],
            )[inside]
            if ((counts > 0) & (counts < floor)).any():
                for name in ("estimate", "lower", "upper"):
                    entry[name][step] = None


def _shown(
    entry: Mapping[str, Any],
    hidden: Mapping[str, np.ndarray],
    families: Sequence[Family],
) -> bool:
    """Whether a group that was found is one of the tables' and has its decisions."""
    for family in families:
        if set(family.attributes) == set(entry["attributes"]):
            level = LEVEL_JOINT.join(entry["attributes"][a] for a in family.attributes)
            return not hidden[family.name][family.levels.index(level)]
    return False
