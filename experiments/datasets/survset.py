"""Hospital patients of SUPPORT and of its right heart catheterisation study."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.datasets.files import read_pickled_frame
from experiments.datasets.table import NOT_RECORDED, ClinicalTable, recode, validate

_LICENCE = "GPL-3.0 (the SurvSet package); installed, never redistributed"

# Interviews took place over the days after entry, so whoever died first was never
# asked: of SUPPORT2's patients dead on day 3, 99 % lack the patient's ADL and 42 %
# the education, against 51 % and 15 % of those alive at day 180. Whether the answer is
# missing is therefore itself a sign of the outcome, and no imputation hides it.
_INTERVIEW = (
    "asked in an interview after the day of prediction; patients who died early were "
    "never asked, so that a missing answer gives the outcome away"
)
_SOCIAL = (
    "social position: no clinical feature; enters only as one of the attributes that "
    "are made fair, and not in a blind run"
)
_BOOKKEEPING = "identifies the row or is part of the outcome"

_SUPPORT2_DROPPED = {
    "pid": _BOOKKEEPING,
    "event": _BOOKKEEPING,
    "time": _BOOKKEEPING,
    "fac_sfdm2": "function two months later: an outcome ('<2 mo. follow-up' is death)",
    "fac_dnr": "holds do-not-resuscitate orders given after study admission: a leak",
    "num_hday": "hospital day of study entry: a fact of enrolment, not of the patient",
    "num_surv2m": "a prior model's two-month survival score",
    "num_surv6m": "a prior model's six-month survival score",
    "num_edu": _INTERVIEW,
    "num_adlp": _INTERVIEW,
    "num_adls": _INTERVIEW,
    "fac_num_co": "repeats num_num_co",
    "fac_dzclass": "a function of fac_dzgroup",
    "fac_race": _SOCIAL,
    "fac_income": _SOCIAL,
}
_SUPPORT2_LEVELS: Mapping[str, Mapping[Any, str]] = {
    "fac_sex": {"female": "female", "male": "male"},
    "fac_dzgroup": {
        "ARF/MOSF w/Sepsis": "acute respiratory or multi-organ failure with sepsis",
        "MOSF w/Malig": "multi-organ failure with malignancy",
        "CHF": "heart failure",
        "COPD": "chronic obstructive pulmonary disease",
        "Cirrhosis": "cirrhosis",
        "Colon Cancer": "colon cancer",
        "Lung Cancer": "lung cancer",
        "Coma": "coma",
    },
    "fac_diabetes": {0: "no", 1: "yes"},
    "fac_dementia": {0: "no", 1: "yes"},
    "fac_ca": {"no": "no", "yes": "yes", "metastatic": "metastatic"},
}

_RHC_DROPPED = {
    "pid": _BOOKKEEPING,
    "event": _BOOKKEEPING,
    "time": _BOOKKEEPING,
    "num_surv2md1": "a prior model's two-month survival score, to audit, not to feed",
    "fac_dnr1": "a do-not-resuscitate order: a decision about dying, not a finding",
    "fac_swang1": "the catheterisation under study: a treatment, not a finding",
    "num_adld3p": _INTERVIEW,
    "num_edu": _SOCIAL,
    "fac_race": _SOCIAL,
    "fac_income": _SOCIAL,
    "fac_ninsclas": _SOCIAL,
}
_NO_YES: Mapping[Any, str] = {"No": "no", "Yes": "yes"}
_ZERO_ONE: Mapping[Any, str] = {0: "no", 1: "yes"}
_RHC_DIAGNOSES: Mapping[Any, str] = {
    "ARF": "acute respiratory failure",
    "MOSF w/Sepsis": "multi-organ failure with sepsis",
    "MOSF w/Malignancy": "multi-organ failure with malignancy",
    "CHF": "heart failure",
    "COPD": "chronic obstructive pulmonary disease",
    "Cirrhosis": "cirrhosis",
    "Colon Cancer": "colon cancer",
    "Lung Cancer": "lung cancer",
    "Coma": "coma",
}
_RHC_ADMISSION = (
    *("resp", "card", "neuro", "gastr", "renal"),
    *("meta", "hema", "seps", "trauma", "ortho"),
)
_RHC_HISTORY = (
    *("ami", "cardio", "chf", "chrpul", "dement", "gibled"),
    *("immun", "liver", "malig", "psych", "renal", "trans"),
)
_RHC_LEVELS: Mapping[str, Mapping[Any, str]] = {
    "fac_sex": {"Female": "female", "Male": "male"},
    "fac_cat1": _RHC_DIAGNOSES,
    "fac_cat2": {**_RHC_DIAGNOSES, "missing": "none"},
    "fac_ca": {"No": "no", "Yes": "yes", "Metastatic": "metastatic"},
    **{f"fac_{name}": _NO_YES for name in _RHC_ADMISSION},
    **{f"fac_{name}hx": _ZERO_ONE for name in _RHC_HISTORY},
}


def support2() -> ClinicalTable:
    """Returns SUPPORT2: 9,105 seriously ill inpatients, death within 180 days.

    The prediction is made at the end of the third day of study, when the vital signs
    and labs were taken; everybody lived to see it. A zero heart rate, breathing rate or
    blood pressure (103 patients, 62 of them with two or three zeros) is kept: it is the
    worst value of the day, and two thirds of these patients died. The day's physiology
    score is kept too, as a published covariate, although its weights were fitted to
    deaths among part of these patients.

    Returns:
        A table of 9,105 patients, of whom 46.8 % died; nobody was lost to follow-up
        before day 180.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    frame = read_pickled_frame("SurvSet/resources/pickles/support2.pickle")
    return _support2(frame, "support2", "SUPPORT2, seriously ill inpatients")


