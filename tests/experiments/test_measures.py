"""Metrics of groups and their noise: by hand, by scikit-learn, by loops, by repeats."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from experiments.core import protocol
from experiments.core.evaluation import Evaluator, Predictions, cohort
from experiments.datasets import ClinicalTable
from fairjax.evaluation import MIN_SUPPORT, Cohort, Grouping, left_out
from fairjax.evaluation import _measures as measures
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.names import AUROC_GAP, EQUITY, GAP, PARITY

GROUP_METRICS = (GAP, PARITY, AUROC_GAP, EQUITY)
ALL = ("auroc", "brier", *GROUP_METRICS, "group_auroc")
CROSSED = "sex × age"


def splits_of(label, *, num_repeats=1, **attributes):
    """A cross-validation of patients with the given attributes."""
    columns = {name: pd.Categorical(levels) for name, levels in attributes.items()}
    table = ClinicalTable(
        name="made",
        title="Made up",
        features=pd.DataFrame({"x": np.linspace(0, 1, len(label))}),
        label=np.asarray(label, np.int8),
        outcome="death",
        attributes=pd.DataFrame(columns),
        patient_ids=np.arange(len(label)),
        dropped={},
        excluded={},
        citation="",
        licence="",
    )
    return protocol.cross_validation(
        table, tuple(attributes), num_repeats=num_repeats, seed=0
    )


def evaluate(
    splits, scores, *, weights=None, permutations=20, metric_names=ALL, crossed=True
):
    """Everything about scores [n] or [R, n], decided at .5."""
    scores = np.atleast_2d(np.asarray(scores, np.float32))
    evaluator = Evaluator(
        splits,
        num_bootstrap=5,
        num_permutations=permutations,
        seed=0,
        metric_names=metric_names,
        crossed=crossed,
        weights=weights,
    )
    return evaluator(Predictions("made", "", scores, scores >= 0.5))


def measure(splits, scores, weights=None, metric_names=ALL):
    """The metrics alone, of one repeat's scores decided at .5."""
    mass = np.ones(len(scores)) if weights is None else np.asarray(weights)
    given = (np.asarray(scores, np.float32), scores >= 0.5, np.float32(mass)[None])
    found = measurer(splits, metric_names)(*given)
    return {metric: float(value[0]) for metric, value in found.items()}


@functools.cache
def measurer(splits, metric_names):
    """Compiled once for all scores and weights."""
    made = cohort(splits, crossed=True)
    return jax.jit(lambda *given: measures.measure(metric_names, Sample(made, *given)))


@pytest.fixture(scope="module")
def by_hand():
    """20 patients of each sex and age, half of them dead, all alike in a cell.

    Scores of (survivors, the dead): women <65 .2, .8; women 65+ .4, .6; men <65 .6, .6;
    men 65+ .7, .3.
    """
    cells = {
        ("f", "<65"): (0.2, 0.8),
        ("f", "65+"): (0.4, 0.6),
        ("m", "<65"): (0.6, 0.6),
        ("m", "65+"): (0.7, 0.3),
    }
    rows = [
        (sex, age, y, scores[y])
        for (sex, age), scores in cells.items()
        for y in (0, 1)
        for _ in range(MIN_SUPPORT)
    ]
    sex, age, label, scores = map(np.array, zip(*rows, strict=True))
    return splits_of(label, sex=sex, age=age), scores


