"""Metrics of real predictions, by scikit-learn and by loops."""

import copy
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from experiments.core.evaluation import Evaluator, Predictions
from fairjax import metrics
from fairjax.evaluation import MIN_SUPPORT, WORST_GROUP_SUPPORT
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.names import GAP, gap_metrics


def rates_gap(label, decisions, groups, weights):
    """The equalized-odds difference by a loop, over groups with enough patients."""
    compared = [
        group
        for group in np.unique(groups)
        if np.bincount(label[groups == group], minlength=2).min() >= MIN_SUPPORT
    ]
    gaps = []
    for y in (0, 1):
        rates = []
        for group in compared:
            rows = (label == y) & (groups == group)
            rates.append(np.average(decisions[rows], weights=weights[rows]))
        gaps.append(max(rates) - min(rates))
    return max(gaps)


def by_hand(splits, predictions, repeat, weights):
    """All metrics of one repeat under integer weights."""
    label = splits.table.label
    scores = predictions.scores[repeat].astype(np.float64)
    decisions = predictions.decisions[repeat]
    found = {
        "auroc": roc_auc_score(label, scores, sample_weight=weights),
        "balanced_accuracy": balanced_accuracy_score(
            label, decisions, sample_weight=weights
        ),
        "brier": brier_score_loss(label, scores, sample_weight=weights),
    }
    gaps = [
        rates_gap(label, decisions, splits.table.attributes[a].to_numpy(), weights)
        for a in splits.attributes
    ]
    for name, gap in zip(splits.attributes, gaps, strict=True):
        found[f"{GAP}/{name}"] = gap
    return found | {
        f"{GAP}/mean": np.mean(gaps),
        f"{GAP}/worst": np.max(gaps),
        "worst_group_auroc": worst_group(splits, scores, weights),
    }


def worst_group(splits, scores, weights):
    """The least AUROC of the intersections that have enough of both outcomes."""
    table, found = splits.table, []
    group = table.attributes["sex"].astype(str) + table.attributes["race"].astype(str)
    for name in group.unique():
        rows = (group == name).to_numpy()
        if np.bincount(table.label[rows], minlength=2).min() >= WORST_GROUP_SUPPORT:
            given = table.label[rows], scores[rows]
            found.append(roc_auc_score(*given, sample_weight=weights[rows]))
    assert 1 < len(found) < group.nunique()
    return min(found)


def without_floors(evaluator):
    """Metrics and their resamples alone: noise floors take longest."""
    quick = copy.copy(evaluator)
    quick._noise = lambda *_: ({}, {}, {})
    return quick


@pytest.fixture(scope="module")
def measured(evaluator, predictions):
    quick = without_floors(evaluator)
    return tuple(quick(one) for one in predictions)


@pytest.mark.slow
def test_point_metrics(splits, predictions, measured):
    everyone = np.ones(len(splits.table.label))
    for one, evaluation in zip(predictions, measured, strict=True):
        for repeat in range(splits.num_repeats):
            expected = by_hand(splits, one, repeat, everyone)
            for metric, value in expected.items():
                found = evaluation.repeats[metric][repeat]
                assert found == pytest.approx(value, abs=2e-6), metric
        assert evaluation.mean("auroc") == pytest.approx(
            np.mean([by_hand(splits, one, r, everyone)["auroc"] for r in (0, 1)]),
            abs=2e-6,
        )
    assert set(measured[0].repeats) == set(expected)


@pytest.mark.slow
def test_resamples_are_of_patients_and_shared(splits, predictions, measured):
    key = jax.random.fold_in(jax.random.key(0), 0)
    rows = len(splits.table.label)
    weights = metrics.patient_bootstrap_weights(
        key, jnp.arange(rows), num_patients=rows, num_replicates=20
    )
    for one, evaluation in zip(predictions, measured, strict=True):
        for b in (0, 13):
            drawn = np.asarray(weights[b]).astype(float)
            each = [by_hand(splits, one, repeat, drawn) for repeat in (0, 1)]
            for metric in each[0]:
                expected = np.mean([found[metric] for found in each])
                assert evaluation.bootstrap[metric][b] == pytest.approx(
                    expected, abs=2e-6
                ), metric


@pytest.mark.slow
def test_weighted_counts_are_the_library_s(splits, predictions, evaluator):
    weights = np.random.default_rng(2).integers(0, 4, (3, len(splits.table.label)))
    decisions = predictions[0].decisions[0]
    race = next(g for g in evaluator.cohort.attributes if g.name == "race")
    scores = jnp.asarray(predictions[0].scores[0])
    drawn = jnp.asarray(weights, jnp.float32)
    sample = Sample(evaluator.cohort, scores, jnp.asarray(decisions), drawn)
    found = sample.counts(race)
    for row, drawn in zip(found.counts, weights, strict=True):
        expected = metrics.group_counts(
            jnp.asarray(splits.table.label, jnp.int32),
            jnp.asarray(decisions),
            race.codes,
            num_groups=race.size,
            weights=jnp.asarray(drawn),
        )
        np.testing.assert_array_equal(row, expected.counts)


@pytest.mark.slow
def test_no_intersection_with_enough_of_both_outcomes(splits, predictions):
    label = splits.table.label.copy()
    label[:] = np.arange(len(label)) % 12 == 0
    rare = dataclasses.replace(
        splits, table=dataclasses.replace(splits.table, label=label)
    )
    evaluator = Evaluator(
        rare,
        num_bootstrap=3,
        num_permutations=5,
        seed=0,
        metric_names=("worst_group_auroc",),
    )
    found = evaluator(predictions[0])
    assert math.isnan(found.mean("worst_group_auroc"))
    assert all(map(math.isnan, found.interval("worst_group_auroc")))


