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


@pytest.mark.parametrize("name", EXPECTED)
def test_batched_and_mapped_and_compiled_agree(name):
    rate = getattr(metrics, name)
    batch = GroupCounts(jnp.stack([COUNTS.counts, COUNTS.counts[::-1]]))
    expected = np.stack([EXPECTED[name], EXPECTED[name][::-1]])
    np.testing.assert_allclose(rate(batch), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(rate))(batch), expected, rtol=1e-6)
