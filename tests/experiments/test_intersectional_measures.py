"""Metrics of groups against a reference, of decisions and of chances: by formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from experiments.core import protocol
from experiments.core.evaluation import Evaluator, Predictions, cohort
from experiments.datasets import ClinicalTable
from fairjax.evaluation import Evaluation
from fairjax.evaluation import _measures as measures
from fairjax.evaluation._sample import Sample
from fairjax.evaluation.names import (
    AVERAGE_ODDS,
    DISTANCE,
    IMPACT,
    OPPORTUNITY,
    STATISTICAL_PARITY,
)

GROUPS, REFERENCE = ("a", "b", "c", "tiny"), "b"
PARITY = (IMPACT, STATISTICAL_PARITY, OPPORTUNITY, AVERAGE_ODDS)
RATES = ("group_accuracy", "group_balanced_accuracy", "group_f1_score", "group_recall")


@pytest.fixture(scope="module")
def made():
    """300 patients of three groups, and 6 of a group too small to be compared."""
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.integers(0, 3, 300), np.full(6, 3)])
    label = (rng.random(306) < 0.3 + 0.1 * codes).astype(np.int8)
    groups = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(GROUPS)))
    table = ClinicalTable(
        name="made",
        title="Made up",
        features=pd.DataFrame({"x": rng.normal(size=306)}),
        label=label,
        outcome="death",
        attributes=pd.DataFrame({"group": groups}),
        patient_ids=np.arange(306),
        dropped={},
        excluded={},
        citation="",
        licence="",
    )
    splits = protocol.cross_validation(table, ("group",), num_repeats=2, seed=0)
    return splits, codes, label


def sample_of(splits, decisions, *, reference=REFERENCE, weights=None):
    whole = cohort(splits, references={"group": reference} if reference else None)
    mass = np.ones((1, len(decisions))) if weights is None else weights
    return Sample(
        whole,
        jnp.asarray(decisions, jnp.float32),
        jnp.asarray(decisions),
        jnp.asarray(mass, jnp.float32),
    )


def measured(names, splits, decisions):
    """In one compiled program."""
    return jax.jit(lambda given: measures.measure(names, sample_of(splits, given)))(
        decisions
    )


def by_formula(codes, label, chance):
    """What AIF360 computes for each group against the reference, in expectation."""

    def rates(group):
        mine = codes == GROUPS.index(group)
        ill, well = mine & (label == 1), mine & (label == 0)
        return chance[mine].mean(), chance[ill].mean(), chance[well].mean()

    own = {group: rates(group) for group in GROUPS[:3]}
    selected, true, false = own[REFERENCE]
    return {
        group: {
            IMPACT: s / selected,
            STATISTICAL_PARITY: s - selected,
            OPPORTUNITY: t - true,
            AVERAGE_ODDS: ((f - false) + (t - true)) / 2,
        }
        for group, (s, t, f) in own.items()
    }


@pytest.mark.parametrize(
    "kind",
    [
        "decisions",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("0 or 1", "chances")),
    ],
)
def test_against_a_reference(made, kind):
    splits, codes, label = made
    rng = np.random.default_rng(1)
    chance = rng.random(306).astype(np.float32)
    if kind != "chances":
        chance = (chance < 0.4).astype(bool if kind == "decisions" else np.float32)
    found = measured(PARITY, splits, chance)
    wanted = by_formula(codes, label, chance)
    for metric in PARITY:
        away = []
        for group in GROUPS[:3]:
            value = float(found[f"{metric}/group={group}"][0])
            np.testing.assert_allclose(value, wanted[group][metric], atol=2e-6)
            distance = f"{metric}/{DISTANCE} group={group}"
            if group == REFERENCE:
                assert distance not in found
                continue
            away.append(abs(wanted[group][metric] - (metric == IMPACT)))
            np.testing.assert_allclose(found[distance], away[-1], atol=2e-6)
        # Too small a group is not reported, and is no part of the summaries.
        assert f"{metric}/group=tiny" not in found
        assert f"{metric}/{DISTANCE} group=tiny" not in found
        np.testing.assert_allclose(found[f"{metric}/mean"], np.mean(away), atol=2e-6)
        np.testing.assert_allclose(found[f"{metric}/worst"], max(away), atol=2e-6)


def test_rates_of_groups(made):
    splits, codes, label = made
    decisions = np.random.default_rng(2).random(306) < 0.4
    found = measured(RATES, splits, decisions)
    oracles = {
        "group_balanced_accuracy": balanced_accuracy_score,
        "group_f1_score": f1_score,
        "group_recall": recall_score,
        "group_accuracy": lambda y, p: np.mean(y == p),
    }
    for metric, oracle in oracles.items():
        own = [
            oracle(label[codes == g], decisions[codes == g].astype(int))
            for g in range(3)
        ]
        for group, value in zip(GROUPS, own, strict=False):
            np.testing.assert_allclose(
                found[f"{metric}/group={group}"][0], value, atol=1e-6
            )
        # More is better: the worst is the least.
        np.testing.assert_allclose(found[f"{metric}/mean"], np.mean(own), atol=1e-6)
        np.testing.assert_allclose(found[f"{metric}/worst"], min(own), atol=1e-6)


def test_chances_are_the_mean_of_draws(made):
    """Expected counts are exactly what decisions average to."""
    splits, _, _ = made
    rng = np.random.default_rng(3)
    drawn = rng.random((8, 306)) < 0.5
    grouping = cohort(splits).attributes[0]
    tables = [sample_of(splits, one).counts(grouping).counts for one in drawn]
    chance = drawn.mean(axis=0).astype(np.float32)
    expected = sample_of(splits, chance).counts(grouping).counts
    np.testing.assert_array_equal(expected, np.mean(tables, axis=0))


@pytest.mark.slow
def test_chances_are_weighted(made):
    splits, codes, label = made
    rng = np.random.default_rng(4)
    weights = rng.integers(0, 4, (2, 306))
    chance = rng.random(306).astype(np.float32)
    sample = sample_of(splits, chance, weights=weights)
    rate = measures.measure(("selection_rate",), sample)["selection_rate"]
    np.testing.assert_allclose(rate, weights @ chance / weights.sum(axis=1), rtol=1e-5)
    found = measures.measure(("group_recall",), sample)["group_recall/group=a"]
    ill = weights * ((codes == 0) & (label == 1))
    np.testing.assert_allclose(found, ill @ chance / ill.sum(axis=1), rtol=1e-5)


def test_a_reference_is_asked_for_and_must_be_large_enough(made):
    splits, _, _ = made
    decisions = np.ones(306, bool)
    with pytest.raises(ValueError, match=r"impact needs references\[.group.\]; got no"):
        measures.measure((IMPACT,), sample_of(splits, decisions, reference=None))
    with pytest.raises(ValueError, match="one of its groups .* a, b, c; got tiny"):
        cohort(splits, references={"group": "tiny"})


def test_nobody_of_the_reference_selected(made):
    splits, codes, _ = made
    decisions = codes != GROUPS.index(REFERENCE)
    found = measured((IMPACT,), splits, decisions)
    assert np.isinf(found[f"{IMPACT}/group=a"][0])
    assert np.isnan(found[f"{IMPACT}/group=b"][0])


@pytest.fixture(scope="module")
def evaluate(made):
    """Evaluates chances, by programs that are compiled once."""
    evaluator = Evaluator(
        made[0],
        num_bootstrap=30,
        num_permutations=50,
        seed=0,
        metric_names=PARITY,
        references={"group": REFERENCE},
    )

    def of(chance):
        both = np.broadcast_to(chance, (2, 306)).astype(np.float32)
        return evaluator(Predictions("made", "", both, both))

    return of


@pytest.mark.slow
def test_intervals_of_differences_may_be_negative(made, evaluate):
    _, codes, _ = made
    found = evaluate(np.where(codes == 0, 0.1, 0.9))
    low, high = found.interval(f"{STATISTICAL_PARITY}/group=a")
    assert -1 <= low <= high < -0.7
    assert found.interval(f"{STATISTICAL_PARITY}/mean")[0] >= 0


@pytest.mark.slow
def test_distances_of_opposite_repeats_do_not_cancel(made, evaluate):
    """+.4 in one repeat and -.4 in the other are .4 off, in every resample too."""
    _, codes, _ = made
    chance = np.stack([np.where(codes == 0, end, 0.5) for end in (0.9, 0.1)])
    found = evaluate(chance)
    signed, away = (f"{AVERAGE_ODDS}/{part}group=a" for part in ("", f"{DISTANCE} "))
    assert found.mean(signed) == pytest.approx(0, abs=1e-6)
    for kind in (found.repeats, found.bootstrap):
        np.testing.assert_allclose(kind[away], 0.4, atol=1e-6)
    np.testing.assert_allclose(found.bootstrap[signed], 0, atol=1e-6)
    # The summary is the mean of the distances, in every resample.
    own = [found.bootstrap[f"{AVERAGE_ODDS}/{DISTANCE} group={g}"] for g in "ac"]
    mean = found.bootstrap[f"{AVERAGE_ODDS}/mean"]
    np.testing.assert_allclose(np.mean(own, axis=0), mean, atol=1e-6)
    low, high = found.interval(away)
    assert 0 <= low <= 0.4 <= high <= 1


def test_a_ratio_may_be_more_than_one():
    repeats = np.array([1.4, 1.6])
    name = f"{IMPACT}/group=a"
    wide = Evaluation({name: repeats}, {name: np.array([1.0, 2.0])}, {}, {}, {})
    assert wide.interval(name)[1] > 1.6


@pytest.mark.slow
def test_noise_floors_of_the_summaries(made, evaluate):
    """A chance that does not depend on the group is noise; one that does is not."""
    _, codes, _ = made
    found = evaluate(np.random.default_rng(5).random(306))
    mean = f"{AVERAGE_ODDS}/mean"
    assert found.p_noise[mean] > 0.05
    assert 0 < found.null[mean] < found.null[f"{AVERAGE_ODDS}/worst"]
    found = evaluate(np.where(codes == 0, 0.1, 0.9))
    assert found.p_noise[mean] < 0.05
    assert found.null[mean] < 0.5 * found.mean(mean)
    assert np.isnan(found.corrected[mean])


@pytest.mark.slow
def test_the_floor_of_statistical_parity_is_of_anyone(made, evaluate):
    """Decisions equal to the outcome: groups differ as their outcomes do."""
    floor = evaluate(made[2]).null
    # Within outcome nothing varies, across outcomes selection does.
    assert floor[f"{OPPORTUNITY}/mean"] == 0
    assert floor[f"{STATISTICAL_PARITY}/mean"] > 0.01


def test_a_group_without_another_says_what_exists(made):
    """An only attribute cannot be left out; one of several can."""
    splits, codes, _ = made
    few = pd.Categorical(np.where(codes == GROUPS.index("tiny"), "few", "most"))
    alone = dataclasses.replace(splits.table, attributes=pd.DataFrame({"group": few}))
    made_alone = protocol.cross_validation(alone, ("group",), num_repeats=1, seed=0)
    with pytest.raises(
        ValueError, match="'group' must have two groups of 10 rows .* got 1"
    ):
        cohort(made_alone)
    both = pd.DataFrame({"group": splits.table.attributes["group"], "one": few})
    several = dataclasses.replace(splits.table, attributes=both)
    made_several = protocol.cross_validation(
        several, ("group", "one"), num_repeats=1, seed=0
    )
    with pytest.raises(ValueError, match="'one' .* Leave it out with --attributes"):
        cohort(made_several)
