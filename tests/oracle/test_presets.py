"""The tables' presets against fairlearn and AIF360, to 1e-9, degenerate tables too."""

import warnings

import numpy as np
import pandas as pd
import pytest

from fairjax import metrics

fairlearn = pytest.importorskip("fairlearn.metrics")

pytestmark = pytest.mark.oracle

# Rows at random; with a group that lacks positives; with nobody selected in the
# reference, nobody at all, everybody; with every prediction right, or wrong.
KINDS = [
    "plain",
    "no positives",
    "no negatives",
    "reference unselected",
    "nobody selected",
    "everybody selected",
    "perfect",
    "all wrong",
]
ABSENT = "absent"


def rows_of(seed, kind, number=3):
    rng = np.random.default_rng(seed)
    size = 300
    groups = rng.integers(0, number, size)
    labels = (rng.random(size) < rng.uniform(0.2, 0.8, number)[groups]).astype(int)
    chance = rng.uniform(0, 1, (2, number))[labels, groups]
    predictions = (rng.random(size) < chance).astype(int)
    if kind == "no positives":
        labels[groups == number - 1] = 0
    elif kind == "no negatives":
        labels[groups == number - 1] = 1
    elif kind == "reference unselected":
        predictions[groups == 0] = 0
    elif kind == "nobody selected":
        predictions[:] = 0
    elif kind == "everybody selected":
        predictions[:] = 1
    elif kind == "perfect":
        predictions = labels.copy()
    elif kind == "all wrong":
        predictions = 1 - labels
    return labels, predictions, groups, rng.uniform(0.1, 3, size)


def declared(groups, number):
    """Groups as categories, one of which no row has."""
    names = [f"g{i}" for i in range(number)]
    return pd.Categorical.from_codes(groups, [*names, ABSENT])


def without_warnings(function, *args, **kwargs):
    # The toolkits warn where they divide by zero, which is what is compared here.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


