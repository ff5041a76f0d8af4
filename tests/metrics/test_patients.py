"""Patients' codes: what is refused, and what is NaN where it is only traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import metrics

ROWS, PATIENTS = 60, 20
RNG = np.random.default_rng(0)
LABELS, HITS = RNG.integers(0, 2, (2, ROWS))
SCORES = RNG.random(ROWS).astype(np.float32)
GROUPS = np.arange(ROWS) % 2
CODES = np.arange(ROWS) // 4 % PATIENTS
KEY = jax.random.key(0)
SIZE = {"num_groups": 2, "num_patients": PATIENTS}

# Each maps codes to what must be NaN for the groups that the codes touch: [G, ...].
CALLS = {
    "delong": lambda p: (
        metrics.delong(LABELS, SCORES, GROUPS, patients=p, **SIZE).covariance
    ),
    "delong_joint": lambda p: jnp.diagonal(
        metrics.delong_joint(LABELS, SCORES, GROUPS, p, **SIZE).covariance[0, :, 0]
    ),
    "cluster_rate_covariance": lambda p: jnp.diagonal(
        metrics.cluster_rate_covariance(
            HITS, np.ones(ROWS), GROUPS, p, **SIZE
        ).covariance
    ),
    "cluster_interval": lambda p: (
        metrics.cluster_interval(
            metrics.cluster_rate_covariance(HITS, np.ones(ROWS), GROUPS, p, **SIZE)
        ).lower
    ),
    "cluster_label_rates": lambda p: (
        metrics.cluster_label_rates(LABELS, HITS, GROUPS, p, **SIZE)
        .trials.reshape(2, 2)
        .sum(0)
    ),
    "influence_variance": lambda p: metrics.influence_variance(
        SCORES - 0.5, GROUPS, patients=p, **SIZE
    ),
    "logistic_recalibration": lambda p: (
        metrics.logistic_recalibration(
            LABELS, SCORES, GROUPS, patients=p, **SIZE
        ).slope_se
    ),
    "bootstrap_auroc": lambda p: (
        metrics.bootstrap_auroc(
            KEY, LABELS, SCORES, GROUPS, num_replicates=2, patients=p, **SIZE
        ).T
    ),
    "patient_bootstrap_counts": lambda p: (
        metrics.true_positive_rate(
            metrics.patient_bootstrap_counts(
                KEY, LABELS, HITS, GROUPS, p, num_replicates=2, **SIZE
            )
        ).T
    ),
    "patient_bootstrap_weights": lambda p: metrics.group_auroc(
        LABELS,
        SCORES,
        GROUPS,
        num_groups=2,
        weights=metrics.patient_bootstrap_weights(
            KEY, p, num_patients=PATIENTS, num_replicates=1
        )[0],
    ),
    "positive_sum": lambda p: (
        metrics.positive_sum(
            LABELS, SCORES, SCORES**2, GROUPS, patients=p, min_positives=2, **SIZE
        ).group_lower
    ),
}
# Whose resamples are of all patients at once.
JOINT = ("bootstrap_auroc", "patient_bootstrap_counts", "patient_bootstrap_weights")


@pytest.mark.parametrize("name", CALLS)
def test_codes_out_of_range(name):
    """Record numbers passed for codes would otherwise be dropped, or be another's."""
    for wrong, what in ((5 * CODES, "such as 20"), (CODES - 1, "such as -1")):
        message = rf"here 0 \.\. 19; got \d+ of {ROWS} outside, {what}\. Number"
        with pytest.raises(ValueError, match=message):
            CALLS[name](wrong)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name == "influence_variance" else pytest.mark.slow
        )
        for name in CALLS
    ],
)
def test_codes_out_of_range_where_they_are_traced(name):
    traced = jax.jit(CALLS[name])
    assert not np.isnan(traced(CODES)).any()
    for wrong in (-1, PATIENTS):
        spoilt = np.asarray(traced(np.where(np.arange(ROWS) == 3, wrong, CODES)))
        assert np.isnan(spoilt[1]).all()
        assert np.isnan(spoilt[0]).all() == (name in JOINT)


def test_a_great_code_does_not_wrap_around():
    """As an int32, 2**32 + 3 would be patient 3."""
    with pytest.raises(ValueError, match="such as 4294967299"):
        CALLS["delong"](CODES.astype(np.int64) + 2**32 + 3)


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(metrics.delong, LABELS, SCORES, GROUPS),
        functools.partial(metrics.influence_variance, SCORES, GROUPS),
        functools.partial(metrics.logistic_recalibration, LABELS, SCORES, GROUPS),
        functools.partial(
            metrics.bootstrap_auroc, KEY, LABELS, SCORES, GROUPS, num_replicates=2
        ),
        functools.partial(metrics.positive_sum, LABELS, SCORES, SCORES, GROUPS),
    ],
)
def test_patients_come_with_their_number(call):
    for given in ({"patients": CODES}, {"num_patients": PATIENTS}):
        with pytest.raises(ValueError, match="Give patients and num_patients together"):
            call(num_groups=2, **given)
    with pytest.raises(ValueError, match="num_patients must be at least 1; got 0"):
        call(num_groups=2, patients=CODES, num_patients=0)


def test_negative_codes_of_patients_that_exchange_groups():
    message = "at least 0; got 4 negative codes in 60 rows"
    for call in (metrics.cluster_permutation_null, metrics.score_permutation_null):
        columns = (LABELS, SCORES if "score" in call.__name__ else HITS, CODES % 2)
        with pytest.raises(ValueError, match=message):
            call(KEY, *columns, num_groups=2, num_permutations=9, patients=CODES - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["delong", "cluster_rate_covariance", "logistic_recalibration", "positive_sum"],
)
def test_patients_in_no_group_change_nothing(name, monkeypatch):
    monkeypatch.setitem(SIZE, "num_patients", PATIENTS + 1)
    run = jax.jit(lambda codes: CALLS[name](codes))  # Its trace is this test's own.
    before = run(CODES)
    added = 12
    here = globals()
    columns = {"LABELS": LABELS, "HITS": HITS, "SCORES": SCORES}
    for column, values in columns.items():
        monkeypatch.setitem(here, column, np.append(values, values[:added]))
    monkeypatch.setitem(here, "GROUPS", np.append(GROUPS, np.full(added, -1)))
    monkeypatch.setitem(here, "ROWS", ROWS + added)
    after = run(np.append(CODES, np.full(added, PATIENTS)))
    np.testing.assert_allclose(after, before, rtol=1e-5)
