import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from fairjax.metrics import VERDICTS, positive_sum, positive_sum_of
from fairjax.metrics._numbers import student_t_quantile

Z = stats.norm.ppf(0.975)


def judged(overall, by_group, *, error=0.01, errors=0.01, **options):
    by_group = np.array(by_group, np.float32)
    return positive_sum_of(
        np.array(overall, np.float32),
        error,
        by_group,
        np.broadcast_to(np.float32(errors), by_group.shape[1:]),
        **options,
    )


class TestVerdict:
    """Every branch of the rule, by hand: limits are d ± 1.96 or, of two, 2.2414 s."""

    @pytest.mark.parametrize(
        ("overall", "by_group", "margin", "verdict", "quadrant"),
        [
            # Gains of .05, .06 and .03: all lower limits above 0.
            ((0.85, 0.80), ((0.86, 0.83), (0.80, 0.80)), 0.0, 0, 0),
            # The worst gain is .01, lower limit -.0096: shown with a margin only.
            ((0.85, 0.80), ((0.86, 0.81), (0.80, 0.80)), 0.0, 3, 0),
            ((0.85, 0.80), ((0.86, 0.81), (0.80, 0.80)), 0.01, 0, 0),
            # No gain is shown (lower limit -.0096), none loses, the gap widens by .04.
            ((0.81, 0.80), ((0.86, 0.82), (0.80, 0.80)), 0.0, 1, 0),
            # The same where the gap narrows from .06 to .02.
            ((0.81, 0.80), ((0.86, 0.84), (0.74, 0.80)), 0.0, 3, 0),
            # A group loses .03: upper limit -.0076, though the overall gain is shown.
            ((0.85, 0.80), ((0.90, 0.77), (0.80, 0.80)), 0.0, 2, 2),
            # That is no harm beyond a margin of .01.
            ((0.85, 0.80), ((0.90, 0.77), (0.80, 0.80)), 0.01, 3, 2),
            # Losing .02 is not shown: upper limit .0024.
            ((0.85, 0.80), ((0.90, 0.78), (0.80, 0.80)), 0.0, 3, 2),
            # Harm counts where the gap narrows, too: levelling down.
            ((0.76, 0.80), ((0.76, 0.76), (0.86, 0.76)), 0.0, 2, 2),
            # x <= 0 with y >= 0 and a wider gap is the published non-harmful gap.
            ((0.80, 0.80), ((0.86, 0.81), (0.80, 0.80)), 0.0, 3, 1),
        ],
    )
    def test_by_hand(self, overall, by_group, margin, verdict, quadrant):
        found = judged(overall, by_group, margin=margin)
        assert VERDICTS[found.verdict] == VERDICTS[verdict]
        assert VERDICTS[found.quadrant] == VERDICTS[quadrant]

    def test_limits_and_gaps(self):
        found = judged((0.85, 0.80), ((0.90, 0.78), (0.80, 0.81)), errors=(0.02, 0.01))
        jointly = stats.norm.ppf(1 - 0.025 / 2)
        np.testing.assert_allclose(found.gain, 0.05, atol=1e-6)
        np.testing.assert_allclose(
            (found.gain_lower, found.gain_upper),
            (0.05 - Z * 0.01, 0.05 + Z * 0.01),
            atol=1e-6,
        )
        np.testing.assert_allclose(found.worst, -0.03, atol=1e-6)
        np.testing.assert_allclose(found.worst_lower, -0.03 - Z * 0.01, atol=1e-6)
        np.testing.assert_allclose(found.worst_upper, -0.03 + jointly * 0.01, atol=1e-6)
        np.testing.assert_allclose(
            found.group_lower, [0.1 - jointly * 0.02, -0.03 - jointly * 0.01], atol=1e-6
        )
        assert found.worst_group == 1
        np.testing.assert_allclose(found.gap_changes, [0.12 - 0.01], atol=1e-6)

    def test_an_uncertain_group_can_set_either_limit(self):
        # Gains .05 and .06, but the second's error is 10 times larger.
        found = judged((0.85, 0.80), ((0.85, 0.86), (0.80, 0.80)), errors=(0.01, 0.1))
        assert found.worst_group == 0
        np.testing.assert_allclose(found.worst_lower, 0.06 - Z * 0.1, atol=1e-6)
        assert VERDICTS[found.verdict] == "inconclusive"

    @pytest.mark.slow
    def test_groups_left_out_take_no_part(self):
        by_group = ((0.86, 0.10, 0.85), (0.80, 0.80, 0.80))
        found = judged((0.85, 0.80), by_group, valid=np.array([True, False, True]))
        fewer = judged((0.85, 0.80), ((0.86, 0.85), (0.80, 0.80)))
        assert found.compared.tolist() == [True, False, True]
        assert np.isnan(found.group_gains[1])
        assert np.isnan(found.group_lower[1])
        assert VERDICTS[found.verdict] == "positive-sum"
        for name in ("worst_lower", "worst_upper", "gap_changes", "gain_lower"):
            np.testing.assert_array_equal(getattr(found, name), getattr(fewer, name))

    def test_without_groups_or_metric_nothing_is_concluded(self):
        nobody = judged(
            (0.85, 0.80), ((0.86, 0.85), (0.80, 0.80)), valid=np.zeros(2, bool)
        )
        assert nobody.worst_group == -1
        assert np.isnan(nobody.worst)
        assert VERDICTS[nobody.verdict] == VERDICTS[nobody.quadrant] == "inconclusive"
        unknown = judged((np.nan, 0.80), ((0.86, 0.86), (0.80, 0.80)))
        assert VERDICTS[unknown.verdict] == "inconclusive"

    def test_equal_models_are_neither(self):
        same = judged((0.8, 0.8), ((0.8, 0.7), (0.8, 0.7)), error=0.0, errors=0.0)
        assert VERDICTS[same.verdict] == VERDICTS[same.quadrant] == "inconclusive"
        assert same.worst_lower == same.worst_upper == 0

    def test_gaps_are_within_attributes(self):
        # Of (.9, .8) and of (.7, .6): .1 each, though the four span .3.
        found = judged(
            (0.85, 0.80),
            ((0.9, 0.8, 0.7, 0.6), (0.8, 0.8, 0.6, 0.6)),
            num_groups=(2, 2),
        )
        np.testing.assert_allclose(found.gap_changes, [0.1, 0.1], atol=1e-6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"confidence": 1.0}, "confidence"),
            ({"margin": -0.1}, "margin"),
            ({"num_groups": (1, 2)}, "add up to 2"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            judged((0.85, 0.80), ((0.86, 0.85), (0.80, 0.80)), **options)


@pytest.mark.slow
def test_t_quantiles():
    tails = np.array([0.05, 0.025, 0.001], np.float32)[:, None]
    degrees = np.array([1, 2, 4, 9, 60, 5000, np.inf, 0], np.float32)
    found = jax.jit(student_t_quantile)(jnp.array(tails), jnp.array(degrees))
    expected = stats.t.isf(tails.astype(float), degrees[:-1].astype(float))
    np.testing.assert_allclose(found[:, :-1], expected, rtol=2e-4)
    assert np.isnan(found[:, -1]).all()


@pytest.mark.slow
def test_limits_of_the_minimum_err_no_more_often_than_stated():
    """Whatever the true gains and the correlation; exactly, in the hardest case."""
    draws, rng = 20_000, np.random.default_rng(0)
    judge = jax.jit(
        jax.vmap(
            lambda by_group: positive_sum_of(
                jnp.array([0.8, 0.8]), 0.01, by_group, jnp.full(4, 0.01)
            )
        )
    )
    slack = 4 * np.sqrt(0.025 / draws)
    for truth in ([0, 0, 0, 0], [0, 1, 1, 1], [0, 0.01, 0.01, 0.02]):
        for shared in (0.0, 0.9):
            common = np.sqrt(shared) * rng.normal(size=(draws, 1))
            noise = common + np.sqrt(1 - shared) * rng.normal(size=(draws, 4))
            gains = np.array(truth) + 0.01 * noise
            found = judge(jnp.stack([gains, np.zeros_like(gains)], 1, dtype=np.float32))
            too_high = np.mean(np.asarray(found.worst_lower) > 0)
            too_low = np.mean(np.asarray(found.worst_upper) < 0)
            assert too_high < 0.025 + slack
            assert too_low < 0.025 + slack
            if truth == [0, 1, 1, 1]:  # only one group can bring the minimum about
                assert too_high > 0.025 - slack
            if truth == [0, 0, 0, 0] and not shared:
                assert too_low > 0.0246 - slack


def delong_by_pairs(labels, first, second):
    """Difference of AUROCs and its variance, from all pairs, in float64."""
    positive, negative = labels == 1, labels == 0

    def kernel(scores):
        gap = scores[positive][:, None] - scores[negative][None]
        return (gap > 0) + 0.5 * (gap == 0)

    contrast = kernel(first) - kernel(second)
    rows, columns = contrast.mean(1), contrast.mean(0)
    return contrast.mean(), (
        rows.var(ddof=1) / rows.size + columns.var(ddof=1) / columns.size
    )


ROWS = 240


def cohort(seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(ROWS) % 3 == 0
    groups = np.stack([rng.integers(0, 3, ROWS), rng.integers(0, 2, ROWS)])
    # Coarse, so that scores are tied.
    good = np.round(labels + rng.normal(0, 0.9, ROWS), 1).astype(np.float32)
    poor = np.round(labels + rng.normal(0, 1.3, ROWS), 1).astype(np.float32)
    return labels, good, poor, groups


compare = functools.partial(positive_sum, num_groups=(3, 2))


class TestAuroc:
    def test_agrees_with_all_pairs(self):
        labels, model, baseline, groups = cohort(0)
        found = compare(labels, model, baseline, groups)
        gain, variance = delong_by_pairs(labels, model, baseline)
        np.testing.assert_allclose(found.gain, gain, atol=1e-6)
        degrees = min(labels.sum(), (~labels).sum()) - 1
        reach = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
        np.testing.assert_allclose(found.gain_upper - found.gain, reach, rtol=1e-3)
        members = [groups[0] == g for g in range(3)] + [
            groups[1] == g for g in range(2)
        ]
        for group, here in enumerate(members):
            gain, variance = delong_by_pairs(labels[here], model[here], baseline[here])
            expected = roc_auc_score(labels[here], model[here])
            expected -= roc_auc_score(labels[here], baseline[here])
            np.testing.assert_allclose(gain, expected)
            np.testing.assert_allclose(found.group_gains[group], gain, atol=1e-6)
            degrees = min(labels[here].sum(), (~labels[here]).sum()) - 1
            reach = stats.t.ppf(1 - 0.025 / 5, degrees) * np.sqrt(variance)
            np.testing.assert_allclose(
                found.group_upper[group] - gain, reach, rtol=1e-3
            )

    @pytest.mark.slow
    @given(st.integers(0, 2**16))
    def test_order_of_rows_does_not_matter(self, seed):
        labels, model, baseline, groups = cohort(seed)
        order = np.random.default_rng(seed).permutation(ROWS)
        found = compare(labels, model, baseline, groups)
        moved = compare(labels[order], model[order], baseline[order], groups[:, order])
        for name, value in found._asdict().items():
            np.testing.assert_allclose(getattr(moved, name), value, atol=2e-5)

    @pytest.mark.slow
    def test_mapped(self):
        cohorts = [cohort(seed) for seed in range(3)]
        mapped = jax.vmap(compare)(*map(np.stack, zip(*cohorts, strict=True)))
        for number, one in enumerate(cohorts):
            for name, value in compare(*one)._asdict().items():
                np.testing.assert_allclose(
                    getattr(mapped, name)[number], value, atol=2e-5
                )

    def test_small_groups_are_left_out_and_a_better_model_wins(self):
        labels, model, _, groups = cohort(1)
        # Of the first attribute's group 2, three positives stay.
        groups[0, np.flatnonzero((groups[0] == 2) & labels)[3:]] = -1
        chance = np.random.default_rng(2).normal(size=ROWS).astype(np.float32)
        found = compare(labels, model, chance, groups)
        assert found.compared.tolist() == [True, True, False, True, True]
        assert VERDICTS[found.verdict] == "positive-sum"
        reverse = compare(labels, chance, model, groups)
        assert VERDICTS[reverse.verdict] == "harmful"

    @pytest.mark.slow
    def test_perfect_ranking_is_not_certainty(self):
        labels = np.arange(ROWS) % 2
        perfect = labels + np.linspace(0, 0.5, ROWS, dtype=np.float32)
        groups = np.full((2, ROWS), -1)
        groups[1, :24] = np.repeat([0, 1], 12)
        found = compare(labels, perfect, perfect, groups)
        # Six pairs: A of 6.5 / 7, and the variance A (1 - A) / 6 of either model.
        error = np.sqrt(2 * (6.5 / 7) * (0.5 / 7) / 6)
        np.testing.assert_allclose(
            found.worst_lower, -stats.t.ppf(0.975, 5) * error, rtol=1e-3
        )
        assert found.compared.tolist() == [False, False, False, True, True]
        assert VERDICTS[found.verdict] == "inconclusive"

    @pytest.mark.slow
    def test_rows_of_one_patient_count_once(self):
        half = ROWS // 2
        *columns, groups = cohort(3)
        copies = [np.tile(column[:half], 2) for column in columns]
        both = np.tile(groups[:, :half], 2)
        only_first = np.where(np.arange(ROWS) < half, both, -1)
        once = compare(*copies, only_first)
        naive = compare(*copies, both)
        twice = positive_sum(
            *copies,
            both,
            num_groups=(3, 2),
            patients=np.tile(np.arange(half), 2),
            num_patients=half,
        )
        np.testing.assert_allclose(twice.group_gains, once.group_gains, atol=1e-5)
        width = [one.group_upper - one.group_gains for one in (once, naive, twice)]
        # Up to the estimates' corrections for small samples.
        np.testing.assert_allclose(width[2], width[0], rtol=0.06)
        assert np.all(width[1] < 0.75 * width[0])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_groups": 3}, "as many numbers"),
            ({"num_groups": (3, 2), "min_positives": 1}, "at least 2"),
            ({"num_groups": (3, 2), "patients": np.arange(ROWS)}, "num_patients"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            positive_sum(*cohort(0), **options)


@pytest.mark.slow
def test_intervals_hold_for_few_patients():
    """Ten to fifteen positives a group, equal models: the true gains are all 0."""
    runs = 600
    rng = np.random.default_rng(4)
    labels = np.arange(ROWS) % 8 == 0
    groups = np.stack([np.arange(ROWS) % 3, np.arange(ROWS) // 2 % 2])
    shared = labels + rng.normal(size=(runs, ROWS))
    model, baseline = (
        (shared + rng.normal(size=shared.shape)).astype(np.float32) for _ in range(2)
    )
    found = jax.vmap(lambda *scores: compare(labels, *scores, groups))(model, baseline)
    limit = 0.025 + 4 * np.sqrt(0.025 / runs)
    too_high = np.mean(np.asarray(found.gain_lower) > 0)
    assert 0.01 < too_high < limit
    assert np.mean(np.asarray(found.worst_lower) > 0) < limit
    assert np.mean(np.asarray(found.verdict) == VERDICTS.index("harmful")) < limit
