import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from fairjax.metrics import (
    GroupCounts,
    conditional_counts,
    group_counts,
    merge,
    multilabel_counts,
    one_vs_rest_counts,
    predictions_at,
)

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_group_ids_of_a_narrow_type_do_not_overflow():
    groups = np.array([100], np.int8)
    ones = np.ones(1, np.int8)
    counts = group_counts(ones, ones, groups, num_groups=101).counts
    assert counts[100, 1, 1] == 1
    assert counts.sum() == 1


@pytest.mark.slow
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


@pytest.mark.parametrize("num_groups", [2, 60])
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_rows_sharded_over_a_mesh(kind, num_groups):
    rng = np.random.default_rng(1)
    columns = [*rng.integers(0, 2, (2, 4096)), rng.integers(-1, num_groups, 4096)]
    axis = getattr(jax.sharding.AxisType, kind)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(axis,))
    sharding = jax.NamedSharding(mesh, PartitionSpec("rows"))
    placed = [jax.device_put(column, sharding) for column in columns]
    with jax.set_mesh(mesh):
        counts = group_counts(*placed, num_groups=num_groups).counts
    expected = group_counts(*columns, num_groups=num_groups).counts
    np.testing.assert_array_equal(counts, expected)


def test_a_float_total_of_many_rows_keeps_its_digits():
    # Added one by one in float32, ones stop counting at 2^24.
    weights = np.ones(100_000, np.float32)
    weights[0] = 2**24
    zeros = np.zeros(100_000, np.int8)
    counts = group_counts(zeros, zeros, zeros, num_groups=1, weights=weights).counts
    np.testing.assert_allclose(counts[0, 0, 0], 2**24 + 99_999, rtol=1e-4)


@pytest.mark.parametrize("num_groups", [60, 5000])
def test_memory_does_not_grow_with_groups(num_groups):
    rows = 20_000
    column = jax.ShapeDtypeStruct((rows,), jnp.int32)
    count = jax.jit(lambda *columns: group_counts(*columns, num_groups=num_groups))
    memory = count.lower(column, column, column).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 40 * rows + 16 * 4 * num_groups


@pytest.mark.parametrize("how", ["vmap", "scan"])
def test_many_groups_count_alike_under(how):
    rng = np.random.default_rng(3)
    labels, predictions = rng.integers(0, 2, (2, 3, 3000))
    groups = rng.integers(-1, 301, (3, 3000))

    def count(columns):
        return group_counts(*columns, num_groups=300).counts

    expected = np.zeros((3, 302, 2, 2), int)
    batch = np.arange(3)[:, None]
    np.add.at(expected, (batch, groups, labels, predictions), 1)
    mapped = jax.vmap if how == "vmap" else (lambda f: lambda x: jax.lax.map(f, x))
    found = mapped(count)((labels, predictions, groups))
    np.testing.assert_array_equal(found, expected[:, :300])


def test_integer_counts_under_x64():
    one = np.ones(2, np.int32)
    with jax.enable_x64(True):
        heavy = np.full(2, 2**31 - 1, np.int32)
        counts = group_counts(one, one, one, num_groups=2, weights=heavy).counts
        assert int(counts[1, 1, 1]) == 2**32 - 2


@pytest.mark.slow
@given(tables(), st.lists(st.integers(0, 3), min_size=20, max_size=20))
def test_one_vs_rest_equals_sklearn(table, values):
    groups, weights = table[2:]
    # Class 3 is declared neither as a label nor as a prediction.
    labels, predictions = np.array(values), np.array(values[::-1])
    found = one_vs_rest_counts(
        labels,
        predictions,
        groups,
        num_groups=NUM_GROUPS,
        num_classes=3,
        weights=weights,
    ).counts
    known = (labels < 3) & (predictions < 3)
    expected = np.zeros((3, NUM_GROUPS, 2, 2), int)
    for group in range(NUM_GROUPS):
        at = known & (groups == group)
        if weights[at].any():
            expected[:, group] = multilabel_confusion_matrix(
                labels[at], predictions[at], sample_weight=weights[at], labels=range(3)
            )
    np.testing.assert_array_equal(found, expected)


def test_one_vs_rest_keeps_the_digits_of_float_weights():
    labels, predictions = np.array([0, 1, 2]), np.array([0, 1, 1])
    weights = np.array([1e8, 1e8, 1.0], np.float32)
    zeros = np.zeros(3, int)
    counts = one_vs_rest_counts(
        labels, predictions, zeros, num_groups=1, num_classes=3, weights=weights
    ).counts
    assert counts[2, 0].tolist() == [[2e8, 0.0], [1.0, 0.0]]


@pytest.mark.slow
@given(tables())
def test_multilabel_counts_are_those_of_each_outcome(table):
    labels, predictions, groups, weights = table
    # The second outcome is unknown for some rows.
    both = np.stack([labels, np.where(weights > 1, -1, predictions)], axis=1)
    guessed = np.stack([predictions, labels], axis=1)
    found = multilabel_counts(
        both, guessed, groups, num_groups=NUM_GROUPS, weights=weights
    ).counts
    for outcome in range(2):
        alone = group_counts(
            both[:, outcome],
            guessed[:, outcome],
            groups,
            num_groups=NUM_GROUPS,
            weights=weights,
        )
        np.testing.assert_array_equal(found[outcome], alone.counts)


@pytest.mark.slow
@given(tables(), st.lists(st.integers(-1, 2), min_size=20, max_size=20))
def test_conditional_counts_are_those_of_each_stratum(table, strata):
    strata = np.array(strata)
    labels, predictions, groups, weights = table
    found = conditional_counts(
        labels,
        predictions,
        groups,
        strata,
        num_groups=NUM_GROUPS,
        num_strata=2,
        weights=weights,
    ).counts
    for stratum in range(2):
        alone = group_counts(
            labels,
            predictions,
            np.where(strata == stratum, groups, -1),
            num_groups=NUM_GROUPS,
            weights=weights,
        )
        np.testing.assert_array_equal(found[stratum], alone.counts)


def test_errors_name_the_argument():
    ones = np.ones(3, int)
    with pytest.raises(ValueError, match="num_strata must be at least 1"):
        conditional_counts(ones, ones, ones, ones, num_groups=1, num_strata=0)
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        one_vs_rest_counts(ones, ones, ones, num_groups=1, num_classes=1)
    with pytest.raises(ValueError, match="num_groups must be at least 1"):
        group_counts(ones, ones, ones, num_groups=0)
    with pytest.raises(ValueError, match="over the same groups; got shapes"):
        merge(GroupCounts(jnp.ones((1, 2, 2))), GroupCounts(jnp.ones((2, 2, 2))))
    with pytest.raises(ValueError, match="over the same groups; got shapes"):
        merge()


def test_threshold_is_inclusive_and_may_differ_by_group():
    scores = np.array([0.25, 0.5, 0.5, 0.75], np.float32)
    assert predictions_at(scores, 0.5).tolist() == [False, True, True, True]
    by_group = jnp.array([0.25, 0.75])[np.array([0, 1, 0, 1])]
    assert predictions_at(scores, by_group).tolist() == [True, False, True, True]


def test_a_missing_class_is_counted_nowhere(untyped):
    found = one_vs_rest_counts(
        np.array([0.0, np.nan, 1.0, 2.0, 0.4]),
        np.array([0.0, 0.0, 1.0, 2.0, 0.0]),
        np.zeros(5, int),
        num_groups=1,
        num_classes=3,
    )
    assert found.counts[:, 0].tolist() == [[[2, 0], [0, 1]]] * 3
