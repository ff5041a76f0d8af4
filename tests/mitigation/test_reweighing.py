"""Reweighing: by hand, in general, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairjax.mitigation.reweighing import reweighing


def test_by_hand():
    """Six patients: P(g) P(y) / P(g, y) is 3/4, 3/2, 3/2 and 3/4."""
    groups, labels = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 0, 1, 0, 0])
    found = reweighing(labels, groups, num_groups=2)
    np.testing.assert_allclose(found, [0.75, 0.75, 1.5, 1.5, 0.75, 0.75])
    assert found.dtype == np.float32


def test_a_cell_without_patients_leaves_a_mean_of_1():
    groups, labels = np.array([0, 0, 1, 1, 1]), np.array([1, 1, 1, 0, 0])
    raw = np.array([2 * 3 / 2, 2 * 3 / 2, 3 * 3, 3 * 2 / 2, 3 * 2 / 2]) / 5
    found = reweighing(labels, groups, num_groups=2)
    np.testing.assert_allclose(found, raw / raw.mean(), rtol=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=40).map(
        lambda rows: rows + [(g, y) for g in range(3) for y in range(2)]
    )
)
def test_label_and_group_are_independent(rows):
    groups, labels = np.array(rows).T
    weights = reweighing(labels, groups, num_groups=3).astype(float)
    joint = np.zeros((3, 2))
    np.add.at(joint, (groups, labels), weights / weights.sum())
    expected = joint.sum(1, keepdims=True) * joint.sum(0)
    np.testing.assert_allclose(joint, expected, atol=1e-6)
    # The margins stay as they were.
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(joint.sum(0), shares, atol=1e-6)
    assert weights.mean() == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("labels", "groups", "words"),
    [
        ([0, 1, 1], [0, 1, -1], "groups must lie in 0 .. 1; got -1 to 1"),
        ([0, 1, 1], [0, 1, 2], "groups must lie in 0 .. 1; got 0 to 2"),
        ([0, 1, 2], [0, 1, 1], "labels must be 0 or 1; got 2"),
        ([0, 1], [0, 1, 1], "columns must have equal lengths; got"),
    ],
)
def test_what_it_refuses(labels, groups, words):
    with pytest.raises(ValueError, match=words):
        reweighing(np.array(labels), np.array(groups), num_groups=2)
