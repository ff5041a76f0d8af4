import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairjax.metrics import (
    _intersections,
    intersection_names,
    worst_intersections,
    worst_mean_intersections,
)
from fairjax.metrics._intersections import _blocks, marginals

SHAPE = (2, 3, 2)
ROWS = 600
KEY = jax.random.key(0)


def cohort(seed, rows=ROWS):
    rng = np.random.default_rng(seed)
    attributes = np.stack([rng.integers(0, levels, rows) for levels in SHAPE])
    return rng.random(rows) < 0.5, rng.random(rows) < 0.5, attributes


def intersections(max_depth):
    for depth in range(1, max_depth + 1):
        for chosen in itertools.combinations(range(len(SHAPE)), depth):
            for levels in itertools.product(*(range(SHAPE[a]) for a in chosen)):
                found = [-1] * len(SHAPE)
                for attribute, level in zip(chosen, levels, strict=True):
                    found[attribute] = level
                yield tuple(found)


def members(attributes, levels):
    return np.all(
        [
            row == level
            for row, level in zip(attributes, levels, strict=True)
            if level >= 0
        ],
        axis=0,
    )


def by_hand(values, base, strata, attributes, max_depth, min_support, sign):
    """z, support, estimate and rest of all intersections, from the rows."""
    residuals, variances = np.zeros(len(values)), np.zeros(len(values))
    for stratum in np.unique(strata[base]):
        here = base & (strata == stratum)
        residuals[here] = values[here] - values[here].mean()
        variances[here] = values[here].var(ddof=1)
    total, found = variances.sum(), {}
    for levels in intersections(max_depth):
        inside = base & members(attributes, levels)
        rest = base & ~inside
        if min(inside.sum(), rest.sum()) < min_support:
            continue
        spread = variances[inside].sum()
        z = sign * residuals[inside].sum() / np.sqrt(spread * (1 - spread / total))
        found[levels] = z, inside.sum(), values[inside].mean(), values[rest].mean()
    return found


ALWAYS = np.ones(ROWS, bool)
METRICS = {
    "true_positive_rate": (lambda y, p: p, lambda y: y, True, -1),
    "false_negative_rate": (lambda y, p: ~p, lambda y: y, True, 1),
    "false_positive_rate": (lambda y, p: p, lambda y: ~y, True, 1),
    "true_negative_rate": (lambda y, p: ~p, lambda y: ~y, True, -1),
    "accuracy": (lambda y, p: p == y, lambda y: ALWAYS, True, -1),
    "error_rate": (lambda y, p: p != y, lambda y: ALWAYS, True, 1),
    "selection_rate": (lambda y, p: p, lambda y: ALWAYS, False, -1),
}


@pytest.mark.parametrize("metric", METRICS)
def test_all_intersections_agree_with_the_rows(metric):
    labels, predictions, attributes = cohort(1)
    value, base, within_label, sign = METRICS[metric]
    expected = by_hand(
        value(labels, predictions).astype(float),
        base(labels),
        labels.astype(int) if within_label else np.zeros(ROWS, int),
        attributes,
        max_depth=2,
        min_support=40,
        sign=sign,
    )
    found = worst_intersections(
        KEY,
        labels,
        predictions,
        attributes,
        num_levels=SHAPE,
        metric=metric,
        max_depth=2,
        min_support=40,
        top=100,
        num_permutations=19,
    )
    assert found.searched == len(expected) == len(found.z) > 15
    assert np.all(np.diff(found.z) <= 1e-9)
    for row, levels in enumerate(map(tuple, found.levels.tolist())):
        z, support, estimate, rest = expected.pop(levels)
        assert found.support[row] == support
        np.testing.assert_allclose(
            [found.z[row], found.estimate[row], found.rest[row]], [z, estimate, rest]
        )
        np.testing.assert_allclose(found.difference[row], estimate - rest)


