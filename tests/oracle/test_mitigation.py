"""Repair and equal rates against BlackBoxAuditing, AIF360, fairlearn.

Deliberate differences, each shown below:

- BlackBoxAuditing (which AIF360 calls) takes quantiles over a group's distinct values,
  as many as the group that has fewest, and gives a quantile's patients one value; ours
  are over patients, and interpolate. They agree on groups of one size without ties.
- It has the median of an even number of groups below the middle, as we have.
- AIF360's equalized odds minimise FPR plus FNR as sums over the two groups, each by its
  own rates, where ``balanced_error`` weighs patients alike; they take hard decisions.
- fairlearn's balanced accuracy is, under one constraint, the mean of the groups' own,
  weighed by their sizes; ours is of all patients, and weights make it theirs.
- fairlearn chooses among ``grid_size`` values of the common rate, so that its optimum
  lies a little above ours, and never below.
"""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from fairjax.mitigation import DisparateImpactRemover, EqualizedOdds, equal_rate_rules

postprocessing = pytest.importorskip("fairlearn.postprocessing")

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:These rules need each patient's group"),
]


def repaired_by_black_box(table, groups, level):
    # AIF360's transformer is a call of this one with its features as a list.
    from BlackBoxAuditing.repairers.GeneralRepairer import Repairer

    rows = [[f"g{g}", *map(float, x)] for g, x in zip(groups, table, strict=True)]
    found = Repairer(rows, 0, level, False).repair(rows)
    return np.array([row[1:] for row in found], float)


def tables(num_groups, size, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(num_groups), size))
    # No value comes twice.
    x = rng.permutation(4000)[: 2 * len(groups)].reshape(-1, 2) / 8.0
    return x + 100 * groups[:, None], groups


