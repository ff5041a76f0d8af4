"""The protocol of a report, with the entries that all systems share."""

from collections.abc import Mapping
from typing import Any

from experiments.core.results import AnyResults
from experiments.reporting import words
from fairjax.evaluation import MIN_SUPPORT, WORST_GROUP_SUPPORT

_SAID = words.read(__file__)
NOT_RUN = _SAID["not_run"]
_TEXTS = ("split", "equalized_odds_difference", "worst_group_auroc", "auroc_gap")
_TEXTS += ("demographic_parity_difference", "intersections")


def protocol(
    said: Mapping[str, str],
    results: AnyResults,
    baseline: str,
    given: Mapping[str, Any],
    **facts: Any,
) -> dict[str, Any]:
    """Returns a protocol's entries, in the order of the words' ``protocol``.

    Args:
      said: A system's words; ``protocol.NAME`` is the text of an entry.
      results: Results of the run.
      baseline: The baseline's name for readers.
      given: Entries that have no text of their own. An entry that is in the order and
        nowhere else is left out.
      **facts: Further fields of the texts.
    """
    made = {**shared(results, baseline), **given}
    facts |= {
        "splits": results.splits,
        "options": results.options,
        "budget": results.budget,
        "hidden": "-".join(map(str, results.budget.hidden)),
    }
    order = said["protocol"].split()
    for name in order:
        if text := said.get(f"protocol.{name}"):
            made[name] = text.format(**facts)
    return {name: made[name] for name in order if name in made}


def shared(results: AnyResults, baseline: str) -> dict[str, Any]:
    """Describes splits, patients, metrics, weights and tests of any system."""
    splits, weights = results.splits, results.weights
    table, once = splits.table, ".once" if splits.num_repeats == 1 else ""
    names = [*_TEXTS, f"intervals{once}", f"tests{once}"]
    facts: dict[str, Any] = {
        "results": results,
        "baseline": baseline,
        "least": MIN_SUPPORT,
        "least_worst": WORST_GROUP_SUPPORT,
        "kept_weights": "",
        "corrected": _SAID["corrected"],
    }
    if weights is not None:
        names.append("weights")
        facts |= {
            "kept_weights": _SAID["kept_weights"],
            "corrected": _SAID["corrected.weighted"],
            "largest": weights.max(),
            "mean": weights.mean(),
        }
    return {
        "repeats": splits.num_repeats,
        "folds": splits.num_folds,
        "seed": results.options.seed,
        "attributes": list(splits.attributes),
        "attributes_among_inputs": [
            name for name in splits.attributes if name in table.features
        ],
        "dropped_columns": dict(table.dropped),
        "excluded_rows": dict(table.excluded),
        **{name.removesuffix(".once"): _SAID[name].format(**facts) for name in names},
    }