def test_z_of_a_single_stratum_is_the_permutation_standard_score():
    _, predictions, attributes = cohort(2)
    found = worst_mean_intersections(
        KEY,
        predictions.astype(float),
        attributes[:1],
        num_levels=SHAPE[:1],
        num_permutations=1,
    )
    inside = attributes[0] == found.levels[0, 0]
    exact = stats.hypergeom(ROWS, predictions.sum(), inside.sum())
    hits = predictions[inside].sum()
    np.testing.assert_allclose(found.z[0], (hits - exact.mean()) / exact.std())


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        (ROWS, 2),
        (ROWS, 5),
        pytest.param(ROWS, None, marks=pytest.mark.slow),
        pytest.param(6000, None, marks=pytest.mark.slow),
    ],
)
def test_p_values_are_those_of_all_shuffles(rows, kinds):
    """By drawing tables of two values and of five, by sorting, and by shifts."""
    rng = np.random.default_rng(rows)
    values = rng.random(rows)
    if kinds is not None:
        values = np.floor(values * kinds)
    attributes = cohort(rows, rows)[2]
    found = worst_mean_intersections(
        KEY,
        values,
        attributes,
        num_levels=SHAPE,
        max_depth=2,
        top=3,
        num_permutations=2000,
    )
    everywhere = [members(attributes, levels) for levels in intersections(2)]
    everywhere = np.array([m for m in everywhere if 20 <= m.sum() <= rows - 20])
    size = everywhere.sum(1)
    scale = values.std(ddof=1) * np.sqrt(size * (1 - size / rows))
    shuffled = np.stack([rng.permutation(values) for _ in range(2000)])
    null = (shuffled @ everywhere.T - values.mean() * size) / scale
    assert 0.02 < found.corrected_p_value[0] < 0.98
    for number, levels in enumerate(found.levels):
        own = np.flatnonzero((everywhere == members(attributes, levels)).all(1))[0]
        z = found.z[number] - 1e-6
        np.testing.assert_allclose(
            [found.p_value[number], found.corrected_p_value[number]],
            [np.mean(null[:, own] >= z), np.mean(null.max(1) >= z)],
            atol=0.05,
        )


@pytest.mark.slow
def test_by_chance_the_search_finds_something_as_often_as_stated():
    # Of 49 shuffles, p <= .1 has a chance of exactly .1.
    runs, level = 120, 0.1
    rejected = naive = 0
    labels, _, attributes = cohort(4)
    for seed in range(runs):
        predictions = np.random.default_rng(seed).random(ROWS) < 0.7
        found = worst_intersections(
            jax.random.key(seed),
            labels,
            predictions,
            attributes,
            num_levels=SHAPE,
            num_permutations=49,
            top=1,
        )
        rejected += found.corrected_p_value[0] <= level
        naive += found.p_value[0] <= level
    low, high = stats.binom.ppf([0.0005, 0.9995], runs, level)
    assert low <= rejected <= high
    # What comes of looking at 30 intersections without saying so.
    assert naive > runs / 2


@pytest.mark.slow
def test_a_planted_intersection_is_found():
    hits = 0
    for seed in range(20):
        labels, _, attributes = cohort(seed)
        rng = np.random.default_rng(seed + 100)
        planted = members(attributes, (1, 2, -1))
        predictions = rng.random(ROWS) < np.where(planted, 0.35, 0.8)
        found = worst_intersections(
            KEY,
            labels,
            predictions,
            attributes,
            num_levels=SHAPE,
            num_permutations=99,
            top=1,
        )
        hits += found.corrected_p_value[0] <= 0.05 and found.levels[0, :2].tolist() == [
            *(1, 2)
        ]
    assert hits >= 17


@pytest.mark.slow
def test_rows_of_one_patient_are_not_evidence_of_their_own():
    """Four equal rows a patient: by rows the search finds noise, by patients not."""
    runs, naive, level, patients = 70, 30, 0.1, 200
    codes = np.repeat(np.arange(patients), 4)
    by_row = by_patient = 0
    _, _, attributes = cohort(5, patients)
    options = {"num_levels": SHAPE, "num_permutations": 49, "top": 1, "min_support": 10}
    labels = np.random.default_rng(0).random(800) < 0.5
    for seed in range(runs):
        predictions = np.random.default_rng(seed).random(patients)[codes] < 0.7
        rows = (jax.random.key(seed), labels, predictions, attributes[:, codes])
        if seed < naive:
            found = worst_intersections(*rows, **options)
            by_row += found.corrected_p_value[0] <= level
        found = worst_intersections(*rows, patients=codes, **options)
        by_patient += found.corrected_p_value[0] <= level
    low, high = stats.binom.ppf([0.0005, 0.9995], runs, level)
    assert low <= by_patient <= high
    assert by_row > naive / 3