@pytest.mark.slow
def test_group_metrics_by_hand(by_hand):
    found = measure(*by_hand)
    # Of 16 pairs of cells: the dead have .8, .6, .6, .3; survivors .2, .4, .6, .7.
    expected = {
        "auroc": (4 + 2.5 + 2.5 + 1) / 16,
        "brier": np.mean(np.square([0.2, 0.4, 0.6, 0.7, 0.2, 0.4, 0.4, 0.7])),
        # Women: .8 and .6 above .2 and .4. Men: .6 and .3 against .6 and .7.
        "group_auroc/sex=f": 1.0,
        "group_auroc/sex=m": 0.5 / 4,
        # <65: .8 and .6 against .2 and .6; 65+: .6 and .3 against .4 and .7.
        "group_auroc/age=<65": 3.5 / 4,
        "group_auroc/age=65+": 1 / 4,
        f"group_auroc/{CROSSED}=f × <65": 1.0,
        f"group_auroc/{CROSSED}=f × 65+": 1.0,
        f"group_auroc/{CROSSED}=m × <65": 0.5,
        f"group_auroc/{CROSSED}=m × 65+": 0.0,
        f"{AUROC_GAP}/sex": 0.875,
        f"{AUROC_GAP}/age": 0.625,
        f"{AUROC_GAP}/{CROSSED}": 1.0,
        f"{AUROC_GAP}/mean": 0.75,
        f"{AUROC_GAP}/worst": 0.875,
        # Deviations from .625: .375 + .5; .25 + .375; .375 + .375 + .125 + .625.
        f"{EQUITY}/sex": 0.625 / 1.875,
        f"{EQUITY}/age": 0.625 / 1.625,
        f"{EQUITY}/{CROSSED}": 0.625 / 2.5,
        f"{EQUITY}/mean": (0.625 / 1.875 + 0.625 / 1.625) / 2,
        f"{EQUITY}/worst": 0.625 / 1.875,
        # Selected at .5: women half, men 3/4; <65 3/4, 65+ half; and 1/2, 1/2, 1, 1/2.
        f"{PARITY}/sex": 0.25,
        f"{PARITY}/age": 0.25,
        f"{PARITY}/{CROSSED}": 0.5,
        f"{PARITY}/mean": 0.25,
        f"{PARITY}/worst": 0.25,
        # True positives: women 1, men 1/2; false positives: women 0, men 1.
        f"{GAP}/sex": 1.0,
        f"{GAP}/age": 0.5,
        f"{GAP}/{CROSSED}": 1.0,
        f"{GAP}/mean": 0.75,
        f"{GAP}/worst": 1.0,
    }
    assert set(found) == set(expected)
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, abs=1e-6), metric


@pytest.mark.slow
def test_weights_by_hand(by_hand):
    """Women count three times: their part in everyone's AUROC is larger."""
    splits, scores = by_hand
    women = (splits.table.attributes["sex"] == "f").to_numpy()
    found = measure(splits, scores, np.where(women, 3.0, 1.0))
    # The dead .8 and .6 three times, .6 and .3 once; survivors .2 and .4 three times.
    won = 3 * 8 + 3 * 6.5 + 6.5 + 3
    assert found["auroc"] == pytest.approx(won / 64, abs=1e-6)
    assert found["group_auroc/sex=m"] == pytest.approx(0.125, abs=1e-6)
    # <65: .8 three times and .6 once, against .2 three times and .6 once.
    assert found["group_auroc/age=<65"] == pytest.approx(15.5 / 16, abs=1e-6)
    # Selected: 3 × 1/2 + 1 of 4 of those below 65; 3 × 1/2 + 1/2 of 4 of the others.
    assert found[f"{PARITY}/age"] == pytest.approx(0.125, abs=1e-6)
    # Above 65 three women in four dead are selected, and one man in four survivors.
    assert found[f"{GAP}/age"] == pytest.approx(0.25, abs=1e-6)


@pytest.fixture(scope="module")
def noisy():
    """600 patients whose scores are worse for men, with weights and two repeats."""
    rng = np.random.default_rng(5)
    label = rng.random(600) < 0.4
    sex = np.where(rng.random(600) < 0.5, "f", "m")
    age = rng.choice(["<50", "50-64", "65+"], 600)
    signal = np.where(sex == "f", 2.0, 0.4) * (label - 0.5)
    scores = 1 / (1 + np.exp(-(signal + rng.normal(size=(2, 600)))))
    weights = rng.gamma(4.0, 0.25, 600).astype(np.float32)
    return splits_of(label, num_repeats=2, sex=sex, age=age), scores, weights


@pytest.fixture(scope="module")
def weighted(noisy):
    return evaluate(noisy[0], noisy[1], weights=noisy[2], permutations=200)