@pytest.mark.parametrize(("seed", "weighted"), [(0, False), (1, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_fairlearn_rates(seed, kind, weighted):
    from sklearn import metrics as sk

    labels, predictions, groups, weights = rows_of(seed, kind)
    theirs = {
        "selection_rate": fairlearn.selection_rate,
        "true_positive_rate": fairlearn.true_positive_rate,
        "false_positive_rate": fairlearn.false_positive_rate,
        "true_negative_rate": fairlearn.true_negative_rate,
        "false_negative_rate": fairlearn.false_negative_rate,
        "positive_predictive_value": sk.precision_score,
        "accuracy": sk.accuracy_score,
        "error_rate": sk.zero_one_loss,
        "balanced_accuracy": sk.balanced_accuracy_score,
        "f1_score": sk.f1_score,
    }
    options = {}
    if weighted:
        options["sample_params"] = {name: {"sample_weight": weights} for name in theirs}
    frame = without_warnings(
        fairlearn.MetricFrame,
        metrics=theirs,
        y_true=labels,
        y_pred=predictions,
        sensitive_features=groups,
        **options,
    )
    table = metrics.by_group(
        labels,
        predictions,
        {"group": declared(groups, 3)},
        metrics=list(theirs),
        weights=weights if weighted else None,
        overall=True,
        compat="fairlearn",
    )
    expected = np.vstack([frame.by_group, frame.overall])
    found = table.drop(ABSENT)[list(theirs)].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert table.loc[ABSENT, list(theirs)].isna().all()


@pytest.mark.parametrize(("number", "weighted"), [(1, False), (2, False), (4, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_fairlearn_gaps(number, kind, weighted):
    labels, predictions, groups, weights = rows_of(number, kind, number)
    options = {
        "sensitive_features": groups,
        "sample_weight": weights if weighted else None,
    }
    names = ["demographic_parity", "equal_opportunity", "equalized_odds"]
    expected = {}
    for name in names:
        for gap in ("difference", "ratio"):
            function = getattr(fairlearn, f"{name}_{gap}")
            expected[f"{name}_{gap}"] = without_warnings(
                function, labels, predictions, **options
            )
    for gap in ("difference", "ratio"):
        expected[f"equalized_odds_{gap}_mean"] = without_warnings(
            getattr(fairlearn, f"equalized_odds_{gap}"),
            labels,
            predictions,
            agg="mean",
            **options,
        )
    table = metrics.gap_table(
        labels,
        predictions,
        {"group": declared(groups, number)},
        gaps=list(expected),
        weights=weights if weighted else None,
        compat="fairlearn",
    ).set_index("metric")
    for name, value in expected.items():
        np.testing.assert_allclose(
            table.loc[name, "value"], value, rtol=0, atol=1e-9, err_msg=name
        )


def aif360_metric(labels, predictions, groups, weights, other):
    """ClassificationMetric with group 0 privileged, group(s) `other` not."""
    from aif360.datasets import BinaryLabelDataset
    from aif360.metrics import ClassificationMetric

    frame = pd.DataFrame({"group": groups, "label": labels, "weight": weights})
    given = without_warnings(
        BinaryLabelDataset,
        df=frame,
        label_names=["label"],
        protected_attribute_names=["group"],
        instance_weights_name="weight",
        privileged_protected_attributes=[[0]],
        unprivileged_protected_attributes=[sorted(set(groups) - {0})],
    )
    predicted = given.copy(deepcopy=True)
    predicted.labels = np.asarray(predictions, float)[:, None]
    return without_warnings(
        ClassificationMetric,
        given,
        predicted,
        unprivileged_groups=[{"group": group} for group in other],
        privileged_groups=[{"group": 0}],
    )


AIF360 = {
    "statistical_parity_difference": "statistical_parity_difference",
    "disparate_impact": "disparate_impact",
    "equal_opportunity_difference": "equal_opportunity_difference",
    "false_positive_rate_difference": "false_positive_rate_difference",
    "false_positive_rate_ratio": "false_positive_rate_ratio",
    "false_negative_rate_difference": "false_negative_rate_difference",
    "false_negative_rate_ratio": "false_negative_rate_ratio",
    "average_odds_difference": "average_odds_difference",
    "average_absolute_odds_difference": "average_abs_odds_difference",
    "equalized_odds_difference": "equalized_odds_difference",
    "error_rate_difference": "error_rate_difference",
    "error_rate_ratio": "error_rate_ratio",
}
WHOLE = {
    "generalized_entropy_index": "generalized_entropy_index",
    "theil_index": "theil_index",
    "between_group_generalized_entropy_index": (
        "between_group_generalized_entropy_index"
    ),
    "between_group_theil_index": "between_group_theil_index",
}


@pytest.mark.parametrize(("number", "weighted"), [(2, False), (3, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_aif360_gaps(number, kind, weighted):
    pytest.importorskip("aif360.metrics")
    labels, predictions, groups, weights = rows_of(number, kind, number)
    weights = weights if weighted else np.ones(len(labels))
    table = metrics.gap_table(
        labels,
        predictions,
        {"group": groups},
        gaps=[*AIF360, *WHOLE],
        reference=0,
        weights=weights,
        compat="aif360",
    )
    pools = {str(other): [other] for other in range(1, number)}
    if number > 2:
        pools["all others"] = list(range(1, number))
    for name, others in pools.items():
        theirs = aif360_metric(labels, predictions, groups, weights, others)
        at = table[table["group"] == name].set_index("metric")
        for ours, method in AIF360.items():
            expected = without_warnings(getattr(theirs, method))
            np.testing.assert_allclose(
                at.loc[ours, "value"], expected, rtol=1e-9, atol=1e-9, err_msg=ours
            )
    whole = table.set_index("metric")["value"]
    for ours, method in WHOLE.items():
        expected = without_warnings(getattr(theirs, method))
        np.testing.assert_allclose(
            whole[ours], expected, rtol=1e-9, atol=1e-9, err_msg=ours
        )


@pytest.mark.parametrize("kind", KINDS)
def test_aif360_rates(kind):
    pytest.importorskip("aif360.metrics")
    labels, predictions, groups, weights = rows_of(5, kind, 2)
    names = {
        "selection_rate": "selection_rate",
        "prevalence": "base_rate",
        "accuracy": "accuracy",
        "error_rate": "error_rate",
        "true_positive_rate": "true_positive_rate",
        "false_positive_rate": "false_positive_rate",
        "true_negative_rate": "true_negative_rate",
        "false_negative_rate": "false_negative_rate",
        "positive_predictive_value": "positive_predictive_value",
        "negative_predictive_value": "negative_predictive_value",
    }
    table = metrics.by_group(
        labels,
        predictions,
        {"group": declared(groups, 2)},
        metrics=list(names),
        weights=weights,
        compat="aif360",
    )
    # Group 2 has no rows: AIF360's accuracy is 0 there, and its error rate 1.
    for place, privileged in enumerate((True, False, False)):
        theirs = aif360_metric(labels, predictions, groups, weights, [max(place, 1)])
        for ours, method in names.items():
            expected = without_warnings(getattr(theirs, method), privileged=privileged)
            np.testing.assert_allclose(
                table[ours].iloc[place], expected, rtol=0, atol=1e-9, err_msg=ours
            )


@pytest.mark.parametrize("alpha", [-1, 0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_aif360_entropy_of_all_groups(kind, alpha):
    aif360 = pytest.importorskip("aif360.sklearn.metrics")
    labels, predictions, groups, _ = rows_of(7, kind, 4)
    benefits = 1 + predictions - labels
    with_jax = metrics.entropy_split(labels, predictions, groups, alpha, num_groups=4)
    expected = without_warnings(aif360.generalized_entropy_index, benefits, alpha)
    truth = pd.Series(labels, index=pd.Index(groups, name="group"))
    between = without_warnings(
        aif360.between_group_generalized_entropy_error,
        truth,
        predictions,
        prot_attr="group",
        alpha=alpha,
    )
    if alpha == 0:
        # AIF360 divides the mean log deviation by the mean once more.
        expected, between = expected * benefits.mean(), between * benefits.mean()
    np.testing.assert_allclose(with_jax.total, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(with_jax.between, between, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("concentration", [0.5, 10.0])
@pytest.mark.parametrize("kind", KINDS)
def test_aif360_differential_fairness(kind, concentration):
    pytest.importorskip("aif360.metrics")
    labels, predictions, groups, weights = rows_of(8, kind, 4)
    theirs = aif360_metric(labels, predictions, groups, weights, [1])
    data = without_warnings(
        theirs.smoothed_empirical_differential_fairness, concentration
    )
    added = without_warnings(
        theirs.differential_fairness_bias_amplification, concentration
    )
    counts = metrics.group_counts(
        labels, predictions, groups, num_groups=5, weights=weights.astype(np.float32)
    )
    ours = metrics.differential_fairness(counts, concentration)
    of_labels = metrics.differential_fairness(counts, concentration, of="labels")
    np.testing.assert_allclose(of_labels, data, rtol=1e-5)
    np.testing.assert_allclose(ours - of_labels, added, atol=2e-5)
