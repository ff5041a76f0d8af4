import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy import stats

from fairjax import metrics
from fairjax.metrics import (
    GroupCounts,
    bootstrap_auroc,
    group_auroc,
    group_counts,
    multinomial_bootstrap,
    patient_bootstrap_counts,
    patient_bootstrap_weights,
    stratified_bootstrap_weights,
)

bootstrap_interval = jax.jit(
    metrics.bootstrap_interval, static_argnames=("confidence", "method")
)
COUNTS = GroupCounts(jnp.array([[[40, 10], [6, 14]], [[3, 0], [0, 2]], [[0] * 2] * 2]))


@pytest.mark.slow
@pytest.mark.parametrize("within", ["table", "group", "label"])
def test_resampled_counts_have_multinomial_moments(within):
    drawn = multinomial_bootstrap(
        jax.random.key(0), COUNTS, num_replicates=4000, within=within
    ).counts
    assert drawn.dtype == jnp.int32
    cells = np.asarray(COUNTS.counts, float).reshape(-1)
    rows = {"table": 12, "group": 4, "label": 2}[within]
    blocks = np.arange(12) // rows
    total = np.bincount(blocks, cells)[blocks]
    share = cells / np.maximum(total, 1)
    found = np.asarray(drawn).reshape(-1, 12)
    kept = found.reshape(4000, -1, rows).sum(2)
    np.testing.assert_array_equal(kept, np.broadcast_to(total[::rows], kept.shape))
    np.testing.assert_allclose(found.mean(0), cells, atol=0.35)
    same = blocks[:, None] == blocks
    expected = total * same * (np.diag(share) - np.outer(share, share))
    np.testing.assert_allclose(np.cov(found.T), expected, atol=1.2)
    # A cell without rows is never drawn.
    assert (found[:, cells == 0] == 0).all()


def test_resampled_counts_are_those_of_resampled_rows():
    """The whole law of a small table's cell, against all resamples of its rows."""
    counts = GroupCounts(jnp.array([[[1, 2], [0, 3]]]))
    drawn = multinomial_bootstrap(jax.random.key(1), counts, num_replicates=20_000)
    found = np.bincount(np.asarray(drawn.counts[:, 0, 1, 1]), minlength=7) / 20_000
    expected = stats.binom.pmf(np.arange(7), 6, 0.5)
    np.testing.assert_allclose(found, expected, atol=0.012)


def test_counts_must_be_whole():
    with pytest.raises(ValueError, match="needs integer counts; got float32"):
        multinomial_bootstrap(
            jax.random.key(0), GroupCounts(jnp.ones((1, 2, 2))), num_replicates=2
        )
    with pytest.raises(ValueError, match="num_replicates"):
        multinomial_bootstrap(jax.random.key(0), COUNTS, num_replicates=0)


def test_strata_keep_their_sizes():
    strata = np.array([2, 0, 0, -1, 2, 1, 0, 2])
    weights = np.asarray(
        stratified_bootstrap_weights(
            jax.random.key(0), strata, num_strata=4, num_replicates=4000
        )
    )
    assert weights.dtype == np.int32
    assert (weights[:, 3] == 0).all()
    for stratum, size in enumerate([3, 1, 3, 0]):
        assert (weights[:, strata == stratum].sum(1) == size).all()
    first = weights[:, strata == 0]
    np.testing.assert_allclose(first.mean(0), 1, atol=0.06)
    # Multinomial(3, 1/3).
    np.testing.assert_allclose(np.cov(first.T), np.eye(3) - 1 / 3, atol=0.06)


@pytest.mark.slow
def test_resampled_patients_are_counted_whole():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 40))
    groups, patients = rng.integers(-1, 2, 40), rng.integers(0, 10, 40)
    size = {"num_groups": 2, "num_patients": 10}
    drawn = patient_bootstrap_counts(
        jax.random.key(0), labels, predictions, groups, patients,
        num_replicates=2000, **size,
    )  # fmt: skip
    whole = group_counts(labels, predictions, groups, num_groups=2).counts
    np.testing.assert_allclose(drawn.counts.mean(0), whole, atol=0.35)
    # The variance of a sum over patients drawn with replacement.
    cell = (labels == 1) & (predictions == 1) & (groups == 0)
    of_patient = np.bincount(patients, cell, minlength=10)
    found = np.var(np.asarray(drawn.counts[:, 0, 1, 1]))
    np.testing.assert_allclose(found, 10 * np.var(of_patient), rtol=0.12)


def ranked_rows(rows=120):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, rows), rng.integers(-1, 2, rows)
    scores = (rng.normal(size=rows) + labels).round(1).astype(np.float32)
    return labels, scores, groups


@pytest.mark.slow
def test_auroc_replicates_are_those_of_weights():
    labels, scores, groups = ranked_rows()
    found = bootstrap_auroc(
        jax.random.key(0), labels, scores, groups, num_groups=2, num_replicates=8
    )
    strata = np.where(groups >= 0, 2 * groups + labels, -1)
    for replicate, key in enumerate(jax.random.split(jax.random.key(0), 8)):
        weights = stratified_bootstrap_weights(
            key, strata, num_strata=4, num_replicates=1
        )
        expected = group_auroc(labels, scores, groups, num_groups=2, weights=weights[0])
        np.testing.assert_allclose(found[replicate], expected, rtol=1e-5)