@pytest.fixture(scope="module")
def unweighted(noisy):
    return evaluate(
        noisy[0], noisy[1], permutations=200, metric_names=(GAP,), crossed=False
    )


@pytest.mark.slow
def test_weighted_aurocs_are_scikit_learn_s(noisy, weighted):
    splits, scores, weights = noisy
    label, table = splits.table.label, splits.table.attributes
    crossed = table["sex"].astype(str) + " × " + table["age"].astype(str)
    columns = {"sex": table["sex"], "age": table["age"], CROSSED: crossed}
    for repeat in (0, 1):
        mine = functools.partial(weighted_auroc, label, scores[repeat], weights)
        overall = mine(np.ones(600, bool))
        assert weighted.repeats["auroc"][repeat] == pytest.approx(overall, abs=2e-6)
        assert weighted.repeats["brier"][repeat] == pytest.approx(
            brier_score_loss(label, scores[repeat], sample_weight=weights), abs=2e-6
        )
        for name, column in columns.items():
            column = np.asarray(column)
            aurocs = {level: mine(column == level) for level in np.unique(column)}
            for level, auroc in aurocs.items():
                found = weighted.repeats[f"group_auroc/{name}={level}"][repeat]
                assert found == pytest.approx(auroc, abs=2e-6), level
            values = np.array([*aurocs.values()])
            assert weighted.repeats[f"{AUROC_GAP}/{name}"][repeat] == pytest.approx(
                np.ptp(values), abs=4e-6
            )
            assert weighted.repeats[f"{EQUITY}/{name}"][repeat] == pytest.approx(
                overall / (1 + np.abs(values - overall).sum()), abs=4e-6
            )


def weighted_auroc(label, scores, weights, rows):
    return roc_auc_score(
        label[rows], scores[rows].astype(np.float32), sample_weight=weights[rows]
    )


@pytest.mark.slow
def test_resamples_multiply_the_weights(noisy):
    splits, scores, weights = noisy
    options = {"num_bootstrap": 4, "num_permutations": 2, "seed": 3}
    plain = Evaluator(splits, metric_names=("auroc",), **options)
    own = Evaluator(splits, metric_names=("auroc",), weights=weights, **options)
    drawn = np.asarray(plain._weights)
    np.testing.assert_allclose(own._weights, drawn * weights, rtol=1e-6)
    found = own(Predictions("made", "", np.float32(scores), scores >= 0.5))
    for b in range(4):
        mass = drawn[b] * weights
        expected = [
            roc_auc_score(splits.table.label, np.float32(s), sample_weight=mass)
            for s in scores
        ]
        assert found.bootstrap["auroc"][b] == pytest.approx(np.mean(expected), abs=2e-6)


@pytest.mark.slow
def test_the_scale_of_the_weights_means_nothing(by_hand):
    splits, scores = by_hand
    weights = np.random.default_rng(5).gamma(4.0, 0.25, len(scores))
    once, often = (measure(splits, scores, scale * weights) for scale in (1, 8))
    assert often == pytest.approx(once, abs=1e-6)


SIZE, TOTAL = 48, 120


@functools.cache
def measured():
    """All metrics of some rows, compiled once."""

    @jax.jit
    def compute(label, sex, age, scores, decisions, weights):
        def grouping(name, codes, size):
            levels = tuple(map(str, range(size)))
            return Grouping(name, levels, codes, np.ones(size, bool))

        made = Cohort(
            label,
            (grouping("sex", sex, 2), grouping("age", age, 3)),
            grouping(CROSSED, 3 * sex + age, 6),
            jnp.zeros((0, 0), jnp.int32),
        )
        names = ("auroc", "brier", "balanced_accuracy", *GROUP_METRICS, "group_auroc")
        return measures.measure(names, Sample(made, scores, decisions, weights[None]))

    return compute