@pytest.mark.parametrize("num_groups", [2, 3, 4])
@pytest.mark.parametrize("level", [0.0, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_repair_is_that_of_black_box_auditing(num_groups, level, seed):
    x, groups = tables(num_groups, 17, seed)
    ours = DisparateImpactRemover(level, scale="rank", discrete=[0, 1])
    found = ours.fit_transform(x, sensitive_features=groups)
    np.testing.assert_array_equal(found, repaired_by_black_box(x, groups, level))


def test_repair_is_that_of_aif360():
    datasets = pytest.importorskip("aif360.datasets")
    from aif360.algorithms import preprocessing

    x, groups = tables(2, 20, 0)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(sex=groups, died=groups * 0.0)
    frame.loc[::3, "died"] = 1.0
    dataset = datasets.BinaryLabelDataset(
        df=frame, label_names=["died"], protected_attribute_names=["sex"]
    )
    theirs = preprocessing.DisparateImpactRemover(0.6, "sex").fit_transform(dataset)
    theirs = theirs.convert_to_dataframe()[0]
    ours = DisparateImpactRemover(0.6, scale="rank", discrete=[0, 1])
    found = ours.fit_transform(frame[["a", "b"]], sensitive_features=frame.sex)
    np.testing.assert_array_equal(found, theirs[["a", "b"]])


def test_ties_are_where_they_differ():
    """Of a binary feature theirs knows two values a group, whatever their shares."""
    groups = np.repeat([0, 1], 10)
    x = np.array([0.0] * 9 + [1.0] + [0.0] + [1.0] * 9)[:, None]
    np.testing.assert_array_equal(repaired_by_black_box(x, groups, 1.0), x)
    found = DisparateImpactRemover().fit_transform(x, sensitive_features=groups)
    assert found[10:].mean() < 0.2
    # Unequal sizes: theirs makes groups alike only up to its few quantiles.
    x, groups = tables(2, 40, 0)
    kept = (groups == 0) | (np.cumsum(groups == 1) <= 11)
    x, groups = x[kept], groups[kept]
    theirs = repaired_by_black_box(x, groups, 1.0)
    ours = DisparateImpactRemover().fit_transform(x, sensitive_features=groups)
    assert len(np.unique(theirs[groups == 0, 0])) <= 11
    assert len(np.unique(ours[groups == 0, 0])) > 30
    for column in range(2):
        quantiles = np.linspace(0, 1, 11)
        a, b = (np.quantile(ours[groups == g, column], quantiles) for g in (0, 1))
        # To a step between the smaller group's patients.
        assert np.abs(a - b).max() < np.diff(a).max()


def cohort(seed, rows=900, num_groups=3):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, rows)
    labels = (rng.random(rows) < 0.3 + 0.1 * groups).astype(int)
    x = rng.normal(size=(rows, 2))
    x[:, 0] += labels * (0.5 + 0.5 * groups)
    return x, labels, groups


CONSTRAINTS = [
    "equalized_odds",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "demographic_parity",
]
OBJECTIVES = {"error": "accuracy_score", "balanced_error": "balanced_accuracy_score"}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("num_groups", [2, 3])
def test_the_optimum_is_fairlearns_to_its_grid(constraint, objective, num_groups):
    x, labels, groups = cohort(0, num_groups=num_groups)
    model = LogisticRegression().fit(x, labels)
    theirs = postprocessing.ThresholdOptimizer(
        estimator=model,
        constraints=constraint,
        objective=OBJECTIVES[objective],
        grid_size=2000,
        prefit=True,
        predict_method="predict_proba",
    ).fit(x, labels, sensitive_features=groups)
    chance = theirs._pmf_predict(x, sensitive_features=groups)[:, 1]
    weights = np.ones(len(labels))
    if objective == "balanced_error" and constraint.endswith("positive_rate_parity"):
        objective = "error"
        for g in range(num_groups):
            for y in (0, 1):
                cell = (groups == g) & (labels == y)
                weights[cell] = (groups == g).sum() / cell.sum()
    ours = equal_rate_rules(
        labels,
        model.predict_proba(x)[:, 1],
        groups,
        num_groups=num_groups,
        constraint=constraint,
        objective=objective,
        weights=weights,
    )
    wrong = np.where(labels == 1, 1 - chance, chance)
    if objective == "error":
        cost = np.average(wrong, weights=weights)
    else:
        cost = (wrong[labels == 1].mean() + wrong[labels == 0].mean()) / 2
    assert ours.cost <= cost + 1e-7
    assert ours.cost == pytest.approx(cost, abs=1 / 2000)


def test_the_estimator_agrees_with_fairlearns_on_patients_held_out():
    x, labels, groups = cohort(1)
    new, truth, theirs_groups = cohort(2)
    ours = EqualizedOdds(LogisticRegression()).fit(x, labels, sensitive_features=groups)
    theirs = postprocessing.ThresholdOptimizer(
        estimator=LogisticRegression(),
        constraints="equalized_odds",
        grid_size=5000,
        predict_method="predict_proba",
    ).fit(x, labels, sensitive_features=groups)
    chance = theirs._pmf_predict(new, sensitive_features=theirs_groups)[:, 1]
    expected = np.mean(np.where(truth == 1, chance, 1 - chance))
    found = ours.score(new, truth, sensitive_features=theirs_groups)
    assert found == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_of_hard_decisions_is_aif360s(seed):
    datasets = pytest.importorskip("aif360.datasets")
    from aif360.algorithms.postprocessing import EqOddsPostprocessing

    x, labels, groups = cohort(seed, num_groups=2)
    decisions = LogisticRegression().fit(x, labels).predict(x)
    frame = pd.DataFrame({"sex": groups, "died": labels}, dtype=float)
    truth, told = (
        datasets.BinaryLabelDataset(
            df=frame.assign(died=column.astype(float)),
            label_names=["died"],
            protected_attribute_names=["sex"],
        )
        for column in (labels, decisions)
    )
    theirs = EqOddsPostprocessing([{"sex": 0}], [{"sex": 1}], seed=0)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.fit(truth, told)
    # Of the privileged group, which is named last, then of the other: the chances of
    # staying selected and of becoming so.
    chances = theirs.model_params.x.reshape(2, 2)[::-1]
    chance = np.where(decisions == 1, chances[groups, 0], chances[groups, 1])

    def mean_rates(chance):
        return np.array(
            [
                [chance[(groups == g) & (labels == y)].mean() for y in (0, 1)]
                for g in (0, 1)
            ]
        )

    rates = mean_rates(chance)
    np.testing.assert_allclose(rates[0], rates[1], atol=1e-7)
    ours = equal_rate_rules(
        labels, decisions, groups, num_groups=2, objective="balanced_error"
    )
    # With equal rates the rates of all patients are each group's.
    assert 2 * ours.cost == pytest.approx(rates[0, 0] + 1 - rates[0, 1], abs=1e-7)


def test_the_optimum_of_hard_decisions_is_that_of_four_chances():
    """The published programme: in each group a chance for either decision."""
    x, labels, groups = cohort(7)
    decisions = LogisticRegression().fit(x, labels).predict(x)
    rates = np.array(
        [
            [decisions[(groups == g) & (labels == y)].mean() for y in (0, 1)]
            for g in range(3)
        ]
    )
    share = np.array(
        [[np.mean((groups == g) & (labels == y)) for y in (0, 1)] for g in range(3)]
    )
    # Unknowns: of each group the chances of selection where selected and where not.
    parts = np.stack([rates, 1 - rates], axis=-1)
    equal = np.zeros((4, 6))
    for line, (other, y) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1)]):
        equal[line, :2] = parts[0, y]
        equal[line, 2 * other : 2 * other + 2] = -parts[other, y]
    price = share[:, 0, None] * parts[:, 0] - share[:, 1, None] * parts[:, 1]
    best = optimize.linprog(price.ravel(), A_eq=equal, b_eq=np.zeros(4), bounds=(0, 1))
    ours = equal_rate_rules(labels, decisions, groups, num_groups=3, reverse=True)
    assert ours.cost == pytest.approx(best.fun + share[:, 1].sum(), abs=1e-9)
