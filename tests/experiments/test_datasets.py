"""The real data sets: their rows, their leaks, their splits and their refusals."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from experiments import datasets
from experiments.datasets import files
from experiments.datasets.encode import Winsorizer
from experiments.datasets.table import NOT_RECORDED

# Rows, positives, features, the smallest level of each attribute.
EXPECTED = {
    "support2": (
        9105,
        4265,
        23,
        {"sex": 3980, "race": 233, "income": 684, "age": 4513},
    ),
    "support2_sepsis": (
        3515,
        1567,
        22,
        {"sex": 1591, "race": 88, "income": 221, "age": 1694},
    ),
    "rhc": (
        5727,
        1918,
        45,
        {"sex": 2542, "race": 353, "income": 450, "insurance": 321, "age": 2736},
    ),
    "rhc_sepsis": (
        2217,
        833,
        45,
        {"sex": 998, "race": 154, "income": 177, "insurance": 122, "age": 996},
    ),
    "nhanes": (
        5018,
        745,
        28,
        {
            "sex": 2415,
            "race": 253,
            "insured": 13,
            "education": 11,
            "age": 1332,
            "poverty": 653,
        },
    ),
}
# One data set for the quick tests of what all are prepared by.
MOSTLY_SLOW = [
    "support2",
    *(pytest.param(name, marks=pytest.mark.slow) for name in [*EXPECTED][1:]),
]
LEAKS = {
    "support2": ["fac_sfdm2", "fac_dnr", "num_surv2m", "num_surv6m", "num_hday"],
    "rhc": ["num_surv2md1", "fac_dnr1", "num_adld3p"],
    "nhanes": [
        "Glycohemoglobin",
        "DoctorToldYouHaveDiabetes",
        "AgeWhenFirstToldYouHadDiabetes",
        "EverToldYouHavePrediabetes",
        "EverToldHaveHealthRiskForDiabetes",
        "TakingInsulinNow",
        "TakeDiabeticPillsToLowerBloodSugar",
        "WhatWasYourLastA1CLevel",
        "FamilyHistory",
        "DiabeticDiet",
    ],
}


@pytest.fixture(scope="module")
def tables():
    return {name: datasets.load(name) for name in datasets.DATASETS}


def small_table(**changes):
    table = datasets.ClinicalTable(
        name="own",
        title="Own patients",
        features=pd.DataFrame(
            {
                "sodium": [140.0, np.nan, 120.0, 150.0],
                "sepsis": pd.Categorical(["no", "yes", "no", None], ["no", "yes"]),
            }
        ),
        label=np.array([0, 1, 1, 0], dtype=np.int8),
        outcome="death",
        attributes=pd.DataFrame({"sex": pd.Categorical(["f", "m", "f", "m"])}),
        patient_ids=np.array([1, 2, 3, 3]),
        dropped={},
        excluded={},
        citation="",
        licence="",
    )
    return dataclasses.replace(table, **changes)


def test_every_data_set_is_listed():
    assert set(datasets.DATASETS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_rows_positives_and_groups(tables, name):
    rows, positives, width, smallest = EXPECTED[name]
    table = tables[name]
    assert table.name == name
    assert table.features.shape == (rows, width)
    assert table.label.dtype == np.int8
    assert int(table.label.sum()) == positives
    counts = {
        attribute: int(table.attributes[attribute].value_counts().min())
        for attribute in table.attributes.columns
    }
    assert counts == smallest
    assert len(set(table.patient_ids.tolist())) == rows


def test_published_group_counts(tables):
    race = tables["support2"].attributes["race"].value_counts()
    assert race.to_dict() == {
        "white": 7191,
        "black": 1391,
        "hispanic": 290,
        "other or not recorded": 112 + 79 + 42,
    }
    income = tables["support2"].attributes["income"]
    assert int((income == NOT_RECORDED).sum()) == 2982
    assert len(tables["nhanes"].attributes["race"].cat.categories) == 6
    assert len(tables["rhc"].attributes["insurance"].cat.categories) == 6
    cells = tables["rhc_sepsis"].attributes.groupby(["sex", "race"], observed=True)
    assert len(cells) == 6


def test_excluded_rows_account_for_the_source(tables):
    source = {
        "support2": 9105,
        "support2_sepsis": 9105,
        "rhc": 5735,
        "rhc_sepsis": 5735,
        "nhanes": 8366,
    }
    for name, table in tables.items():
        assert len(table.label) + sum(table.excluded.values()) == source[name]
    assert tables["rhc"].excluded == {"lost to follow-up before day 30": 8}
    assert tables["support2"].excluded == {"lost to follow-up before day 180": 0}


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_are_dropped_and_said_to_be(tables, name):
    table = tables[name]
    for column in LEAKS[name]:
        assert table.dropped[column]
        plain = column.removeprefix("num_").removeprefix("fac_")
        assert {column, plain}.isdisjoint(table.features.columns)


@pytest.mark.parametrize("name", EXPECTED)
def test_no_social_attribute_is_a_feature(tables, name):
    social = {"race", "income", "insurance", "insured", "education", "poverty", "edu"}
    assert social.isdisjoint(tables[name].features.columns)


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_no_feature_alone_gives_the_outcome_away(tables, name):
    # A leak shows as a column, or its being missing, that ranks patients too well.
    table = tables[name]
    for column in table.features.columns:
        values = table.features[column]
        missing = roc_auc_score(table.label, values.isna())
        # Arterial blood gases are taken of the sickest, hence up to .05.
        assert abs(missing - 0.5) < 0.05, column
        if values.dtype == np.float64:
            score = roc_auc_score(table.label, values.fillna(values.median()))
            assert abs(score - 0.5) < 0.22, column


@pytest.mark.parametrize("name", ["support2", "support2_sepsis"])
def test_missing_features_do_not_mark_early_deaths(tables, name):
    # What interviews asked is missing in 42 to 99 % of those who died on day 3.
    frame = files.read_pickled_frame("SurvSet/resources/pickles/support2.pickle")
    time = frame.set_index("pid")["time"].loc[tables[name].patient_ids].to_numpy()
    features = tables[name].features.drop(columns=["pafi", "ph"])
    early = features[time <= 4].isna().mean()
    later = features[time > 4].isna().mean()
    assert (early - later).abs().max() < 0.1
    interview = frame[["num_adlp", "num_adls", "num_edu"]].isna()
    excess = interview[frame.time <= 4].mean() - interview[frame.time > 4].mean()
    assert excess.min() > 0.15


def test_rhc_weight_of_zero_is_missing(tables):
    frame = files.read_pickled_frame("SurvSet/resources/pickles/rhc.pickle")
    assert int((frame["num_wtkilo1"] == 0).sum()) == 515
    weight = tables["rhc"].features["wtkilo1"]
    assert weight.min() > 0
    lost = (frame["event"] == 0) & (frame["time"] < 30)
    assert int(weight.isna().sum()) == int((frame["num_wtkilo1"] == 0)[~lost].sum())


def test_nhanes_values_are_physiological(tables):
    features = tables["nhanes"].features
    assert features["diastolic_pressure"].min() >= 5
    assert features["sedentary_minutes"].max() <= 24 * 60
    assert features["sedentary_minutes"].min() == 0.0
    assert features["depression_score"].between(0, 27).sum() == 4634
    assert features["age"].between(20, 80).all()


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"support2, support2_sepsis, rhc.*got 'mimic'"
    ):
        datasets.load("mimic")


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"SurvSet.*\.\[experiments\]"):
        datasets.load("rhc")


def test_package_without_the_file():
    with pytest.raises(FileNotFoundError, match=r"no nothing\.pickle.*experiments"):
        files.package_file("SurvSet/nothing.pickle")


def test_altered_pickle_is_not_loaded(monkeypatch, tmp_path):
    altered = tmp_path / "rhc.pickle"
    altered.write_bytes(b"any other bytes")
    loaded = []
    monkeypatch.setattr(files.pickle, "loads", loaded.append)
    monkeypatch.setattr(files, "package_file", lambda _: altered)
    with pytest.raises(ValueError, match=r"expected SHA-256 8250a5f1.*found") as raised:
        datasets.load("rhc")
    assert str(altered) in str(raised.value)
    assert "nothing was loaded" in str(raised.value)
    assert loaded == []


def test_finding_a_file_does_not_import_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "SurvSet", raising=False)
    datasets.load("support2_sepsis")
    assert "SurvSet" not in sys.modules
    assert isinstance(files.package_file(next(iter(files.SHA256))), Path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.array([0.0, np.nan, 1.0, 0.0])}, "death.*NaN in 1 of 4 rows"),
        ({"label": np.zeros(4)}, "single class"),
        ({"label": np.array([0, 1, 2, 1])}, r"must be 0 or 1; got \[0, 1, 2\]"),
        ({"label": np.array([0, 1, 1])}, "label has 3 rows but features has 4"),
        (
            {"features": pd.DataFrame({"sodium": [1.0, np.inf, 2.0, np.nan]})},
            "'sodium' is infinite in 1 rows",
        ),
        (
            {"features": pd.DataFrame({"sodium": [np.nan] * 4})},
            "'sodium' is missing in every row",
        ),
        (
            {"features": pd.DataFrame({"unit": ["a", "b", "a", "b"]})},
            "'unit' must be float or categorical; got",
        ),
        (
            {"attributes": pd.DataFrame({"sex": pd.Categorical(["f"] * 4)})},
            "'sex' has a single category, 'f'",
        ),
        (
            {
                "attributes": pd.DataFrame(
                    {"sex": pd.Categorical(["f", "m", None, "f"])}
                )
            },
            "'sex' is NaN in 1 rows",
        ),
        (
            {"attributes": pd.DataFrame({"sex": ["f", "m", "f", "m"]})},
            "'sex' must be categorical; got",
        ),
        (
            {
                "features": pd.DataFrame(
                    np.ones((4, 2)), columns=pd.Index(["sodium", "sodium"])
                )
            },
            "'sodium' appears twice",
        ),
        (
            {"patient_ids": np.array([1.0, 2.0, np.nan, 3.0])},
            "patient_ids is missing in 1 rows",
        ),
    ],
)
def test_validate_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        datasets.validate(small_table(**changes))


def test_validate_returns_a_good_table():
    table = small_table()
    assert datasets.validate(table) is table


def test_encoder_by_hand():
    # Training rows 0 and 2: sodium 140 and 120, so median 130, mean 130, deviation 10
    # (the 1 % limits move both values by 0.2, symmetrically, and z undoes it).
    table = small_table()
    encoded = datasets.encode_splits(table, [np.array([0, 2])])[0]
    fitted = datasets.encoder(table.features).fit(table.features.iloc[[0, 2]])
    assert fitted.get_feature_names_out().tolist() == [
        "sodium",
        "sodium_squared",
        "missing_sodium",
        "sepsis_no",
        "sepsis_yes",
        "sepsis_missing",
    ]
    # z² is 1 for both training rows, hence a constant: 0 after standardising, and the
    # median row, z = 0, lies 1 below it.
    np.testing.assert_allclose(
        encoded,
        [
            [1, 0, 0, 1, 0, 0],
            [0, -1, 1, 0, 1, 0],
            [-1, 0, 0, 1, 0, 0],
            [1, 0, 0, 0, 0, 1],
        ],
        atol=1e-5,
    )


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_encoding_is_finite_and_standardised_on_training_rows(tables, name):
    table = tables[name]
    train = np.arange(0, len(table.label), 2)
    encoded = datasets.encode_splits(table, [train])
    assert encoded.dtype == np.float32
    assert np.isfinite(encoded).all()
    numeric = sum(table.features[c].dtype == np.float64 for c in table.features)
    inside = encoded[0, train, : 2 * numeric].astype(np.float64)
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(axis=0), 1, atol=1e-4)


def test_encoding_never_looks_at_other_rows(tables):
    table = tables["support2"]
    train, test = np.arange(3000), np.arange(3000, 9105)
    changed = table.features.copy()
    numeric = changed.select_dtypes(float).columns
    changed.loc[test, numeric] = changed.loc[test, numeric] * 7 + 1000
    other = dataclasses.replace(table, features=changed)
    before = datasets.encode_splits(table, [train])[0]
    after = datasets.encode_splits(other, [train])[0]
    np.testing.assert_array_equal(before[train], after[train])
    assert (before[test] != after[test]).any()


def test_width_does_not_depend_on_the_training_rows(tables):
    features = tables["rhc"].features
    # Rows of one diagnosis, with every weight known and no urine measured.
    narrow = features[
        (features["cat1"] == "coma")
        & features["wtkilo1"].notna()
        & features["urin1"].isna()
    ]
    wide = datasets.encoder(features).fit(features).transform(features)
    assert (
        datasets.encoder(features).fit(narrow).transform(features).shape == wide.shape
    )


def test_undeclared_level_is_zero():
    table = small_table()
    fitted = datasets.encoder(table.features).fit(table.features)
    new = table.features.assign(sepsis=pd.Categorical(["maybe"] * 4))
    np.testing.assert_array_equal(fitted.transform(new)[:, 3:], 0)


def test_encode_splits_refuses_empty_input():
    with pytest.raises(ValueError, match="no split"):
        datasets.encode_splits(small_table(), [])
    with pytest.raises(ValueError, match="split 0 has no training rows"):
        datasets.encode_splits(small_table(), [np.array([], dtype=int)])


def test_winsorizer_against_numpy():
    x = np.random.default_rng(0).lognormal(size=(200, 3))
    low, high = np.quantile(x, [0.05, 0.9], axis=0)
    clipped = Winsorizer(lower=0.05, upper=0.9).fit_transform(x)
    np.testing.assert_array_equal(clipped, np.minimum(np.maximum(x, low), high))


@pytest.mark.slow
@settings(max_examples=25)
@given(
    owners=st.lists(st.integers(0, 30), min_size=40, max_size=120),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 2**16),
)
def test_a_patient_never_spans_folds(owners, num_folds, seed):
    ids = np.array([*owners, *range(100, 110)])
    label = np.arange(len(ids)) % 2
    attributes = pd.DataFrame({"sex": pd.Categorical(np.arange(len(ids)) % 3)})
    fold = datasets.patient_folds(
        ids, label, attributes, num_folds=num_folds, seed=seed
    )
    assert set(fold.tolist()) == set(range(num_folds))
    for index in range(num_folds):
        datasets.check_disjoint(ids, fold != index, np.flatnonzero(fold == index))
    again = datasets.patient_folds(
        ids, label, attributes, num_folds=num_folds, seed=seed
    )
    np.testing.assert_array_equal(fold, again)


def test_folds_are_balanced_by_label_and_attribute(tables):
    table = tables["nhanes"]
    fold = datasets.patient_folds(
        table.patient_ids, table.label, table.attributes[["race"]], num_folds=5, seed=3
    )
    for rows in table.attributes.groupby("race", observed=True).groups.values():
        for value in (0, 1):
            chosen = fold[rows][table.label[rows] == value]
            counts = np.bincount(chosen, minlength=5)
            assert counts.max() - counts.min() <= 1


def test_folds_with_every_attribute_keep_the_labels_balanced(tables):
    table = tables["support2"]
    fold = datasets.patient_folds(
        table.patient_ids, table.label, table.attributes, num_folds=5, seed=0
    )
    share = [table.label[fold == index].mean() for index in range(5)]
    np.testing.assert_allclose(share, table.label.mean(), atol=0.01)


def test_shared_patients_are_counted():
    ids = np.array([5, 5, 6, 7, 7, 8])
    with pytest.raises(ValueError, match="2 patients have rows in both"):
        datasets.check_disjoint(ids, np.array([0, 2, 3]), np.array([1, 4, 5]))


@pytest.mark.parametrize(
    ("ids", "num_folds", "message"),
    [
        (np.arange(3), 2, "patient_ids has 3 rows, label has 4"),
        (np.arange(4), 1, "between 2 and the number of patients, 4; got 1"),
        (np.array([1, 1, 2, 2]), 3, "between 2 and the number of patients, 2"),
        (np.arange(4), 3, "label 0 has 2 rows, too few for 3 folds"),
    ],
)
def test_patient_folds_refuses(ids, num_folds, message):
    label = np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match=message):
        datasets.patient_folds(ids, label, num_folds=num_folds, seed=0)