@pytest.mark.slow
@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_whole_weights_are_repeats_of_rows(seed, num_scores):
    """With ties, and with rows that have no weight."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.integers(0, 2, SIZE),
        rng.integers(0, 2, SIZE),
        rng.integers(0, 3, SIZE),
        rng.integers(0, num_scores, SIZE) / np.float32(num_scores),
        rng.random(SIZE) < 0.5,
    ]
    times = rng.multinomial(TOTAL, np.ones(SIZE) / SIZE)
    # Rows of no weight fill up, so that both are one compiled program.
    filled = [np.resize(column, TOTAL) for column in columns]
    mass = np.pad(times, (0, TOTAL - SIZE)).astype(np.float32)
    weighted = measured()(*filled, mass)
    repeated = [np.repeat(column, times) for column in columns]
    expected = measured()(*repeated, np.ones(TOTAL, np.float32))
    assert set(weighted) == set(expected)
    for metric, value in expected.items():
        np.testing.assert_allclose(weighted[metric], value, atol=2e-6, err_msg=metric)


def shuffled_gaps(splits, scores, weights, *, within):
    """The noise of a repeat's metrics by a loop over shuffles of whole patients."""
    rng = np.random.default_rng(0)
    label = splits.table.label
    columns = [
        splits.table.attributes[a].to_numpy().astype(str) for a in ("sex", "age")
    ]
    found = []
    for _ in range(150):
        order = np.arange(len(label))
        for rows in [label == 0, label == 1] if within else [label >= 0]:
            order[rows] = rng.permutation(order[rows])
        each = []
        for column in columns:
            groups = column[order]
            if within:
                values = [
                    weighted_auroc(label, scores, weights, groups == g)
                    for g in np.unique(groups)
                ]
            else:
                values = [
                    np.average(scores[groups == g] >= 0.5, weights=weights[groups == g])
                    for g in np.unique(groups)
                ]
            each.append(np.ptp(values))
        found.append([*each, max(each)])
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "within"), [(AUROC_GAP, True), (PARITY, False)], ids=str
)
def test_weighted_noise_floors_are_those_of_shuffled_patients(
    noisy, weighted, metric, within
):
    splits, scores, weights = noisy
    gaps = shuffled_gaps(splits, scores[0], weights, within=within)
    for column, name in enumerate(("sex", "age", "worst")):
        # Its own shuffles, and 200 of the evaluation in each of two repeats.
        error = 4 * gaps[:, column].std() * math.sqrt(1 / 150 + 1 / 400)
        expected = gaps[:, column].mean()
        assert weighted.null[f"{metric}/{name}"] == pytest.approx(expected, abs=error)


@pytest.mark.slow
def test_equal_weights_have_the_floors_of_counts(noisy, unweighted):
    """Shuffled counts and shuffled patients are two ways to one distribution."""
    splits, scores, _ = noisy
    ones = evaluate(
        splits,
        scores,
        weights=np.ones(600),
        permutations=200,
        metric_names=(GAP,),
        crossed=False,
    )
    for metric, floor in ones.null.items():
        assert floor == pytest.approx(unweighted.null[metric], rel=0.15), metric
        assert ones.p_noise[metric] == pytest.approx(
            unweighted.p_noise[metric], abs=0.15
        ), metric
        np.testing.assert_allclose(
            ones.repeats[metric], unweighted.repeats[metric], atol=1e-6
        )


@pytest.mark.slow
def test_gaps_beyond_noise_are_found(weighted):
    """Men are ranked worse; ages are alike."""
    assert weighted.p_noise[f"{AUROC_GAP}/sex"] < 0.02
    assert weighted.p_noise[f"{AUROC_GAP}/age"] > 0.05
    # Of a score the low values are the bad ones.
    assert weighted.p_noise[f"{EQUITY}/sex"] < 0.02
    assert weighted.mean(f"{EQUITY}/sex") < weighted.null[f"{EQUITY}/sex"]
    assert weighted.null[f"{EQUITY}/worst"] < weighted.null[f"{EQUITY}/mean"]
    assert weighted.null[f"{EQUITY}/{CROSSED}"] < weighted.null[f"{EQUITY}/sex"]
    assert set(weighted.null) == {
        f"{metric}/{name}"
        for metric in GROUP_METRICS
        for name in ("sex", "age", CROSSED, "mean", "worst")
    }


