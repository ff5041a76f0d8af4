"""Sentences of the protocol that the reports of all systems share.

Each function returns entries of a report's protocol, in the order of the report.
"""

from typing import Any

from experiments.core.protocol import CrossValidation
from experiments.core.results import AnyResults
from fairjax.evaluation import MIN_SUPPORT, WORST_GROUP_SUPPORT


def split(splits: CrossValidation, seed: int) -> dict[str, Any]:
    """Describes how patients were divided."""
    return {
        "split": f"{splits.num_repeats} × {splits.num_folds}-fold cross-validation by "
        "patient, stratified by label and attributes; of five folds three train, one "
        "validates, one tests; predictions pooled out of fold",
        "repeats": splits.num_repeats,
        "folds": splits.num_folds,
        "seed": seed,
        "attributes": list(splits.attributes),
    }


def columns(splits: CrossValidation) -> dict[str, Any]:
    """Lists the attributes among a model's inputs, and excluded columns and rows."""
    return {
        "attributes_among_inputs": [
            name for name in splits.attributes if name in splits.table.features
        ],
        "dropped_columns": dict(splits.table.dropped),
        "excluded_rows": dict(splits.table.excluded),
    }


def equalized_odds(results: AnyResults) -> dict[str, Any]:
    """Defines the equalized-odds difference and its noise floor."""
    weighted = results.weights is not None
    corrected = (
        "not defined with weights"
        if weighted
        else "less its bias under a parametric bootstrap at empirical-Bayes rates"
    )
    return {
        "equalized_odds_difference": "larger of the TPR and the FPR gap, groups with "
        f"at least {MIN_SUPPORT} of each outcome; null: mean of "
        f"{results.options.permutations} shuffles of the attribute within outcome"
        f"{', each patient with the own weight' if weighted else ''}, p_null: the "
        f"chance of such a gap there, twice its mean over repeats; corrected: "
        f"{corrected}; worst: the largest of the attributes' gaps in each repeat, "
        "shuffle and resample"
    }


def worst_group() -> dict[str, Any]:
    """Describes which groups may be the worst."""
    return {
        "worst_group_auroc": "intersections of all attributes with at least "
        f"{WORST_GROUP_SUPPORT} of each outcome"
    }


def group_rankings(results: AnyResults) -> dict[str, Any]:
    """Defines the metrics of the groups' AUROCs and of selection."""
    number = results.options.permutations
    return {
        "auroc_gap": f"largest less smallest AUROC of groups with at least "
        f"{MIN_SUPPORT} of each outcome; es_auroc: AUROC over 1 plus the sum of these "
        f"groups' deviations from it, which falls as groups are added; null: mean of "
        f"{number} shuffles of the attributes within outcome, of es_auroc the value "
        "that noise alone leaves; corrected: not defined",
        "demographic_parity_difference": "largest less smallest share selected; null: "
        f"mean of {number} shuffles of the attributes over all patients",
        "intersections": "of all attributes, compared as one more attribute, and no "
        "part of the mean and the worst over attributes",
    }


def weights(results: AnyResults) -> dict[str, Any]:
    """Describes the patients' weights, if there are weights."""
    if results.weights is None:
        return {}
    return {
        "weights": "every metric, resample and shuffle weights patients (largest "
        f"weight {results.weights.max():.2f} of mean {results.weights.mean():.2f}), "
        "made once of all patients, those of test folds among them; intervals take "
        "the weights as known, and noise floors are approximate where weights depend "
        "on the group"
    }


def inference(results: AnyResults, baseline: str) -> dict[str, Any]:
    """Defines intervals and tests; ``baseline`` is the baseline's name for readers."""
    once = results.splits.num_repeats == 1
    return {
        "intervals": "95 %; variance over patients "
        f"({results.options.bootstrap} resamples, joint over methods and repeats) "
        + (
            "only: one repeat tells nothing of other splits and seeds"
            if once
            else "plus that between repeats over their number"
        ),
        "tests": "none: they need two repeats"
        if once
        else f"t, two-sided, of the paired difference from {baseline} with that "
        "variance and Satterthwaite's degrees of freedom; Holm over the methods, for "
        "each metric",
    }
