import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fairjax.metrics import paired_test, patient_bootstrap_weights
from fairjax.metrics._numbers import student_t_quantile, student_t_tails


def test_paired_test_hand_values():
    repeats = np.array([0.02, 0.04, 0.06], np.float32)
    replicates = np.array([0.02, 0.04, 0.06, 0.08], np.float32)
    test = jax.jit(functools.partial(paired_test, confidence=0.9))(repeats, replicates)
    error = np.sqrt(0.002 / 3 + 0.0004 / 3)
    np.testing.assert_allclose(test.difference, 0.04, rtol=1e-5)
    np.testing.assert_allclose(test.standard_error, error, rtol=1e-5)
    # Variances .002/3 of 3 degrees and .0004/3 of 2, Satterthwaite: 5/6 and 1/6 of all.
    degrees = 1 / ((5 / 6) ** 2 / 3 + (1 / 6) ** 2 / 2)
    np.testing.assert_allclose(test.degrees_of_freedom, degrees, rtol=1e-4)
    interval = stats.t.interval(0.9, degrees, 0.04, error)
    np.testing.assert_allclose((test.lower, test.upper), interval, rtol=1e-4)
    p_value = 2 * stats.t.sf(0.04 / error, degrees)
    np.testing.assert_allclose(test.p_value, p_value, rtol=1e-4)


@pytest.mark.slow
def test_t_distribution_is_scipys():
    confidence = np.array([0.5, 0.95, 0.9999])[:, None]
    degrees = np.array([1.0, 1.7, 4.0, 19.0, 518.0])
    tail = jnp.array((1 - confidence) / 2)
    found = jax.jit(student_t_quantile)(tail, jnp.array(degrees))
    expected = stats.t.ppf(0.5 + confidence / 2, degrees)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    score = np.array([0.0, 0.3, 2.0, 9.0])[:, None]
    tails = jax.jit(student_t_tails)(jnp.array(score), jnp.array(degrees))
    np.testing.assert_allclose(tails, 2 * stats.t.sf(score, degrees), rtol=2e-3)


@pytest.mark.slow
def test_few_repeats_that_vary_do_not_pretend_to_be_many():
    """Where splits are all of the noise, tests of two repeats keep their level."""

    def run(key):
        differences = jax.random.normal(key, (2,))
        return paired_test(differences, jnp.full(200, differences.mean())).p_value

    p_values = jax.vmap(run)(jax.random.split(jax.random.key(1), 2000))
    assert 0.03 < np.mean(np.asarray(p_values) < 0.05) < 0.07


@pytest.mark.slow
def test_paired_test_keeps_tiny_p_values_and_knows_identical_methods():
    replicates = np.linspace(7.5, 12.5, 400)
    far = paired_test(np.array([10.0, 10.0]), replicates)
    score = 10 / np.std(replicates, ddof=1)
    np.testing.assert_allclose(far.p_value, 2 * stats.t.sf(score, 399), rtol=1e-2)
    same = paired_test(np.zeros(3), np.zeros(5))
    assert (same.p_value, same.lower, same.upper) == (1, 0, 0)


@pytest.mark.slow
def test_repeats_on_shared_patients_are_not_independent():
    runs, patients, repeats, replicates = 300, 80, 10, 200

    def run(key):
        keys = jax.random.split(key, 4)
        # No true difference; a patient's own effect is shared by all repeats.
        patient = jax.random.normal(keys[0], (patients, 1))
        split = 0.1 * jax.random.normal(keys[1], (1, repeats))
        noise = 0.3 * jax.random.normal(keys[2], (patients, repeats))
        differences = patient + split + noise
        weights = patient_bootstrap_weights(
            keys[3],
            jnp.arange(patients),
            num_patients=patients,
            num_replicates=replicates,
        )
        boot = weights @ differences.mean(1) / patients
        return paired_test(differences.mean(0), boot).p_value, differences.mean(0)

    keys = jax.random.split(jax.random.key(0), runs)
    p_values, differences = jax.jit(jax.vmap(run))(keys)
    naive = stats.ttest_1samp(np.asarray(differences), 0, axis=1).pvalue
    assert 0.01 < np.mean(np.asarray(p_values) < 0.05) < 0.09
    assert np.mean(naive < 0.05) > 0.3


@pytest.mark.parametrize(
    ("repeats", "replicates", "confidence", "message"),
    [
        (1, 5, 0.95, "at least two repeats .*; got 1 and 5"),
        (5, 1, 0.95, "at least two repeats .*; got 5 and 1"),
        (5, 5, 1.0, r"confidence must lie in \(0, 1\); got 1.0"),
    ],
)
def test_paired_test_errors(repeats, replicates, confidence, message):
    with pytest.raises(ValueError, match=message):
        paired_test(np.zeros(repeats), np.zeros(replicates), confidence=confidence)