@pytest.mark.slow
def test_what_has_no_correction_is_undefined(weighted, unweighted):
    assert all(math.isnan(value) for value in weighted.corrected.values())
    for metric, value in unweighted.corrected.items():
        # Where two groups really differ there is no bias, but for the draws' noise.
        assert 0 <= value < unweighted.mean(metric) + 0.01


@pytest.mark.slow
def test_a_corrected_selection_gap_is_near_the_true_one():
    """Women are selected 30 points more often; three equal ages look unequal."""
    rng = np.random.default_rng(1)
    sex = rng.integers(0, 2, 500)
    label = rng.random(500) < 0.5
    scores = (rng.random((8, 500)) < 0.35 + 0.3 * (sex == 0)).astype(float)
    age = rng.integers(0, 3, 500)
    splits = splits_of(
        label, num_repeats=8, sex=np.array(["f", "m"])[sex], age=age.astype(str)
    )
    found = evaluate(
        splits, scores, permutations=100, metric_names=(PARITY,), crossed=False
    )
    raw, corrected = found.mean(f"{PARITY}/age"), found.corrected[f"{PARITY}/age"]
    assert corrected < 0.6 * raw
    assert found.corrected[f"{PARITY}/sex"] == pytest.approx(0.3, abs=0.05)
    assert found.null[f"{PARITY}/age"] == pytest.approx(raw, abs=0.03)


@pytest.mark.slow
def test_groups_that_are_too_small_are_named_and_left_out():
    """Nine dead men over 65 are one too few, although men and the old are enough."""
    label = np.tile([0, 1], 60)
    sex, age = np.repeat(["f", "m"], 60), np.tile(np.repeat(["<65", "65+"], 30), 2)
    old_men = np.flatnonzero((sex == "m") & (age == "65+") & (label == 1))
    label[old_men[9:]] = 0
    splits = splits_of(label, sex=sex, age=age)
    assert left_out(cohort(splits, crossed=True)) == {CROSSED: ["m × 65+"]}
    assert left_out(cohort(splits)) == {}
    found = measure(splits, np.linspace(0, 1, 120), metric_names=("group_auroc",))
    assert f"group_auroc/{CROSSED}=m × 65+" not in found
    assert f"group_auroc/{CROSSED}=m × <65" in found


def test_one_attribute_is_crossed_with_nothing():
    splits = splits_of(np.tile([0, 1], 40), sex=np.repeat(["f", "m"], 40))
    found = measure(splits, np.linspace(0, 1, 80), metric_names=(EQUITY,))
    assert set(found) == {f"{EQUITY}/{n}" for n in ("sex", "mean", "worst")}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(3), r"weights must have the shape \(80,\), .*; got \(3,\)"),
        (np.full(80, -1.0), "; got 80 of 80 that are negative or not finite"),
        (np.r_[np.nan, np.inf, np.ones(78)], "; got 2 of 80 that are negative"),
        (np.zeros(80), "not all 0"),
    ],
)
def test_weights_that_are_none(weights, words):
    splits = splits_of(np.tile([0, 1], 40), sex=np.repeat(["f", "m"], 40))
    with pytest.raises(ValueError, match=words):
        evaluate(splits, np.zeros(80), weights=weights)


def test_a_metric_that_there_is_not():
    splits = splits_of(np.tile([0, 1], 40), sex=np.repeat(["f", "m"], 40))
    with pytest.raises(ValueError, match="names must be among auroc, .*; got roc"):
        evaluate(splits, np.zeros(80), metric_names=("auroc", "roc"))


def test_intersections_without_two_to_compare():
    """Each attribute has two groups, but their one large intersection is alone."""
    sex = np.repeat(["f", "f", "m"], 30)
    age = np.repeat(["<65", "65+", "<65"], 30)
    label = np.tile([0, 1], 45)
    # Of the 15 dead in each part, half are moved so that no other part has ten.
    label[np.flatnonzero((age == "65+") & (label == 1))[9:]] = 0
    label[np.flatnonzero((sex == "m") & (label == 1))[9:]] = 0
    splits = splits_of(label, sex=sex, age=age)
    with pytest.raises(ValueError, match="must have two groups of 10 rows .*; got 1"):
        cohort(splits, crossed=True)