@pytest.mark.parametrize("metric", ["true_positive_rate", "error_rate"])
def test_patients_of_one_row_are_rows(metric):
    labels, predictions, attributes = cohort(6)
    options = {"num_levels": SHAPE, "metric": metric, "num_permutations": 50}
    rows = worst_intersections(KEY, labels, predictions, attributes, **options)
    patients = worst_intersections(
        KEY,
        labels,
        predictions,
        attributes,
        patients=np.random.default_rng(0).permutation(ROWS),
        **options,
    )
    np.testing.assert_allclose(patients.z, rows.z)
    np.testing.assert_array_equal(patients.levels, rows.levels)
    np.testing.assert_array_equal(patients.support, rows.support)


@pytest.mark.slow
@settings(max_examples=5)
@given(st.integers(0, 2**16))
def test_the_order_of_rows_does_not_matter(seed):
    labels, predictions, attributes = cohort(seed)
    order = np.random.default_rng(seed).permutation(ROWS)
    options = {"num_levels": SHAPE, "num_permutations": 19, "metric": "error_rate"}
    found = worst_intersections(KEY, labels, predictions, attributes, **options)
    moved = worst_intersections(
        KEY, labels[order], predictions[order], attributes[:, order], **options
    )
    np.testing.assert_allclose(moved.z, found.z, atol=1e-9)
    np.testing.assert_allclose(moved.estimate, found.estimate)
    again = worst_intersections(KEY, labels, predictions, attributes, **options)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_rows_are_listed_once():
    # Everyone with attribute 0 at 1 has attribute 1 at 0.
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, ROWS)
    second = np.where(first == 1, 0, rng.integers(0, 2, ROWS))
    found = worst_mean_intersections(
        KEY, first + 0.0, np.stack([first, second]), num_levels=(2, 2), top=10
    )
    # Of (1, 0), the rows of (1, any); and of (0, 1), those of (any, 1).
    assert set(map(tuple, found.levels.tolist())) == {
        *((0, -1), (1, -1), (-1, 0), (-1, 1), (0, 0))
    }
    assert found.searched == 5


def test_rows_left_out():
    labels, predictions, attributes = cohort(7)
    attributes[1, :100] = -1
    predictions = predictions.astype(float)
    predictions[100:150] = np.nan
    options = {"num_levels": SHAPE, "num_permutations": 9}
    found = worst_intersections(KEY, labels, predictions, attributes, **options)
    fewer = worst_intersections(
        KEY, labels[150:], predictions[150:], attributes[:, 150:], **options
    )
    np.testing.assert_allclose(found.z, fewer.z)
    values = np.where(np.isnan(predictions), np.nan, predictions - labels)
    means = [
        worst_mean_intersections(
            KEY, values[begin:], attributes[:, begin:], worse="lower", **options
        )
        for begin in (0, 150)
    ]
    np.testing.assert_allclose(means[0].z, means[1].z)
    assert means[0].z[0] > 0 > means[0].difference[0]


def test_nothing_to_find():
    labels, predictions, attributes = cohort(8)
    options = {"num_levels": SHAPE, "num_permutations": 9}
    none = worst_intersections(
        KEY, labels, predictions, attributes, min_support=ROWS, **options
    )
    assert none.searched == 0
    assert none.levels.shape == (0, 3)
    assert intersection_names(none, {"a": "xy", "b": "xyz", "c": "xy"}) == ()
    same = worst_intersections(KEY, labels, labels, attributes, **options)
    assert not same.z.any()
    assert np.all(same.corrected_p_value == 1)
    nobody = worst_intersections(
        KEY, np.zeros(ROWS, int), predictions, attributes, **options
    )
    assert nobody.searched == 0


