"""Methods compared on a cohort: tables by hand, folds, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from fairjax import evaluation
from fairjax.evaluation import _noise
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.names import GAP, PARITY, STATISTICAL_PARITY

LABELS = np.tile([0, 1], 40)
SITES = np.repeat(["a", "b"], 40)
PERFECT = np.where(LABELS == 1, 0.9, 0.2)
# Everyone at site b is decided as 0.
BLIND = np.where(SITES == "a", PERFECT, 0.1)


@pytest.fixture(scope="module")
def cohort():
    return evaluation.cohort(LABELS, {"site": SITES}, folds=[LABELS, 1 - LABELS])


@pytest.fixture(scope="module")
def found(cohort):
    """Three methods in two repeats; one is given by fold."""
    # Fold k tests the rows of label k in the first repeat, the others in the second.
    by_fold = np.full((2, 2, 80), np.nan)
    for repeat, fold in np.ndindex(2, 2):
        rows = cohort.folds[repeat] == fold
        by_fold[repeat, fold, rows] = BLIND[rows]
    return evaluation.compare_methods(
        cohort,
        {"perfect": [PERFECT, PERFECT], "blind": by_fold, "half": [PERFECT, BLIND]},
        baseline="perfect",
        key=0,
        metric_names=["accuracy", GAP],
        num_bootstrap=4,
        num_permutations=4,
    )


def test_tables_by_hand(found):
    value = found.metrics["value"]
    names = ("perfect", "blind", "half")
    # Half of site b is wrong, a quarter of all; no patient of b with the outcome is
    # found, and all of a.
    accuracy, gap = value["accuracy"], value[f"{GAP}/site"]
    assert [accuracy[n] for n in names] == pytest.approx([1, 0.75, 0.875])
    assert [gap[n] for n in names] == pytest.approx([0, 1, 0.5])
    assert set(found.gaps.index) == {
        (f"{GAP}/{of}", n) for of in ("site", "mean", "worst") for n in names
    }
    floor = found.gaps["noise_floor"][f"{GAP}/site"]
    assert floor["perfect"] == 0
    assert 0 < floor["blind"] < 0.5
    assert found.gaps.loc[(f"{GAP}/site", "blind"), "corrected"] > 0.9
    tests = found.differences.loc["accuracy"]
    assert list(tests.index) == ["blind", "half"]
    assert tests["difference"].tolist() == pytest.approx([-0.25, -0.125])
    # Holm over two methods: the smaller p-value counts twice.
    small, large = sorted(tests["p_value"])
    adjusted = [min(1, 2 * small), min(1, max(2 * small, large))]
    assert sorted(tests["adjusted_p_value"]) == pytest.approx(adjusted, rel=1e-5)
    assert (tests["lower"] <= tests["difference"]).all()


def test_a_figure_has_a_panel_for_each_metric(found):
    figure = found.figure(["accuracy", f"{GAP}/site"])
    assert [axes.get_title() for axes in figure.axes] == ["accuracy", f"{GAP}\nsite"]
    drawn = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(drawn, [1, 0.75, 0.875])
    assert [len(axes.patches) for axes in figure.axes[1:]] == [1]
    assert len(found.figure().axes) == 3
    with pytest.raises(ValueError, match=r"must be some of accuracy, .*; got auroc\."):
        found.figure(["auroc"])


GOOD = {"a": [PERFECT, PERFECT], "b": [BLIND, BLIND]}
NAN = np.where(np.arange(80) == 3, np.nan, BLIND)


@pytest.mark.parametrize(
    ("scores", "options", "words"),
    [
        ({"a": PERFECT}, {}, "two methods or more.* got a"),
        (GOOD, {"baseline": "c"}, "one of the methods a, b; got c"),
        (GOOD | {"b": BLIND}, {}, "same repeats.*; got a 2, b 1"),
        (GOOD | {"b": BLIND[:7]}, {}, r"'b' must have the shape \[80\].*got \(7,\)"),
        (GOOD | {"b": np.ones((2, 3, 80))}, {}, r"or \[2, 2, 80\]; got \(2, 3, 80\)"),
        (
            GOOD | {"b": [BLIND, NAN]},
            {},
            "'b' must be finite .*; got .* for 1 of 160, row 3 of repeat 1 first",
        ),
        (
            GOOD,
            {"thresholds": [0.1, 0.2, 0.3]},
            r"leading axes \(2, 80\).*shape \(3,\)",
        ),
        (
            GOOD,
            {"thresholds": {"a": 0.5}},
            "every method, also 'b'; got thresholds of a",
        ),
        (
            GOOD | {"b": np.array(GOOD["b"]) * 20 - 5},
            {"metric_names": ["brier"]},
            r"probabilities in \[0, 1\].*got -3 to 13",
        ),
        (
            GOOD,
            {"metric_names": ["roc"]},
            "metric_names must be among auroc, .*; got roc",
        ),
        (GOOD, {"weights": np.ones(3)}, r"must have the shape \(80,\), .*; got \(3,\)"),
        (GOOD, {"num_bootstrap": 1}, "num_bootstrap must be 2 or more; got 1"),
    ],
)
def test_what_cannot_be_compared(cohort, scores, options, words):
    given = {"baseline": "a", "key": 0, "metric_names": ["accuracy"], **options}
    with pytest.raises(ValueError, match=words):
        evaluation.compare_methods(cohort, scores, **given)


def test_scores_by_fold_need_folds():
    plain = evaluation.cohort(LABELS, {"site": SITES})
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 80\)\. Give the cohort"):
        evaluation.compare_methods(
            plain, {"a": PERFECT, "b": np.ones((1, 2, 80))}, baseline="a", key=0
        )


def test_thresholds_by_fold_decide_before_scores_are_pooled(cohort):
    """.5 would find them all; fold 1 of the first repeat decides at .95."""
    by_fold = np.broadcast_to(PERFECT, (2, 2, 80))
    strict = np.array([[0.5, 0.95], [0.5, 0.5]])
    made = evaluation.compare_methods(
        cohort,
        {"plain": by_fold, "strict": by_fold},
        baseline="plain",
        key=0,
        thresholds={"plain": 0.5, "strict": strict},
        metric_names=["accuracy"],
        num_bootstrap=4,
        num_permutations=4,
    )
    repeats = made.evaluations["strict"].repeats["accuracy"]
    np.testing.assert_allclose(repeats, [0.5, 1.0])


def test_a_cohort_has_groups_references_and_patients():
    sex = np.tile(["f", "f", "m", "m"], 20)
    made = evaluation.cohort(
        LABELS,
        pd.DataFrame({"site": SITES, "sex": sex}),
        patients=np.repeat([f"p{i}" for i in range(40)], 2),
        intersections=True,
        references={"sex": "m"},
    )
    assert [g.name for g in made.groupings] == ["site", "sex", "site × sex"]
    assert [g.reference for g in made.attributes] == [None, 1]
    assert made.crossed.levels == ("a × f", "a × m", "b × f", "b × m")
    np.testing.assert_array_equal(made.crossed.codes[:8], [0, 0, 1, 1] * 2)
    assert len(np.unique(made.patients)) == 40
    np.testing.assert_array_equal(made.patients[::2], made.patients[1::2])
    assert made.judged.shape[0] == 0


def test_patients_exchange_all_attributes_and_keep_their_outcomes():
    sex = np.tile(["f", "f", "m", "m"], 20)
    made = evaluation.cohort(LABELS, {"site": SITES, "sex": sex}, intersections=True)
    rows = jnp.asarray(np.random.default_rng(0).permutation(80))
    moved = made.exchanged(rows)
    np.testing.assert_array_equal(moved.labels, LABELS)
    site, person, both = (grouping.codes for grouping in moved.groupings)
    np.testing.assert_array_equal(site, SITES[rows] == "b")
    np.testing.assert_array_equal(person, sex[rows] == "m")
    np.testing.assert_array_equal(both, 2 * site + person)


def test_metrics_of_groups_by_hand():
    """Site a ranks as in the table above, b mixes some up, and c reverses few."""
    site = np.repeat(["a", "b", "c"], [100, 100, 20])
    labels = np.tile([0, 1], 110)
    four = np.tile([0.2, 0.4, 0.6, 0.8], 25)
    scores = np.concatenate([labels[:100], four, 1 - labels[200:]])
    found = evaluation.cohort(labels, {"site": site}, references={"site": "a"})
    # The second weighting is without the positive patients of b who rank low.
    weights = np.stack([np.ones(220), ~((site == "b") & (scores == 0.4))])

    @jax.jit
    def measured(*given):
        sample = Sample(found, *given)
        return (
            evaluation.measure(found, ["worst_group_auroc"], *given),
            _noise._of_attributes(PARITY, sample),
            _noise._of_groups(STATISTICAL_PARITY, sample),
        )

    worst, gaps, parts = measured(np.float32(scores), scores > 0.3, weights)
    # A positive patient of b ranks above 1 or 2 of 2; c is too small to be the worst.
    np.testing.assert_allclose(worst["worst_group_auroc"], [0.75, 1.0], rtol=1e-6)
    # Half of a and of c is selected, and three quarters of b.
    assert gaps == {"site": 0.25}
    assert parts == {"mean": 0.125, "worst": 0.25}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": LABELS + 1}, r"0s and 1s; got .* \[1, 2\]"),
        ({"labels": LABELS[:-1]}, "attributes must have 79 rows, as labels; got 80"),
        ({"patients": [1] * 79}, "patients must have 80 rows, as labels; got 79"),
        ({"patients": [None] + [1.0] * 79}, "each row's patient; got 1 missing"),
        (
            {"folds": LABELS - 1},
            "once in each repeat; got 40 negative folds, row 0 of repeat 0",
        ),
        ({"folds": LABELS[:3]}, r"folds must be integers \[80\]"),
        (
            {"attributes": {"mean": SITES}},
            "must not be named as a summary, mean or worst; got 'mean'",
        ),
        ({"min_support": 30}, "'site' must have two groups of 30 rows .*; got 0"),
        ({"references": {"site": "c"}}, "one of its groups .* a, b; got c"),
    ],
)
def test_what_is_no_cohort(change, words):
    given = {"labels": LABELS, "attributes": {"site": SITES}, **change}
    with pytest.raises(ValueError, match=words):
        evaluation.cohort(given.pop("labels"), given.pop("attributes"), **given)
