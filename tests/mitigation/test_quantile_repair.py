"""Quantile repair: by hand, in general, and what becomes of odd values."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from fairjax.mitigation import quantile_repair
from fairjax.mitigation.distances import distribution_distances
from fairjax.mitigation.quantile_repair import group_quantiles, repair

A_B = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])[:, None]
GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def repaired(x, groups, *, level=1.0, number=None, discrete=None, new=None, **options):
    """In float64: learnt from one table, applied to it or to another."""
    with jax.enable_x64(True):
        groups = jnp.asarray(groups, jnp.int32)
        learnt = group_quantiles(
            jnp.asarray(x, jnp.float64),
            groups,
            # Of the third there may be no rows: one program of small tables.
            num_groups=max(3, int(groups.max()) + 1),
            num_quantiles=number or max(2, len(x)),
            discrete=None if discrete is None else jnp.asarray(discrete),
        )
        x, groups = (x, groups) if new is None else new
        found = repair(
            jnp.asarray(x, jnp.float64),
            jnp.asarray(groups, jnp.int32),
            learnt,
            level=level,
            **options,
        )
        return np.asarray(found)


@pytest.mark.parametrize(
    ("level", "scale", "expected"),
    [
        (0.0, "value", [11, 12, 13, 14]),
        (0.5, "value", [6, 7, 8, 9]),
        (1.0, "value", [1, 2, 3, 4]),
        (0.0, "rank", [11, 12, 13, 14]),
        # As BlackBoxAuditing has it.
        (0.5, "rank", [3, 4, 11, 12]),
        (1.0, "rank", [1, 2, 3, 4]),
    ],
)
def test_two_groups_by_hand(level, scale, expected):
    found = repaired(A_B, GROUPS, level=level, scale=scale)
    np.testing.assert_allclose(found[:4, 0], [1, 2, 3, 4], atol=1e-12)
    np.testing.assert_allclose(found[4:, 0], expected, atol=1e-12)


# Of one shape, so that all examples are one compiled program.
tables = hnp.arrays(
    np.float64, (3, 6), elements=st.integers(-40, 40).map(float), unique=True
)


@pytest.mark.slow
@settings(max_examples=10)
@given(tables)
def test_level_1_makes_groups_equal_and_0_changes_nothing(table):
    groups = np.repeat(np.arange(3), table.shape[1])
    x = table.reshape(-1, 1)
    found = repaired(x, groups, number=table.shape[1])
    ordered = np.sort(found.reshape(table.shape), axis=1)
    np.testing.assert_allclose(ordered[0], ordered[1], atol=1e-9)
    np.testing.assert_allclose(ordered[0], ordered[2], atol=1e-9)
    # The lower median of three is the middle one.
    np.testing.assert_allclose(ordered[0], np.median(np.sort(table, 1), axis=0))
    for scale in ("value", "rank"):
        same = repaired(x, groups, level=0.0, scale=scale)
        np.testing.assert_array_equal(same, x)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    hnp.arrays(np.float64, 14, elements=st.integers(-9, 9).map(float)),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from(["value", "rank"]),
    st.booleans(),
)
def test_the_order_within_a_group_is_kept(x, level, scale, discrete):
    groups = np.array([0] * 9 + [1] * 5)
    found = repaired(
        x[:, None], groups, level=level, scale=scale, discrete=[discrete], number=9
    )[:, 0]
    for group in range(2):
        own = np.argsort(x[groups == group], kind="stable")
        ordered = found[groups == group][own]
        assert (np.diff(ordered) >= -1e-9).all()
        # Equal values of a group stay equal.
        ties = np.diff(x[groups == group][own]) == 0
        assert (np.abs(np.diff(ordered)[ties]) < 1e-12).all()


@pytest.mark.slow
def test_values_of_discrete_features_are_observed_ones():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (300, 1)).astype(float)
    groups = rng.integers(0, 3, 300)
    x[groups == 1] = np.minimum(x[groups == 1] + 2, 4)
    for scale in ("value", "rank"):
        found = repaired(x, groups, discrete=[True], scale=scale)
        assert set(np.unique(found)) <= set(range(5))


@pytest.mark.slow
def test_random_ties_make_binary_features_equal_in_distribution():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 4000)
    x = (rng.random(12000) < np.array([0.2, 0.4, 0.7])[groups]).astype(float)[:, None]
    key = jax.random.key(0)
    options = {"discrete": [True], "number": 1000}
    found = repaired(x, groups, ties="random", key=key, **options)
    shares = [found[groups == g].mean() for g in range(3)]
    np.testing.assert_allclose(shares, 0.4, atol=0.03)
    again = repaired(x, groups, ties="random", key=key, **options)
    np.testing.assert_array_equal(found, again)
    # In the middle of its ranks a value moves with all of its patients or not at all.
    middle = repaired(x, groups, **options)
    for group in range(3):
        for value in (0, 1):
            rows = (groups == group) & (x[:, 0] == value)
            assert len(np.unique(middle[rows])) == 1


@pytest.mark.slow
def test_missing_values_stay_missing_and_move_nothing():
    x = np.array([1.0, 2, 3, np.nan, 11, 12, 13, np.nan])[:, None]
    found = repaired(x, GROUPS)
    assert np.isnan(found[[3, 7]]).all()
    known = np.delete(found, [3, 7], 0)
    np.testing.assert_allclose(known[:, 0], [1, 2, 3, 1, 2, 3])


@pytest.mark.slow
def test_a_group_without_values_of_a_feature_has_no_say_and_is_left():
    x = np.array([1.0, 2, 11, 12, np.nan, np.nan])[:, None]
    found = repaired(x, [0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(found[:4, 0], [1, 2, 1, 2])
    later = repaired(x, [0, 0, 1, 1, 2, 2], new=(np.array([[7.0]]), np.array([2])))
    assert later == 7


def test_values_beyond_those_learnt_take_the_ends():
    # As many rows as were learnt from, so that they share a program.
    new = np.resize([-5.0, 99.0, 12.5], (8, 1)), np.full(8, 1)
    found = repaired(A_B, GROUPS, new=new)
    np.testing.assert_allclose(found[:3, 0], [1, 4, 2.5], atol=1e-12)


def test_rows_of_all_groups_together_are_ranked_among_all():
    new = np.resize([4.0, 11.0], (8, 1)), np.full(8, 3)
    found = repaired(A_B, GROUPS, number=8, new=new)
    # Places 3 and 4 of 7, in a common distribution from 1 to 4.
    np.testing.assert_allclose(found[:2, 0], [1 + 3 * 3 / 7, 1 + 3 * 4 / 7])


@pytest.mark.slow
def test_features_are_repaired_one_by_one():
    x, groups, discrete = odd_tables(60)
    together = repaired(x, groups, level=0.5, number=20, discrete=discrete)
    for column in range(4):
        # One feature four times, so that all tables are one compiled program.
        same = [column] * 4
        alone = repaired(
            x[:, same], groups, level=0.5, number=20, discrete=discrete[same]
        )
        np.testing.assert_array_equal(together[:, same], alone)


def test_a_constant_feature_stays():
    np.testing.assert_array_equal(repaired(np.full((8, 1), 3.0), GROUPS), 3)


def odd_tables(rows, seed=0):
    """Ties, missing values, zeros of both signs and a group without values."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, rows)
    x = rng.normal(size=(rows, 4)) + groups[:, None]
    x[:, 1] = np.round(2 * x[:, 1])
    x[:, 2] = rng.choice([-0.0, 0.0, 1e-320, -1.0], rows)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[groups == 3, 3] = np.nan
    return x, groups, np.array([False, True, True, False])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "number"),
    [(1, 2), (37, 5)],
)
def test_rows_and_quantiles_that_fill_up_change_nothing(monkeypatch, rows, number):
    x, groups, discrete = odd_tables(rows)

    def learnt():
        with jax.enable_x64(True):
            arrays = jnp.asarray(x), jnp.asarray(groups)
            return group_quantiles(
                *arrays,
                num_groups=4,
                num_quantiles=number,
                discrete=jnp.asarray(discrete),
            )

    filled = learnt()
    for name in ("_filled", "_power_of_two"):
        monkeypatch.setattr(quantile_repair, name, lambda number: number)
    for mine, other in zip(filled, learnt(), strict=True):
        np.testing.assert_array_equal(mine, other)
        known = ~np.isnan(mine)
        np.testing.assert_array_equal(np.signbit(mine)[known], np.signbit(other)[known])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "ties", "scale"),
    [(64, "random", "rank"), (1024, "middle", "value")],
)
def test_blocks_and_filled_up_tables_change_nothing(monkeypatch, scale, ties, block):
    x, groups, discrete = odd_tables(300)
    new, to, _ = odd_tables(200, seed=1)
    to[::5] = 4
    options = {"level": 0.7, "scale": scale, "ties": ties, "key": jax.random.key(0)}
    with jax.enable_x64(True):
        learnt = group_quantiles(
            jnp.asarray(x),
            jnp.asarray(groups),
            num_groups=4,
            num_quantiles=41,
            discrete=jnp.asarray(discrete),
        )

        def repaired(rows):
            arrays = jnp.asarray(new[rows]), jnp.asarray(to[rows])
            return np.asarray(repair(*arrays, learnt, **options))

        whole = repaired(slice(None))
        monkeypatch.setattr(quantile_repair, "_BLOCK", block)
        found = repaired(slice(None))
        # Neither do the rows that follow.
        first = repaired(slice(50))
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(first, found[:50])