def test_rounding_is_no_disparity():
    """Equal patients whose rows are added up in another order, and a constant."""
    patients = np.arange(300).repeat(3)
    group = patients % 2
    values = np.tile([0.1, 0.2, 0.3], 300).reshape(300, 3)
    values[1::2] = values[1::2, ::-1]
    options = {"num_levels": (2,), "num_permutations": 99}
    for rows in (
        worst_mean_intersections(
            KEY, values.ravel(), group[None], patients=patients, **options
        ),
        worst_mean_intersections(KEY, np.full(900, 0.3), group[None], **options),
    ):
        np.testing.assert_array_equal(rows.z, 0)
        np.testing.assert_array_equal(rows.corrected_p_value, 1)


@given(st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=20)
def test_marginals_are_sums_over_the_other_axes(num_axes, depth):
    table = np.random.default_rng(num_axes).integers(0, 9, (2, 3, 2, 4)[:num_axes])
    found = marginals(table, min(depth, num_axes))
    assert list(found) == [
        chosen
        for size in range(min(depth, num_axes) + 1)
        for chosen in itertools.combinations(range(num_axes), size)
    ]
    for chosen, part in found.items():
        others = tuple(set(range(num_axes)) - set(chosen))
        np.testing.assert_array_equal(part, table.sum(axis=others))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any))
def test_blocks_tile_the_strata(sizes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_intersections, "_LONGEST_BLOCK", 16)
        check_blocks(sizes)


def check_blocks(sizes):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    start, length, block = _blocks(strata)
    assert set(block) == set(range(block[-1] + 1))
    for number in np.unique(block):
        here = np.flatnonzero(block == number)
        assert here.tolist() == list(range(start[here[0]], start[here[0]] + here.size))
        assert set(length[here]) == {here.size}
        assert len(set(strata[here])) == 1
        assert here.size <= 16


def test_names():
    labels, predictions, attributes = cohort(9)
    found = worst_intersections(
        KEY, labels, predictions, attributes, num_levels=SHAPE, num_permutations=9
    )
    levels = {"sex": ["f", "m"], "age": ["<40", "<65", "65+"], "site": ["A", "B"]}
    for name, row in zip(intersection_names(found, levels), found.levels, strict=True):
        assert name == ", ".join(
            f"{attribute}={names[level]}"
            for (attribute, names), level in zip(levels.items(), row, strict=True)
            if level >= 0
        )
    with pytest.raises(ValueError, match="name the 3 attributes of the search; got 1"):
        intersection_names(found, {"sex": ["f", "m"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "auroc"}, "metric"),
        ({"num_levels": (2, 3)}, "num_levels"),
        ({"num_levels": (2, 3, 0)}, "at least 1"),
        ({"num_levels": (2, 2, 2)}, "rows with other ids, such as 2"),
        ({"num_levels": (2000, 3000, 2)}, "1,048,576 cells; got 12,000,000"),
        ({"max_depth": 0}, "max_depth"),
        ({"min_support": 0}, "min_support"),
        ({"top": 0}, "top"),
        ({"num_permutations": 0}, "num_permutations"),
        ({"patients": np.zeros(ROWS, int)}, "got 1 patients with rows that differ"),
        ({"patients": np.full(ROWS, -1)}, f"at least 0; .*with {ROWS} negative codes"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        worst_intersections(KEY, *cohort(0), **{"num_levels": SHAPE} | options)


def test_bad_columns():
    labels, predictions, attributes = cohort(0)
    with pytest.raises(ValueError, match="of one length"):
        worst_intersections(
            KEY, labels, predictions, attributes[:, :9], num_levels=SHAPE
        )
    with pytest.raises(ValueError, match="finite or NaN; got 1 infinite"):
        worst_mean_intersections(
            KEY, np.r_[np.inf, np.zeros(ROWS - 1)], attributes, num_levels=SHAPE
        )
