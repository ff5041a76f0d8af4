"""Splits, pooling and thresholds: against loops, and blind to the test rows."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import datasets
from experiments.core import protocol
from experiments.datasets import encoder


@pytest.fixture
def scores(splits):
    shape = (2, splits.num_lanes, len(splits.table.label))
    return np.random.default_rng(1).normal(size=shape)


def test_every_patient_is_tested_and_validates_once_a_repeat(splits):
    assert (splits.num_repeats, splits.num_folds, splits.num_lanes) == (2, 5, 10)
    for part in ("test", "valid"):
        rows = np.stack([splits.rows(lane, part) for lane in range(10)])
        np.testing.assert_array_equal(rows.reshape(2, 5, -1).sum(axis=1), 1)
    train = np.stack([splits.rows(lane, "train") for lane in range(10)])
    np.testing.assert_array_equal(train.reshape(2, 5, -1).sum(axis=1), 3)
    assert (splits.folds[0] != splits.folds[1]).any()


def test_the_parts_of_a_lane_are_disjoint_and_everybody(splits):
    for lane in range(splits.num_lanes):
        parts = [splits.rows(lane, part) for part in ("train", "valid", "test")]
        np.testing.assert_array_equal(np.sum(parts, axis=0), 1)
        count = splits.train_counts[lane]
        real = splits.train_rows[lane, :count]
        np.testing.assert_array_equal(real, np.flatnonzero(parts[0]))
        assert set(splits.train_rows[lane]) == set(real)


def test_patients_with_several_rows_are_on_one_side(table):
    rows = len(table.label)
    twice = dataclasses.replace(table, patient_ids=np.arange(rows) // 3)
    splits = protocol.cross_validation(twice, ("sex",), num_repeats=2, seed=0)
    for fold in splits.folds:
        per_patient = pd.Series(fold).groupby(twice.patient_ids).nunique()
        assert (per_patient == 1).all()


def test_pooling_by_a_loop(splits, scores):
    for part in ("test", "valid"):
        pooled = splits.pool(scores, part)
        assert pooled.shape == (2, 2, len(splits.table.label))
        expected = np.full_like(pooled, np.nan)
        for lane in range(splits.num_lanes):
            rows = splits.rows(lane, part)
            expected[:, lane // 5, rows] = scores[:, lane, rows]
        np.testing.assert_array_equal(pooled, expected)


def test_thresholds_select_the_validation_fold_s_prevalence(splits, scores):
    found = splits.thresholds(scores)
    assert found.shape == scores.shape[:2]
    for lane in range(splits.num_lanes):
        rows = splits.rows(lane, "valid")
        positives = splits.table.label[rows].sum()
        for method in range(2):
            mine = np.sort(scores[method, lane, rows])[::-1]
            selected = (mine >= found[method, lane]).sum()
            assert abs(selected - positives) <= 1
            assert found[method, lane] in mine


def test_thresholds_see_validation_rows_only(splits, scores):
    changed = scores.copy()
    for lane in range(splits.num_lanes):
        changed[:, lane, ~splits.rows(lane, "valid")] += 100
    found = splits.thresholds(scores)
    np.testing.assert_array_equal(splits.thresholds(changed), found)
    label = splits.table.label.copy()
    label[splits.rows(0, "test")] = 0
    other = dataclasses.replace(
        splits, table=dataclasses.replace(splits.table, label=label)
    )
    np.testing.assert_array_equal(other.thresholds(scores)[:, 0], found[:, 0])
    assert (other.thresholds(scores) != found).any()


def test_inputs_are_encoded_on_training_rows_only(table, splits):
    train = splits.rows(0, "train")
    changed = table.features.copy()
    changed.loc[~train, "temp"] = 1e6
    other = protocol.cross_validation(
        dataclasses.replace(table, features=changed),
        splits.attributes,
        num_repeats=1,
        min_level_count=20,
        seed=0,
    )
    np.testing.assert_array_equal(other.folds[0], splits.folds[0])
    np.testing.assert_array_equal(other.inputs[0, train], splits.inputs[0, train])
    assert (other.inputs[0, ~train] != splits.inputs[0, ~train]).any()
    # Another lane trains on rows that were changed.
    assert (other.inputs[1, train] != splits.inputs[1, train]).any()


def test_a_blind_model_does_not_see_the_attributes(table, splits):
    blind = protocol.cross_validation(
        table, splits.attributes, num_repeats=1, blind=True, seed=0
    )
    train = blind.rows(0, "train")
    fitted = encoder(table.features).fit(table.features[train])
    expected = fitted.transform(table.features).astype(np.float32)
    np.testing.assert_array_equal(blind.inputs[0], expected)
    # Sex is a feature of the table's own; race adds a column for each level.
    levels = len(table.attributes["race"].cat.categories)
    assert splits.inputs.shape[-1] == expected.shape[-1] + levels


def test_cells_are_attributes_by_label(table, splits):
    assert splits.partition.attributes == (protocol.LABEL, "sex", "race")
    sexes, members = splits.partition.membership("sex")
    for name, member in zip(sexes, members, strict=True):
        rows = table.attributes["sex"] == name.removeprefix("sex=")
        np.testing.assert_array_equal(member[splits.cells], rows)
    labels, members = splits.partition.membership(protocol.LABEL)
    assert labels == ("outcome=0", "outcome=1")
    np.testing.assert_array_equal(members[1][splits.cells], table.label == 1)


def test_small_levels_are_merged(table):
    counts = table.attributes["race"].value_counts()
    splits = protocol.cross_validation(
        table, ("race",), num_repeats=1, min_level_count=int(counts.min()) + 1, seed=0
    )
    names, _ = splits.partition.membership("race")
    assert f"race={counts.idxmin()}" not in names
    assert "race=Other" in names


def test_a_rare_outcome_is_not_merged(table):
    rare = np.zeros_like(table.label)
    rare[::80] = 1
    table = dataclasses.replace(table, label=rare)
    splits = protocol.cross_validation(
        table, ("sex",), num_repeats=1, min_level_count=20, seed=0
    )
    assert rare.sum() < 20
    assert splits.partition.levels[0] == ("0", "1")
    assert splits.partition.names_a_value(protocol.LABEL).all()


def test_frames_of_different_orders_are_refused(table):
    shuffled = table.attributes.sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match="features and attributes have different ind"):
        datasets.validate(dataclasses.replace(table, attributes=shuffled))


@pytest.mark.parametrize("attributes", [("sex", "height"), (), ("sex", "sex")])
def test_attributes_that_cannot_be(table, attributes):
    with pytest.raises(ValueError, match="must name some of sex, race, income, age"):
        protocol.cross_validation(table, attributes, num_repeats=1, seed=0)


@pytest.mark.parametrize("name", protocol.RESERVED)
def test_an_attribute_may_not_take_a_name_of_the_reports(table, name):
    renamed = dataclasses.replace(
        table, attributes=table.attributes.rename(columns={"sex": name})
    )
    with pytest.raises(ValueError, match=f"must not be named .*; got '{name}'"):
        protocol.cross_validation(renamed, (name, "race"), num_repeats=1, seed=0)


def test_a_patient_in_two_folds_is_refused(table, monkeypatch):
    ids = table.patient_ids.copy()
    ids[1] = ids[0]
    monkeypatch.setattr(
        protocol, "patient_folds", lambda *args, **kwargs: np.arange(len(ids)) % 5
    )
    with pytest.raises(ValueError, match="1 patients have rows in both"):
        protocol.cross_validation(
            dataclasses.replace(table, patient_ids=ids), ("sex",), num_repeats=1, seed=0
        )