@pytest.mark.slow
def test_tables_of_nearly_the_same_size_share_a_program():
    x, groups, discrete = odd_tables(120)
    programs = []
    for rows in (120, 113, 105):
        part, who = jnp.asarray(x[:rows], jnp.float32), jnp.asarray(groups[:rows])
        learnt = group_quantiles(
            part,
            who,
            num_groups=4,
            num_quantiles=rows // 3,
            discrete=jnp.asarray(discrete),
        )
        repair(part, who, learnt)
        programs.append(
            (quantile_repair._learn._cache_size(), quantile_repair._move._cache_size())
        )
    assert programs[0] == programs[1] == programs[2]


@pytest.mark.slow
def test_draws_follow_the_patient():
    x, groups, _ = odd_tables(60)
    patients = jnp.arange(60)
    options = {"ties": "random", "key": jax.random.key(0)}
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(groups)
    learnt = group_quantiles(*arrays, num_groups=4, num_quantiles=9)
    found = repair(*arrays, learnt, patients=patients, **options)
    np.testing.assert_array_equal(found, repair(*arrays, learnt, **options))
    turned = [array[::-1] for array in arrays]
    again = repair(*turned, learnt, patients=patients[::-1], **options)
    np.testing.assert_array_equal(again[::-1], found)


@pytest.mark.parametrize("groups", [[0, -1], [0, 3]])
def test_groups_out_of_range_are_not_taken_for_others(groups):
    groups = np.resize(np.int32(groups), 8)
    options = {"num_groups": 3, "num_quantiles": 8}
    with jax.enable_x64(True):
        x = jnp.asarray(A_B)
        with pytest.raises(ValueError, match="groups must lie in 0 .. 2; got"):
            group_quantiles(x, jnp.asarray(groups), **options)
        learnt = group_quantiles(x, jnp.asarray(GROUPS, jnp.int32), **options)
        with pytest.raises(ValueError, match="groups must lie in 0 .. 3; got"):
            repair(x, jnp.asarray(groups * 2 - 1), learnt)


