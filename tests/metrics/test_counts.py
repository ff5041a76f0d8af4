import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from sklearn.metrics import confusion_matrix

from fairjax.metrics import GroupCounts, group_counts, merge, predictions_at

NUM_GROUPS = 4


@st.composite
def tables(draw):
    """Labels, predictions, groups (some in none, one group always empty), weights."""
    row = st.tuples(
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(-1, NUM_GROUPS - 2),
        st.integers(0, 3),
    )
    # One length, so that nothing is compiled twice; group -1 makes it shorter.
    rows = draw(st.lists(row, min_size=20, max_size=20))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


@given(tables())
def test_equals_sklearn_confusion_matrix(table):
    labels, predictions, groups, weights = table
    result = group_counts(
        labels, predictions, groups, num_groups=NUM_GROUPS, weights=weights
    ).counts
    expected = np.zeros((NUM_GROUPS, 2, 2), int)
    for group in set(groups) - {-1}:
        at = groups == group
        if weights[at].any():
            expected[group] = confusion_matrix(
                labels[at], predictions[at], sample_weight=weights[at], labels=[0, 1]
            )
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, expected)


@given(tables())
def test_integer_weights_equal_repeated_rows(table):
    *columns, weights = table
    weighted = group_counts(*columns, num_groups=NUM_GROUPS, weights=weights)
    missing = 60 - weights.sum()
    repeated = group_counts(
        *(np.append(np.repeat(c, weights), np.full(missing, -1)) for c in columns),
        num_groups=NUM_GROUPS,
    )
    np.testing.assert_array_equal(weighted.counts, repeated.counts)


@given(tables(), st.sampled_from([0, 1, 7, 20]))
def test_merge_of_parts_is_the_whole(table, cut):
    columns = table[:3]
    parts = [
        group_counts(*(column[part] for column in columns), num_groups=NUM_GROUPS)
        for part in (slice(None, cut), slice(cut, None))
    ]
    whole = group_counts(*columns, num_groups=NUM_GROUPS)
    np.testing.assert_array_equal(merge(*parts).counts, whole.counts)


def test_counts_beyond_the_integers_of_float32_are_exact():
    table = GroupCounts(jnp.full((1, 2, 2), 2**24, jnp.int32))
    one = group_counts(np.ones(1, int), np.ones(1, int), np.zeros(1, int), num_groups=1)
    assert merge(table, one).counts[0, 1, 1] == 2**24 + 1


def test_float_weights_keep_their_type():
    weights = np.array([0.5, 0.25], np.float32)
    counts = group_counts(
        np.array([True, True]),
        np.array([1.0, 1.0]),
        np.array([0, 0]),
        num_groups=1,
        weights=weights,
    ).counts
    assert counts.dtype == jnp.float32
    assert counts[0, 1, 1] == 0.75


def test_values_that_are_not_binary_are_counted_nowhere():
    labels = np.array([1.0, np.nan, 2.0, 0.0])
    predictions = np.array([0.7, 1.0, 1.0, 0.0])
    counts = group_counts(labels, predictions, np.zeros(4, int), num_groups=1).counts
    np.testing.assert_array_equal(counts[0], [[1, 0], [0, 0]])


def test_group_ids_of_a_narrow_type_do_not_overflow():
    groups = np.array([100], np.int8)
    ones = np.ones(1, np.int8)
    counts = group_counts(ones, ones, groups, num_groups=101).counts
    assert counts[100, 1, 1] == 1
    assert counts.sum() == 1


def test_jit_vmap_and_sharded_sum_agree():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 64))
    groups = rng.integers(-1, 3, 64)
    weights = rng.integers(0, 4, (5, 64))

    def count(labels, predictions, groups, weights):
        return group_counts(
            labels, predictions, groups, num_groups=3, weights=weights
        ).counts

    one_by_one = [count(labels, predictions, groups, row) for row in weights]
    mapped = jax.jit(jax.vmap(count, (None, None, None, 0)))(
        labels, predictions, groups, weights
    )
    np.testing.assert_array_equal(mapped, np.stack(one_by_one))

    rows = PartitionSpec("rows")
    axis_types = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((4,), ("rows",), axis_types, devices=jax.devices()[:4])
    local = jax.shard_map(
        lambda *columns: jax.lax.psum(GroupCounts(count(*columns)), "rows"),
        mesh=mesh,
        in_specs=(rows,) * 4,
        out_specs=PartitionSpec(),
    )
    summed = local(labels, predictions, groups, weights[0]).counts
    np.testing.assert_array_equal(summed, one_by_one[0])


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_rows_sharded_over_a_mesh(kind):
    rng = np.random.default_rng(1)
    columns = rng.integers(0, 2, (3, 32))
    axis = getattr(jax.sharding.AxisType, kind)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(axis,))
    sharding = jax.NamedSharding(mesh, PartitionSpec("rows"))
    placed = [jax.device_put(column, sharding) for column in columns]
    with jax.set_mesh(mesh):
        counts = group_counts(*placed, num_groups=2).counts
    expected = group_counts(*columns, num_groups=2).counts
    np.testing.assert_array_equal(counts, expected)


def test_errors_name_the_argument():
    ones = np.ones(3, int)
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        group_counts(ones, ones, ones, num_groups=0)
    with pytest.raises(ValueError, match="over the same groups"):
        merge(GroupCounts(jnp.ones((1, 2, 2))), GroupCounts(jnp.ones((2, 2, 2))))
    with pytest.raises(ValueError, match="over the same groups"):
        merge()


def test_threshold_is_inclusive_and_may_differ_by_group():
    scores = np.array([0.25, 0.5, 0.5, 0.75], np.float32)
    assert predictions_at(scores, 0.5).tolist() == [False, True, True, True]
    by_group = jnp.array([0.25, 0.75])[np.array([0, 1, 0, 1])]
    assert predictions_at(scores, by_group).tolist() == [True, False, True, True]