def sorts_in(jaxpr, looped=False):
    """How many sorts a program has before its loops, and how many within them."""
    found = np.zeros(2, int)
    for equation in jaxpr.eqns:
        found[int(looped)] += equation.primitive.name == "sort"
        loops = looped or equation.primitive.name in ("scan", "while")
        for inner in jaxprs_in_params(equation.params):
            found += sorts_in(inner, loops)
    return found


@pytest.mark.parametrize("by_patient", [False, True])
def test_replicates_do_not_sort_again(by_patient):
    labels, scores, groups = ranked_rows()
    patients = {"patients": np.arange(120) // 2, "num_patients": 60}
    program = jax.make_jaxpr(
        lambda key: bootstrap_auroc(
            key,
            labels,
            scores,
            groups,
            num_groups=2,
            num_replicates=40_000,
            **(patients if by_patient else {}),
        )
    )(jax.random.key(0))
    # By group and score, and rows by stratum if they are drawn.
    assert sorts_in(program.jaxpr).tolist() == [1 if by_patient else 2, 0]


@pytest.mark.slow
def test_auroc_of_patients_varies_more_than_of_rows():
    labels, scores, groups = (column.repeat(4) for column in ranked_rows())
    patients = np.arange(120).repeat(4)
    size = {"num_groups": 2, "num_replicates": 300}
    rows = bootstrap_auroc(jax.random.key(0), labels, scores, groups, **size)
    whole = bootstrap_auroc(
        jax.random.key(0), labels, scores, groups, patients=patients, num_patients=120,
        **size,
    )  # fmt: skip
    # Each patient has four copies of a row: twice the standard deviation.
    ratio = np.asarray(whole).std(0) / np.asarray(rows).std(0)
    assert (ratio > 1.6).all()
    assert (ratio < 2.5).all()
    with pytest.raises(ValueError, match="together"):
        bootstrap_auroc(
            jax.random.key(0), labels, scores, groups, patients=patients, **size
        )


@pytest.mark.parametrize(
    ("method", "scipys"), [("percentile", "percentile"), ("basic", "basic")]
)
def test_intervals_are_those_of_scipy(method, scipys):
    rng = np.random.default_rng(0)
    sample = rng.exponential(size=30)
    oracle = stats.bootstrap(
        (sample,), np.mean, n_resamples=999, method=scipys, rng=rng
    )
    found = bootstrap_interval(
        oracle.bootstrap_distribution, np.array(sample.mean()), method=method
    )
    np.testing.assert_allclose(found, oracle.confidence_interval, rtol=1e-5)


def test_bias_corrected_interval_hand_values():
    replicates = np.linspace(0, 1, 2001)
    found = bootstrap_interval(replicates, np.array(0.4), method="bias_corrected")
    shift = 2 * stats.norm.ppf(0.4)
    expected = stats.norm.cdf(shift + np.array([-1.959964, 1.959964]))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_undefined_replicates_are_left_out():
    replicates = np.array([[0.1, 1.0], [np.nan, 2.0], [0.3, 3.0], [0.2, 4.0]])
    estimate = np.array([0.2, np.nan])
    for method in ("percentile", "basic", "bias_corrected"):
        found = bootstrap_interval(replicates, estimate, confidence=0.5, method=method)
        assert 0.1 < found.lower[0] < 0.2 < found.upper[0] < 0.3
        assert np.isnan([found.lower[1], found.upper[1]]).all()


@pytest.mark.slow
def test_bootstrap_draws_whole_patients():
    codes = np.array([0, 3, 1, 1, 2, 0, 3])
    weights = np.asarray(
        patient_bootstrap_weights(
            jax.random.key(0), codes, num_patients=5, num_replicates=4000
        )
    )
    assert weights.dtype == np.int32
    for patient in (0, 1, 3):
        rows = weights[:, codes == patient]
        np.testing.assert_array_equal(rows[:, :1].repeat(rows.shape[1], 1), rows)
    times = weights[:, [0, 2, 4, 1]]
    # Multinomial(5, 1/5): mean 1, variance 5 · .2 · .8, covariance −5 · .2 · .2.
    np.testing.assert_allclose(times.mean(0), 1, atol=0.06)
    expected = np.eye(4) - 0.2
    np.testing.assert_allclose(np.cov(times.T), expected, atol=0.08)
    # Patient 4 has no rows and is drawn all the same.
    assert (times.sum(1) <= 5).all()
    assert (times.sum(1) < 5).any()


def test_bootstrap_sizes_must_be_positive():
    with pytest.raises(ValueError, match="num_patients"):
        patient_bootstrap_weights(
            jax.random.key(0), np.zeros(1, int), num_patients=0, num_replicates=1
        )