@pytest.mark.slow
def test_learning_and_repair_within_jit():
    x, groups, discrete = odd_tables(60)

    @jax.jit
    def both(x, groups, discrete):
        learnt = group_quantiles(
            x, groups, num_groups=4, num_quantiles=20, discrete=discrete
        )
        return repair(x, groups, learnt, level=0.5)

    with jax.enable_x64(True):
        found = both(*map(jnp.asarray, (x, groups, discrete)))
    expected = repaired(x, groups, level=0.5, number=20, discrete=discrete)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_distances_are_scipys():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 200)
    x = rng.normal(size=(200, 2)).round(1) + 0.3 * groups[:, None]
    x[:5, 0] = np.nan
    smirnov, wasserstein = distribution_distances(x, groups, num_groups=3)
    for column in range(2):
        values = x[:, column]
        parts = [values[(groups == g) & ~np.isnan(values)] for g in range(3)]
        pairs = [(parts[a], parts[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
        expected = max(stats.ks_2samp(*pair).statistic for pair in pairs)
        assert smirnov[column] == pytest.approx(expected)
        expected = max(stats.wasserstein_distance(*pair) for pair in pairs)
        assert wasserstein[column] == pytest.approx(expected / np.nanstd(values))


@pytest.mark.slow
def test_distances_of_many_groups_take_little_memory():
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(30_000, 1)), rng.integers(0, 150, 30_000)
    x[groups == 149] += 0.5
    tracemalloc.start()
    smirnov, wasserstein = distribution_distances(x, groups, num_groups=150)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The pairs at every value would be 5 GB.
    assert most < 1e8
    parts = [x[groups == g, 0] for g in range(150)]
    last = parts[-1]
    below = [
        np.searchsorted(np.sort(part), x[:, 0], "right") / len(part) for part in parts
    ]
    assert smirnov[0] == np.max(np.ptp(below, axis=0))
    moved = max(stats.wasserstein_distance(a, last) for a in parts)
    assert wasserstein[0] == pytest.approx(moved / x.std())


@pytest.mark.parametrize("size", [1e-300, 1e250])
def test_distances_do_not_depend_on_the_unit(size):
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
    one, other = (
        distribution_distances(x * unit, groups, num_groups=3) for unit in (1.0, size)
    )
    np.testing.assert_allclose(one, other)


def test_distances_of_one_group_or_no_values_are_not_defined():
    x = np.array([[1.0, np.nan], [2.0, np.nan]])
    smirnov, _ = distribution_distances(x, np.array([0, 0]), num_groups=2)
    assert np.isnan(smirnov).all()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": 1.5}, r"must be a number in \[0, 1\]; got 1.5"),
        ({"scale": "log"}, "scale must be 'value' or 'rank'; got 'log'"),
        ({"ties": "first"}, "ties must be 'middle' or 'random'; got"),
        ({"ties": "random"}, "ties='random' needs a key; got None"),
        ({"number": 1}, "num_quantiles must be at least 2"),
        ({"number": 50_000}, "num_quantiles must be 46341 or less; got 50000"),
    ],
)
def test_settings_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        repaired(A_B, GROUPS, **options)