@pytest.mark.slow
def test_the_noise_floor_is_that_of_shuffles(splits, predictions, evaluator):
    evaluation = evaluator(predictions[0])
    rng = np.random.default_rng(0)
    label, decisions = splits.table.label, predictions[0].decisions
    floors = {"sex": [], "race": []}
    for name, gaps in floors.items():
        attribute = splits.table.attributes[name].to_numpy().astype(str)
        for _ in range(200):
            shuffled = attribute.copy()
            for y in (0, 1):
                shuffled[label == y] = rng.permutation(shuffled[label == y])
            gaps.append(rates_gap(label, decisions[0], shuffled, np.ones(len(label))))
    # The worst of a draw, not the larger of two means.
    floors["worst"] = np.maximum(floors["sex"], floors["race"])
    for name, gaps in floors.items():
        error = 3 * np.std(gaps) * math.sqrt(1 / 100 + 1 / 200)
        metric = f"{GAP}/{name}"
        assert evaluation.null[metric] == pytest.approx(np.mean(gaps), abs=error)
        raw = evaluation.mean(metric)
        assert 0 <= evaluation.corrected[metric] < raw
        assert 0 < evaluation.p_noise[metric] <= 1
    for kind in ("null", "corrected"):
        found = getattr(evaluation, kind)
        assert set(found) == set(gap_metrics(("sex", "race")))
        sex, race, mean, _ = (found[name] for name in gap_metrics(("sex", "race")))
        assert mean == pytest.approx((sex + race) / 2)


@pytest.mark.slow
def test_a_level_without_positives_is_not_compared(splits, predictions):
    """The others' gap stays, and nothing is NaN."""
    label = splits.table.label.copy()
    rare = splits.table.attributes["race"].value_counts().idxmin()
    label[(splits.table.attributes["race"] == rare).to_numpy()] = 0
    changed = dataclasses.replace(
        splits,
        table=dataclasses.replace(splits.table, label=label),
    )
    evaluator = Evaluator(
        changed, num_bootstrap=2, num_permutations=5, seed=0, metric_names=(GAP,)
    )
    found = evaluator(predictions[0])
    expected = by_hand(changed, predictions[0], 1, np.ones(len(label)))
    for metric in gap_metrics(changed.attributes):
        assert found.repeats[metric][1] == pytest.approx(expected[metric], abs=2e-6)
    for values in (*found.repeats.values(), *found.bootstrap.values()):
        assert np.isfinite(values).all()
    assert np.isfinite([*found.null.values(), *found.corrected.values()]).all()


@pytest.mark.slow
def test_a_resample_compares_the_groups_that_all_patients_do(splits, predictions):
    """A group just below the minimum is above it in many resamples."""
    race = splits.table.attributes["race"]
    rare = (race == race.value_counts().idxmin()).to_numpy()
    label = splits.table.label.copy()
    label[rare] = 0
    label[np.flatnonzero(rare)[: MIN_SUPPORT - 1]] = 1
    changed = dataclasses.replace(
        splits, table=dataclasses.replace(splits.table, label=label)
    )
    evaluator = Evaluator(
        changed, num_bootstrap=40, num_permutations=5, seed=0, metric_names=(GAP,)
    )
    found = without_floors(evaluator)(predictions[0])
    weights = np.asarray(evaluator._weights)
    assert (weights[:, rare & (label == 1)].sum(axis=1) >= MIN_SUPPORT).any()
    for b in range(0, 40, 7):
        each = [
            rates_gap(label, predictions[0].decisions[r], race.to_numpy(), weights[b])
            for r in (0, 1)
        ]
        gap = found.bootstrap[f"{GAP}/race"][b]
        assert gap == pytest.approx(np.mean(each), abs=2e-6)


def test_an_attribute_without_two_groups_to_compare_is_refused(splits):
    label = splits.table.label.copy()
    label[(splits.table.attributes["sex"] == "male").to_numpy()] = 0
    changed = dataclasses.replace(
        splits, table=dataclasses.replace(splits.table, label=label)
    )
    with pytest.raises(
        ValueError, match="'sex' must have two groups of 10 rows .*; got 1"
    ):
        Evaluator(changed, num_bootstrap=2, num_permutations=2, seed=0)


def test_names():
    assert gap_metrics(("sex",)) == (f"{GAP}/sex", f"{GAP}/mean", f"{GAP}/worst")
    none = np.zeros((1, 1))
    assert Predictions("erm", "", none, none).title == "erm"
    assert Predictions("penalty", "selected", none, none).title == "penalty"
    assert Predictions("penalty", "10", none, none).title == "penalty[10]"


@pytest.mark.slow
def test_rows_of_one_patient_are_drawn_together(splits, predictions):
    """Two rows a patient: resamples are half as many draws, and vary more."""
    paired = dataclasses.replace(
        splits,
        table=dataclasses.replace(
            splits.table, patient_ids=np.arange(len(splits.table.label)) // 2
        ),
    )
    weights = np.asarray(
        Evaluator(paired, num_bootstrap=5, num_permutations=2, seed=0)._weights
    )
    np.testing.assert_array_equal(weights[:, ::2], weights[:, 1::2])
    np.testing.assert_array_equal(weights.sum(axis=1), len(splits.table.label))
