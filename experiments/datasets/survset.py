"""Hospital patients of SUPPORT and of its right heart catheterisation study."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.datasets import table
from experiments.datasets.files import read_pickled_frame
from experiments.datasets.table import ClinicalTable, Recoding, lowered, recode

Levels = Mapping[str, Mapping[Any, str]]

# Interviews took place over the days after entry, so patients who died earlier were
# never asked. Among SUPPORT2's patients dead on day 3, 99 % lack the patient's ADL and
# 42 % the education, against 51 % and 15 % of patients alive at day 180. A missing
# answer is therefore itself a sign of the outcome, which no imputation hides.
_INTERVIEW = (
    "asked in an interview after the day of prediction; patients who died early were "
    "never asked, so that a missing answer gives the outcome away"
)
_BOOKKEEPING = dict.fromkeys(
    ("pid", "event", "time"), "identifies the row or is part of the outcome"
)
_SUPPORT2_DROPPED = {
    **_BOOKKEEPING,
    "fac_sfdm2": "function two months later: an outcome ('<2 mo. follow-up' is death)",
    "fac_dnr": "holds do-not-resuscitate orders given after study admission: a leak",
    "num_hday": "hospital day of study entry: a fact of enrolment, not of the patient",
    "num_surv2m": "a prior model's two-month survival score",
    "num_surv6m": "a prior model's six-month survival score",
    **dict.fromkeys(("num_edu", "num_adlp", "num_adls"), _INTERVIEW),
    "fac_num_co": "repeats num_num_co",
    "fac_dzclass": "a function of fac_dzgroup",
    **dict.fromkeys(("fac_race", "fac_income"), table.SOCIAL),
}
_RHC_DROPPED = {
    **_BOOKKEEPING,
    "num_surv2md1": "a prior model's two-month survival score, to audit, not to feed",
    "fac_dnr1": "a do-not-resuscitate order: a decision about dying, not a finding",
    "fac_swang1": "the catheterisation under study: a treatment, not a finding",
    "num_adld3p": _INTERVIEW,
    **dict.fromkeys(
        ("num_edu", "fac_race", "fac_income", "fac_ninsclas"), table.SOCIAL
    ),
}
_ZERO_ONE = {0: "no", 1: "yes"}
_SEXES = lowered("female", "male", "Female", "Male")
_DISEASES = {
    "CHF": "heart failure",
    "COPD": "chronic obstructive pulmonary disease",
    **lowered("Cirrhosis", "Colon Cancer", "Lung Cancer", "Coma"),
}
_SUPPORT2_LEVELS: Levels = {
    "fac_sex": _SEXES,
    "fac_dzgroup": {
        "ARF/MOSF w/Sepsis": "acute respiratory or multi-organ failure with sepsis",
        "MOSF w/Malig": "multi-organ failure with malignancy",
        **_DISEASES,
    },
    "fac_diabetes": _ZERO_ONE,
    "fac_dementia": _ZERO_ONE,
    "fac_ca": lowered("no", "yes", "metastatic"),
}
_RHC_DIAGNOSES = {
    "ARF": "acute respiratory failure",
    "MOSF w/Sepsis": "multi-organ failure with sepsis",
    "MOSF w/Malignancy": "multi-organ failure with malignancy",
    **_DISEASES,
}
_RHC_ADMISSION = "resp card neuro gastr renal meta hema seps trauma ortho"
_RHC_HISTORY = "ami cardio chf chrpul dement gibled immun liver malig psych renal trans"
_RHC_LEVELS: Levels = {
    "fac_sex": _SEXES,
    "fac_cat1": _RHC_DIAGNOSES,
    "fac_cat2": {**_RHC_DIAGNOSES, "missing": "none"},
    "fac_ca": lowered("No", "Yes", "Metastatic"),
    **{f"fac_{name}": lowered("No", "Yes") for name in _RHC_ADMISSION.split()},
    **{f"fac_{name}hx": _ZERO_ONE for name in _RHC_HISTORY.split()},
}
_INCOMES = {
    **dict.fromkeys(("under $11k", "Under $11k"), "under $11,000"),
    "$11-$25k": "$11,000 to $25,000",
    "$25-$50k": "$25,000 to $50,000",
    **dict.fromkeys((">$50k", "> $50k"), "over $50,000"),
}
# 112 other, 79 Asian and 42 not recorded are too few to audit separately.
_FEW = dict.fromkeys(("other", "asian", "missing"), "other or not recorded")
_SUPPORT2_ATTRIBUTES: Recoding = {
    "sex": ("fac_sex", _SEXES),
    "race": ("fac_race", lowered("white", "black", "hispanic") | _FEW),
    "income": ("fac_income", _INCOMES | {"missing": table.NOT_RECORDED}),
}
_INSURANCES = {
    "Private": "private",
    "Medicare": "Medicare",
    "Private & Medicare": "private and Medicare",
    "Medicaid": "Medicaid",
    "Medicare & Medicaid": "Medicare and Medicaid",
    "No insurance": "none",
}
RHC_ATTRIBUTES: Recoding = {
    "sex": ("fac_sex", _SEXES),
    "race": ("fac_race", lowered("white", "black", "other")),
    "income": ("fac_income", _INCOMES),
    "insurance": ("fac_ninsclas", _INSURANCES),
}


def support2() -> ClinicalTable:
    """Returns SUPPORT2: 9,105 seriously ill inpatients, death within 180 days.

    The prediction is made at the end of the third day of study, when the vital signs
    and labs were taken; all patients were alive then. A zero heart rate, breathing rate
    or blood pressure is kept, since it is the worst value of the day. 103 patients have
    such a zero, 62 of them two or three zeros, and two thirds of the 103 died. The
    day's physiology score is kept too, as a published covariate, although its weights
    were fitted to deaths among part of the study's patients.

    Returns:
        A table of 9,105 patients, of whom 46.8 % died; nobody was lost to follow-up
        before day 180.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    title = "SUPPORT2, seriously ill inpatients"
    return _table(_SUPPORT2, "support2", title, _read("support2"))


