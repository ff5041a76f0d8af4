import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import metrics
from fairjax.metrics import GroupCounts

# [group, label, prediction]: TN, FP / FN, TP.
COUNTS = GroupCounts(jnp.array([[[10, 2], [2, 6]], [[9, 3], [3, 3]], [[4, 4], [0, 0]]]))
NAN = np.nan
EXPECTED = {
    "selection_rate": [8 / 20, 6 / 18, 4 / 8],
    "true_positive_rate": [6 / 8, 3 / 6, NAN],
    "false_positive_rate": [2 / 12, 3 / 12, 4 / 8],
    "true_negative_rate": [10 / 12, 9 / 12, 4 / 8],
    "false_negative_rate": [2 / 8, 3 / 6, NAN],
    "positive_predictive_value": [6 / 8, 3 / 6, 0.0],
    "negative_predictive_value": [10 / 12, 9 / 12, 1.0],
    "accuracy": [16 / 20, 12 / 18, 4 / 8],
    "prevalence": [8 / 20, 6 / 18, 0.0],
    "error_rate": [4 / 20, 6 / 18, 4 / 8],
    "f1_score": [12 / 16, 6 / 12, 0.0],
    "treatment_ratio": [2 / 2, 3 / 3, 0.0],
    "balanced_accuracy": [(6 / 8 + 10 / 12) / 2, (3 / 6 + 9 / 12) / 2, NAN],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_hand_values(name):
    rate = getattr(metrics, name)
    np.testing.assert_allclose(rate(COUNTS), EXPECTED[name], rtol=1e-6)
    scaled = GroupCounts(COUNTS.counts * 0.5)
    np.testing.assert_allclose(rate(scaled), EXPECTED[name], rtol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_empty_group_has_no_rate(name):
    assert np.isnan(getattr(metrics, name)(GroupCounts(jnp.zeros((1, 2, 2))))).all()


@pytest.mark.slow
def test_batched_and_mapped_and_compiled_agree():
    def rates(counts):
        return {name: getattr(metrics, name)(counts) for name in EXPECTED}

    batch = GroupCounts(jnp.stack([COUNTS.counts, COUNTS.counts[::-1]]))
    for function in (rates, jax.jit(jax.vmap(rates))):
        for name, found in function(batch).items():
            expected = np.stack([EXPECTED[name], EXPECTED[name][::-1]])
            np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_rate_has_its_name_and_is_known_where_it_has_support(name):
    found = metrics.group_rate(COUNTS, name)
    np.testing.assert_array_equal(found, getattr(metrics, name)(COUNTS))
    support = np.asarray(metrics.rate_support(COUNTS, name))
    np.testing.assert_array_equal(np.isnan(found), support == 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", [20, 18, 8]),
        ("positive_predictive_value", [8, 6, 4]),
        ("balanced_accuracy", [8, 6, 0]),
        ("f1_score", [10, 9, 4]),
        ("treatment_ratio", [4, 6, 4]),
    ],
)
def test_support_is_the_rows_that_a_rate_rests_on(name, expected):
    assert metrics.rate_support(COUNTS, name).tolist() == expected


def test_hits_and_trials_give_the_rate():
    shares = set(EXPECTED) - {"balanced_accuracy", "f1_score", "treatment_ratio"}
    assert len(shares) == 10
    for name in shares:
        hits, trials = metrics.rate_trials(COUNTS, name)
        found = np.divide(hits, trials, out=np.full(3, NAN), where=trials > 0)
        np.testing.assert_allclose(found, EXPECTED[name], rtol=1e-6)
    with pytest.raises(ValueError, match="fraction of rows: .*; got 'f1_score'"):
        metrics.rate_trials(COUNTS, "f1_score")


def test_treatment_ratio_is_infinite_or_unknown_without_false_positives():
    counts = GroupCounts(jnp.array([[[5, 0], [2, 6]], [[5, 0], [0, 6]]]))
    assert metrics.treatment_ratio(counts).tolist()[0] == np.inf
    assert np.isnan(metrics.treatment_ratio(counts)[1])


def test_an_unknown_rate_is_an_error():
    for function in (metrics.group_rate, metrics.rate_support, metrics.rate_trials):
        with pytest.raises(ValueError, match="; got 'recall'"):
            function(COUNTS, "recall")


@pytest.mark.parametrize("name", EXPECTED)
def test_double_precision_if_asked(name):
    table = np.asarray(COUNTS.counts)
    with jax.enable_x64(True):
        found = metrics.group_rate(GroupCounts(jnp.asarray(table)), name)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, EXPECTED[name], rtol=1e-15)