def support2_sepsis() -> ClinicalTable:
    """Returns SUPPORT2's 3,515 patients in organ failure with sepsis.

    Their disease group is a single level, so it is no feature here.

    Returns:
        A table as `support2`'s; 44.6 % died within 180 days.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    frame = read_pickled_frame("SurvSet/resources/pickles/support2.pickle")
    sepsis = frame[frame["fac_dzgroup"] == "ARF/MOSF w/Sepsis"]
    return _support2(
        sepsis,
        "support2_sepsis",
        "SUPPORT2, acute respiratory or multi-organ failure with sepsis",
        {"fac_dzgroup": "the same for every patient of the subset"},
        {"not in the sepsis disease group": len(frame) - len(sepsis)},
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
    frame = read_pickled_frame("SurvSet/resources/pickles/rhc.pickle")
    return _rhc(frame, "rhc", "RHC, critically ill inpatients")


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
    frame = read_pickled_frame("SurvSet/resources/pickles/rhc.pickle")
    sepsis = frame[
        (frame["fac_cat1"] == "MOSF w/Sepsis")
        | (frame["fac_cat2"] == "MOSF w/Sepsis")
        | (frame["fac_seps"] == "Yes")
    ]
    return _rhc(
        sepsis,
        "rhc_sepsis",
        "RHC, critically ill inpatients with sepsis",
        {"no sepsis": len(frame) - len(sepsis)},
    )


def _support2(
    frame: pd.DataFrame,
    name: str,
    title: str,
    also_dropped: Mapping[str, str] | None = None,
    excluded: Mapping[str, int] | None = None,
) -> ClinicalTable:
    dropped = {**_SUPPORT2_DROPPED, **(also_dropped or {})}
    frame, label, lost = known_at(frame, 180)
    attributes = pd.DataFrame(
        {
            "sex": recode(frame["fac_sex"], _SUPPORT2_LEVELS["fac_sex"]),
            # 112 other, 79 Asian and 42 not recorded are too few to audit apart.
            "race": recode(
                frame["fac_race"],
                {
                    "white": "white",
                    "black": "black",
                    "hispanic": "hispanic",
                    "other": "other or not recorded",
                    "asian": "other or not recorded",
                    "missing": "other or not recorded",
                },
            ),
            "income": recode(
                frame["fac_income"],
                {
                    "under $11k": "under $11,000",
                    "$11-$25k": "$11,000 to $25,000",
                    "$25-$50k": "$25,000 to $50,000",
                    ">$50k": "over $50,000",
                    "missing": NOT_RECORDED,
                },
            ),
            "age": _age_group(frame["num_age"]),
        }
    )
    return validate(
        ClinicalTable(
            name=name,
            title=title,
            features=_features(frame, dropped, _SUPPORT2_LEVELS),
            label=label,
            outcome="death within 180 days",
            attributes=attributes,
            patient_ids=frame["pid"].to_numpy(),
            dropped=dropped,
            excluded={
                **(excluded or {}),
                "lost to follow-up before day 180": lost,
            },
            citation=(
                "Knaus et al. (1995), The SUPPORT prognostic model, Annals of Internal "
                "Medicine 122:191-203; as shipped by SurvSet (Drysdale 2022)"
            ),
            licence=_LICENCE,
        )
    )


def _rhc(
    frame: pd.DataFrame,
    name: str,
    title: str,
    excluded: Mapping[str, int] | None = None,
) -> ClinicalTable:
    frame, label, lost = known_at(frame, 30)
    weight = frame["num_wtkilo1"]
    frame = frame.assign(num_wtkilo1=weight.where(weight > 0))
    return validate(
        ClinicalTable(
            name=name,
            title=title,
            features=_features(frame, _RHC_DROPPED, _RHC_LEVELS),
            label=label,
            outcome="death within 30 days",
            attributes=rhc_attributes(frame),
            patient_ids=frame["pid"].to_numpy(),
            dropped=dict(_RHC_DROPPED),
            excluded={**(excluded or {}), "lost to follow-up before day 30": lost},
            citation=(
                "Connors et al. (1996), The effectiveness of right heart "
                "catheterization in the initial care of critically ill patients, JAMA "
                "276:889-897; as shipped by SurvSet (Drysdale 2022)"
            ),
            licence=_LICENCE,
        )
    )


def rhc_attributes(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns RHC's sensitive attributes in plain words, from its source columns."""
    return pd.DataFrame(
        {
            "sex": recode(frame["fac_sex"], _RHC_LEVELS["fac_sex"]),
            "race": recode(frame["fac_race"], _same("white", "black", "other")),
            "income": recode(
                frame["fac_income"],
                {
                    "Under $11k": "under $11,000",
                    "$11-$25k": "$11,000 to $25,000",
                    "$25-$50k": "$25,000 to $50,000",
                    "> $50k": "over $50,000",
                },
            ),
            "insurance": recode(
                frame["fac_ninsclas"],
                {
                    "Private": "private",
                    "Medicare": "Medicare",
                    "Private & Medicare": "private and Medicare",
                    "Medicaid": "Medicaid",
                    "Medicare & Medicaid": "Medicare and Medicaid",
                    "No insurance": "none",
                },
            ),
            "age": _age_group(frame["num_age"]),
        }
    )


def known_at(frame: pd.DataFrame, days: int) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Rows with a known status at `days`, whether they died by then, rows left out."""
    died = (frame["event"] == 1) & (frame["time"] <= days)
    lost = (frame["event"] == 0) & (frame["time"] < days)
    known = frame[~lost].reset_index(drop=True)
    return known, died[~lost].to_numpy(dtype=np.int8), int(lost.sum())


def _features(
    frame: pd.DataFrame,
    dropped: Mapping[str, str],
    levels: Mapping[str, Mapping[Any, str]],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            column.removeprefix("num_").removeprefix("fac_"): (
                recode(frame[column], levels[column])
                if column in levels
                else frame[column].astype(np.float64)
            )
            for column in frame.columns
            if column not in dropped
        }
    )


def _same(*levels: str) -> Mapping[Any, str]:
    return {level: level for level in levels}


def _age_group(age: pd.Series) -> pd.Series:
    older = (age >= 65).astype(object).map({False: "<65", True: ">=65"})
    return older.astype(pd.CategoricalDtype(["<65", ">=65"]))