def support2_sepsis() -> ClinicalTable:
    """Returns SUPPORT2's 3,515 patients in organ failure with sepsis.

    All of them have the same disease group, which therefore is not a feature here.

    Returns:
        A table as `support2`'s; 44.6 % died within 180 days.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    frame = _read("support2")
    sepsis = frame[frame["fac_dzgroup"] == "ARF/MOSF w/Sepsis"]
    return _table(
        _SUPPORT2,
        "support2_sepsis",
        "SUPPORT2, acute respiratory or multi-organ failure with sepsis",
        sepsis,
        {"not in the sepsis disease group": len(frame) - len(sepsis)},
        {"fac_dzgroup": "the same for every patient of the subset"},
    )


def rhc() -> ClinicalTable:
    """Returns RHC: 5,735 critically ill patients, death within 30 days.

    The prediction is made at the end of the first day in intensive care. The patients
    come from SUPPORT's hospitals: never use one table to validate a model of the other.
    In the source an unmeasured lab was filled with a normal value (albumin 3.5 in 2,509
    rows, bilirubin 1.01 in 2,043, PaO2/FiO2 333 in 554); a missing weight was filled
    with 0, which is NaN here. A zero heart rate, breathing rate or blood pressure is
    kept, as in `support2`. The acute physiology score stays: its weights come from
    other patients.

    Returns:
        A table of 5,727 patients, of whom 33.5 % died; 8 lost to follow-up before day
        30 are excluded.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    return _table(_RHC, "rhc", "RHC, critically ill inpatients", _read("rhc"))


def rhc_sepsis() -> ClinicalTable:
    """Returns RHC's patients with sepsis: 2,218 less those lost to follow-up.

    Sepsis is multi-organ failure with sepsis as first or second disease category, or a
    sepsis diagnosis on admission.

    Returns:
        A table as `rhc`'s; 37.6 % died within 30 days.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    frame = _read("rhc")
    failing = (frame[["fac_cat1", "fac_cat2"]] == "MOSF w/Sepsis").any(axis=1)
    sepsis = frame[failing | (frame["fac_seps"] == "Yes")]
    title = "RHC, critically ill inpatients with sepsis"
    excluded = {"no sepsis": len(frame) - len(sepsis)}
    return _table(_RHC, "rhc_sepsis", title, sepsis, excluded)


class _Study(NamedTuple):
    """The settings of all tables of a study: columns, recoding, horizon, source."""

    days: int
    dropped: Mapping[str, str]
    levels: Levels
    attributes: Recoding
    citation: str


_SUPPORT2 = _Study(
    180,
    _SUPPORT2_DROPPED,
    _SUPPORT2_LEVELS,
    _SUPPORT2_ATTRIBUTES,
    "Knaus et al. (1995), The SUPPORT prognostic model, Annals of Internal "
    "Medicine 122:191-203",
)
_RHC = _Study(
    30,
    _RHC_DROPPED,
    _RHC_LEVELS,
    RHC_ATTRIBUTES,
    "Connors et al. (1996), The effectiveness of right heart catheterization in the "
    "initial care of critically ill patients, JAMA 276:889-897",
)


def _read(study: str) -> pd.DataFrame:
    frame = read_pickled_frame(f"SurvSet/resources/pickles/{study}.pickle")
    if "num_wtkilo1" in frame:
        # A weight of 0 was not measured.
        frame = frame.assign(num_wtkilo1=frame["num_wtkilo1"].where(lambda w: w > 0))
    return frame


def _table(
    study: _Study,
    name: str,
    title: str,
    frame: pd.DataFrame,
    excluded: Mapping[str, int] | None = None,
    also_dropped: Mapping[str, str] | None = None,
) -> ClinicalTable:
    dropped = {**study.dropped, **(also_dropped or {})}
    frame, label, lost = known_at(frame, study.days)
    age = table.bands(frame["num_age"], (0, 65), ("<65", ">=65"))
    features = {
        column.removeprefix("num_").removeprefix("fac_"): (
            recode(frame[column], study.levels[column])
            if column in study.levels
            else frame[column].astype(np.float64)
        )
        for column in frame.columns
        if column not in dropped
    }
    excluded = {**(excluded or {}), f"lost to follow-up before day {study.days}": lost}
    return table.validate(
        ClinicalTable(
            name=name,
            title=title,
            features=pd.DataFrame(features),
            label=label,
            outcome=f"death within {study.days} days",
            attributes=table.recoded(frame, study.attributes).assign(age=age),
            patient_ids=frame["pid"].to_numpy(),
            dropped=dropped,
            excluded=excluded,
            citation=f"{study.citation}; as shipped by SurvSet (Drysdale 2022)",
            licence="GPL-3.0 (the SurvSet package); installed, never redistributed",
        )
    )


def known_at(frame: pd.DataFrame, days: int) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Returns rows with a known status at `days`, deaths by then, and rows left out."""
    died = (frame["event"] == 1) & (frame["time"] <= days)
    lost = (frame["event"] == 0) & (frame["time"] < days)
    known = frame[~lost].reset_index(drop=True)
    return known, died[~lost].to_numpy(dtype=np.int8), int(lost.sum())
