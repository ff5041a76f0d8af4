"""The percentile interval that the benchmark calls fairlearn's is fairlearn's."""

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.bench.simulations import percentile_interval
from fairjax.metrics import equal_opportunity_difference, group_counts

pytestmark = pytest.mark.oracle


def test_percentile_interval_of_a_gap():
    from fairlearn.metrics import MetricFrame

    def true_positive_rate(y_true, y_pred):
        """As fairlearn's, which takes longer for each replicate."""
        return y_pred[y_true == 1].mean()

    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 600)
    labels = rng.integers(0, 2, 600)
    predictions = (rng.random(600) < 0.5 + 0.1 * groups * labels).astype(int)
    counts = group_counts(labels, predictions, groups, num_groups=3)
    ours = percentile_interval(
        jax.random.key(0), counts, equal_opportunity_difference, 4000
    )
    frame = MetricFrame(
        metrics=true_positive_rate,
        y_true=labels,
        y_pred=predictions,
        sensitive_features=pd.Series(groups),
        n_boot=100,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    theirs = frame.difference_ci()
    np.testing.assert_allclose(
        equal_opportunity_difference(counts), frame.difference(), rtol=1e-6
    )
    # The Monte Carlo error of a 2.5 % quantile of 100 replicates, of which the standard
    # deviation is .055, is about .015.
    np.testing.assert_allclose(ours, theirs, atol=0.025)
