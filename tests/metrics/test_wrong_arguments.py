"""What users are told, who have no run-time check of annotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairjax import metrics
from fairjax.metrics import GroupCounts

pytestmark = pytest.mark.usefixtures("untyped")

KEY = jax.random.key(0)
COUNTS = GroupCounts(jnp.array([[[5, 1], [2, 2]], [[4, 2], [1, 3]]]))
ROWS = np.array([0, 1, 1, 0])
SCORES = np.array([0.1, 0.6, 0.5, 0.4], np.float32)
SIZE = {"num_groups": 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics.equalized_odds_difference(COUNTS, agg="min"),
            "agg must be 'max' or 'mean'; got 'min'",
        ),
        (
            lambda: metrics.equalized_odds_ratio(COUNTS, agg="max"),
            "agg must be 'min' or 'mean'; got 'max'",
        ),
        (
            lambda: metrics.conditional(metrics.error_rate_ratio, COUNTS, "worst"),
            "agg must be 'max', 'min' or 'mean'; got 'worst'",
        ),
        (
            lambda: metrics.differential_fairness(COUNTS, of="data"),
            "of must be 'predictions' or 'labels'; got 'data'",
        ),
        (
            lambda: metrics.equity_scaled_auroc(SCORES[0], SCORES, agg="max"),
            "agg must be 'sum' or 'mean'; got 'max'",
        ),
        (
            lambda: metrics.group_calibration_error(
                ROWS, SCORES, ROWS, norm="l2", **SIZE
            ),
            "norm must be 'l1' or 'max'; got 'l2'",
        ),
        (
            lambda: metrics.multinomial_bootstrap(
                KEY, COUNTS, num_replicates=2, within="cell"
            ),
            "within must be 'table', 'group' or 'label'; got 'cell'",
        ),
        (
            lambda: metrics.bootstrap_interval(SCORES, SCORES[0], method="bca"),
            "method must be 'percentile', 'basic' or 'bias_corrected'; got 'bca'",
        ),
        (
            lambda: metrics.permutation_null(
                KEY, ROWS, ROWS, ROWS, num_permutations=2, within=True, **SIZE
            ),
            "within must be 'label', 'prediction' or None; got True",
        ),
        (
            lambda: metrics.cluster_permutation_null(
                KEY, ROWS, ROWS, ROWS, ROWS, num_permutations=2, within="row", **SIZE
            ),
            "within must be 'label', 'prediction' or None; got 'row'",
        ),
        (
            lambda: metrics.by_group(ROWS, ROWS, ROWS, compat="oxonfair"),
            "compat must be None, 'fairlearn' or 'aif360'; got 'oxonfair'",
        ),
        (
            lambda: metrics.gap_table(ROWS, ROWS, ROWS, compat="oxonfair"),
            "compat must be None, 'fairlearn' or 'aif360'; got 'oxonfair'",
        ),
        (
            lambda: metrics.worst_intersections(
                KEY, ROWS, ROWS, ROWS[None], num_levels=(2,), worse="less"
            ),
            "worse must be 'lower' or 'higher'; got 'less'",
        ),
    ],
)
def test_unknown_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()


LONGER = np.zeros(5, int)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.group_counts(ROWS, ROWS, LONGER, **SIZE),
        lambda: metrics.multilabel_counts(ROWS[:, None], ROWS[:, None], LONGER, **SIZE),
        lambda: metrics.group_auroc(ROWS, SCORES, LONGER, **SIZE),
        lambda: metrics.group_auprc(ROWS, SCORES, ROWS, weights=LONGER, **SIZE),
        lambda: metrics.grouped_score_order(SCORES, LONGER, **SIZE),
        lambda: metrics.group_brier(LONGER, SCORES, ROWS, **SIZE),
        lambda: metrics.delong(ROWS, SCORES, LONGER, **SIZE),
        lambda: metrics.delong(
            ROWS, SCORES, ROWS, patients=LONGER, num_patients=9, **SIZE
        ),
        lambda: metrics.entropy_split(ROWS, ROWS, LONGER, **SIZE),
        lambda: metrics.influence_variance(SCORES, LONGER, **SIZE),
        lambda: metrics.positive_sum(ROWS, SCORES, SCORES, LONGER, **SIZE),
        lambda: metrics.bootstrap_auroc(
            KEY, ROWS, SCORES, LONGER, num_replicates=2, **SIZE
        ),
        lambda: metrics.worst_intersections(
            KEY, ROWS, ROWS, LONGER[None], num_levels=(2,)
        ),
    ],
)
def test_columns_of_other_lengths(call):
    with pytest.raises(ValueError, match=r"of one length; got {.*\(5,\)"):
        call()


@pytest.mark.slow
def test_lists_are_columns():
    labels, groups = ROWS.tolist(), [0, 0, 1, 1]
    found = metrics.group_counts(labels, labels, groups, **SIZE).counts
    assert found.tolist() == [[[1, 0], [0, 1]]] * 2
    found = metrics.one_vs_rest_counts(labels, labels, groups, num_classes=2, **SIZE)
    assert found.counts[1].tolist() == [[[1, 0], [0, 1]]] * 2
    nested = [[label] for label in labels]
    found = metrics.multilabel_counts(nested, nested, groups, **SIZE)
    assert found.counts[0].tolist() == [[[1, 0], [0, 1]]] * 2
    areas = metrics.group_auroc(labels, SCORES.tolist(), groups, **SIZE)
    assert areas.tolist() == [1, 1]


@pytest.mark.slow
def test_numbers_of_numpy_and_margins_that_are_known():
    labels = np.arange(40) % 2
    scores = np.linspace(0, 1, 40, dtype=np.float32)
    columns = (labels, scores, scores[::-1].copy(), np.arange(40) // 2 % 2)
    one, other = (
        metrics.positive_sum(*columns, num_groups=number) for number in (np.int64(2), 2)
    )
    np.testing.assert_array_equal(one.group_gains, other.group_gains)
    with pytest.raises(ValueError, match="margin must be at least 0; got -0.5"):
        metrics.positive_sum(*columns, margin=jnp.array(-0.5), **SIZE)


def test_weighted_counts_have_no_posterior():
    with pytest.raises(ValueError, match="posterior of rates needs integer counts"):
        metrics.posterior_rates(GroupCounts(COUNTS.counts * 100.0))
