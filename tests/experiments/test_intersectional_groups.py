"""Race, sex and age as one attribute: by hand, merged, refused, on the real tables."""

import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.datasets import ClinicalTable, load
from experiments.datasets.files import verified_bytes
from experiments.intersectional.groups import OTHER, composite


def table_of(cells, **columns):
    """A table with so many patients, and so many with the outcome, in each cell."""
    rows = [
        (*cell, int(place < sick))
        for cell, (number, sick) in cells.items()
        for place in range(number)
    ]
    frame = pd.DataFrame(rows, columns=["race", "sex", "age", "label"])
    attributes = frame[["race", "sex", "age"]].astype("category")
    features = {"age": np.linspace(20.0, 90, len(frame)), "x": np.zeros(len(frame))}
    return ClinicalTable(
        name="made",
        title="Made up",
        features=pd.DataFrame({**features, **columns}),
        label=frame["label"].to_numpy(np.int8),
        outcome="death",
        attributes=attributes,
        patient_ids=np.arange(len(frame)),
        dropped={"z": "a leak"},
        excluded={},
        citation="",
        licence="",
    )


CELLS = {
    ("white", "male", ">=65"): (40, 20),
    ("white", "female", "45-64"): (60, 20),
    ("white", "female", "<45"): (30, 10),
    ("black", "male", ">=65"): (20, 2),
    ("black", "female", ">=65"): (7, 4),
    ("Asian", "male", "<45"): (3, 3),
}


def test_cells_are_crossed_and_rare_ones_merged():
    table = table_of(CELLS)
    found = composite(table, min_patients=10, min_outcomes=3)
    # Both ages below 65 are one; black men have too few deaths, and what is merged is
    # 20 + 7 + 3 patients with 2 + 4 + 3 deaths.
    assert found.levels == ("white male 65+", "white female <65", OTHER)
    assert np.bincount(found.codes).tolist() == [40, 90, 30]
    assert found.merged == {
        "black male 65+": 20,
        "black female 65+": 7,
        "Asian male <65": 3,
    }
    assert (found.reference, found.stated) == (
        "white male 65+",
        "the published reference",
    )
    subgroup = found.table.attributes["subgroup"]
    assert subgroup.tolist() == [found.levels[code] for code in found.codes]
    assert list(subgroup.cat.categories) == list(found.levels)


def test_protected_attributes_leave_the_inputs_and_say_so():
    found = composite(table_of(CELLS), min_patients=10, min_outcomes=3)
    assert list(found.table.features) == ["x"]
    assert list(found.table.attributes) == ["subgroup"]
    assert found.table.dropped["z"] == "a leak"
    assert "protected" in found.table.dropped["age"]
    # It was no feature, so that nothing of it was dropped.
    assert "race" not in found.table.dropped


def test_the_smallest_joins_others_that_are_too_few_together():
    cells = {
        ("white", "male", ">=65"): (40, 20),
        ("white", "female", "<45"): (30, 10),
        ("black", "male", "<45"): (20, 10),
        ("black", "female", "<45"): (5, 2),
    }
    found = composite(table_of(cells), min_patients=10, min_outcomes=3)
    assert found.levels == ("white male 65+", "white female <65", OTHER)
    assert found.merged == {"black male <65": 20, "black female <65": 5}


def test_nothing_is_merged_where_all_are_large():
    cells = {key: CELLS[key] for key in list(CELLS)[:3]}
    found = composite(table_of(cells), min_patients=1, min_outcomes=1)
    assert found.levels == ("white male 65+", "white female <65")
    assert found.merged == {}


def test_the_largest_is_the_reference_without_white_men_of_65():
    cells = {key: n for key, n in CELLS.items() if key[:2] != ("white", "male")}
    found = composite(table_of(cells), min_patients=10, min_outcomes=1)
    assert found.reference == found.levels[0] == "white female <65"
    assert found.stated == "the largest subgroup"


def test_ages_without_a_border_at_65_part_at_the_next_one():
    table = table_of(
        {
            ("white", "male", "80+"): (9, 4),
            ("white", "male", "70-79"): (9, 4),
            ("white", "male", "60-69"): (9, 4),
        }
    )
    found = composite(table, min_patients=1, min_outcomes=1)
    assert found.levels == ("white male 70+", "white male <70")
    assert np.bincount(found.codes).tolist() == [18, 9]


def test_a_table_without_race_is_crossed_by_what_it_has():
    table = table_of(CELLS)
    table = dataclasses.replace(table, attributes=table.attributes[["sex", "age"]])
    found = composite(table, min_patients=10, min_outcomes=3)
    assert found.parts == ("sex", "age")
    assert found.reference == "female <65"


def test_tables_that_have_no_subgroups():
    table = table_of(CELLS)
    alone = dataclasses.replace(
        table, attributes=table.attributes[["sex"]].rename(columns={"sex": "gender"})
    )
    with pytest.raises(
        ValueError, match="of the attributes race, sex, age; .* has none"
    ):
        composite(alone, min_patients=1, min_outcomes=1)
    with pytest.raises(ValueError, match="fewer than two subgroups .* --min-patients"):
        composite(table, min_patients=200, min_outcomes=1)
    ages = table.attributes.assign(age=pd.Categorical(["old"] * len(table.label)))
    with pytest.raises(ValueError, match="must contain a number; got 'old'"):
        composite(
            dataclasses.replace(table, attributes=ages), min_patients=1, min_outcomes=1
        )


@pytest.mark.parametrize(("name", "number"), [("nhanes", 13), ("rhc", 10)])
def test_real_tables(name, number):
    table = load(name)
    found = composite(table, min_patients=100, min_outcomes=25)
    assert len(found.levels) == number
    assert found.reference == "white male 65+"
    counts = np.bincount(2 * found.codes + table.label, minlength=2 * number)
    counts = counts.reshape(-1, 2)
    assert counts.min() >= 25
    assert counts.sum(axis=1).min() >= 100
    assert not {"age", "sex", "race"} & set(found.table.features)
    rare = (table.attributes["sex"] == "female").to_numpy()
    codes = [i for i, level in enumerate(found.levels) if " male " in level]
    assert not rare[np.isin(found.codes, codes)].any()


def test_too_few_are_undiagnosed_to_be_compared():
    """Why the outcome in NHANES is that of all adults, as its document says."""
    path = "nhanes/combined_data/2017-2018/NHANES_data_2017-2018.tsv"
    frame = pd.read_csv(BytesIO(verified_bytes(path)), sep="\t", low_memory=False)
    table = load("nhanes")
    own = frame.set_index("SEQN").loc[table.patient_ids]
    chosen = np.asarray(own["DoctorToldYouHaveDiabetes"].astype(str) != "1")
    untold = dataclasses.replace(
        table,
        features=table.features[chosen],
        attributes=table.attributes[chosen],
        label=np.asarray(table.label)[chosen],
        patient_ids=np.asarray(table.patient_ids)[chosen],
    )
    counts = f"{len(untold.label):,} who were not told, {untold.label.sum()} have"
    document = Path(__file__).parents[2] / "docs/intersectional.md"
    assert counts in " ".join(document.read_text(encoding="utf-8").split())
    with pytest.raises(ValueError, match="fewer than two subgroups"):
        composite(untold, min_patients=100, min_outcomes=25)
