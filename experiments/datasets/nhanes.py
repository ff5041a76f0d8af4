"""Adults of the United States' 2017-2018 health survey (NHANES)."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
import pandas as pd

from experiments.datasets import table
from experiments.datasets.files import verified_bytes
from experiments.datasets.table import ClinicalTable, bands, lowered, recode, validate

_NUMERIC = {
    "AgeInYearsAtScreening": "age",
    "BodyMassIndexKgm2": "body_mass_index",
    "WaistCircumferenceCm": "waist",
    "StandingHeightCm": "height",
    "60SecPulse30SecPulse2": "pulse",
    "DirectHdlcholesterolMgdl": "hdl_cholesterol",
    "TotalCholesterolMgdl": "total_cholesterol",
    "SleepHoursWeekdaysOrWorkdays": "sleep_hours",
    "MinutesSedentaryActivity": "sedentary_minutes",
}
_YES_NO = {
    "EverToldYouHadHeartAttack": "heart_attack",
    "EverToldYouHadAStroke": "stroke",
    "EverToldYouHadCancerOrMalignancy": "cancer",
    "EverBeenToldYouHaveAsthma": "asthma",
    "DoctorEverSaidYouHadArthritis": "arthritis",
    "EverToldDoctorHadTroubleSleeping": "trouble_sleeping",
    "HaveSeriousDifficultyWalking": "difficulty_walking",
    "VigorousWorkActivity": "vigorous_work",
    "ModerateWorkActivity": "moderate_work",
    "WalkOrBicycle": "walks_or_bicycles",
    "VigorousRecreationalActivities": "vigorous_recreation",
    "ModerateRecreationalActivities": "moderate_recreation",
}
_SYSTOLIC = [f"SystolicBloodPres{n}RdgMmHg" for n in ("1St", "2Nd", "3Rd")]
_DIASTOLIC = [f"DiastolicBloodPres{n}RdgMmHg" for n in ("1St", "2Nd", "3Rd")]
_DEPRESSION = """
    HaveLittleInterestInDoingThings FeelingDownDepressedOrHopeless
    TroubleSleepingOrSleepingTooMuch FeelingTiredOrHavingLittleEnergy
    PoorAppetiteOrOvereating FeelingBadAboutYourself TroubleConcentratingOnThings
    MovingOrSpeakingSlowlyOrTooFast ThoughtYouWouldBeBetterOffDead
"""
_OTHER_SOURCES = """
    Gender GeneralHealthCondition HowOftenDoYouSnore
    SmokedAtLeast100CigarettesInLife DoYouNowSmokeCigarettes
"""
_HEALTH = lowered("Excellent", "Very good", "Good")
_HEALTH |= {"Fair or": "fair", "Poor?": "poor"}

# Why no model may read them -> columns.
_LEAKS = {
    "the outcome itself": "Glycohemoglobin",
    "the diabetes questionnaire: the answer follows from the diagnosis": """
        DoctorToldYouHaveDiabetes AgeWhenFirstToldYouHadDiabetes FamilyHistory
        EverToldYouHavePrediabetes EverToldHaveHealthRiskForDiabetes
        TakingInsulinNow TakeDiabeticPillsToLowerBloodSugar WhatWasYourLastA1CLevel
    """,
    "a special diet: the diabetic diet is one, so that it reveals the diagnosis": """
        OnSpecialDiet DiabeticDiet LowCarbohydrateDiet WeightLosslowCalorieDiet
        LowFatlowCholesterolDiet LowSaltlowSodiumDiet
    """,
    table.SOCIAL: """
        RacehispanicOrigin RacehispanicOriginWNhAsian EducationLevelAdults20
        EducationLevelChildrenyouth619 CoveredByHealthInsurance
        RatioOfFamilyIncomeToPoverty AnnualHouseholdIncome AnnualFamilyIncome
        MaritalStatus
    """,
}
_RECALL = "what was eaten, which a diabetes diagnosis changes"
_ELSEWHERE = "not part of what a clinic visit records"


def nhanes() -> ClinicalTable:
    """Returns NHANES 2017-2018: 5,018 adults, HbA1c of 6.5 % or more.

    The features are what a clinic visit records: age, sex, body measures, blood
    pressure and pulse (means of the readings), cholesterol, history, habits. The file
    has no survey weights, so results from the file are not estimates for the
    population. Ages above 80 are recorded as 80.

    Returns:
        A table of 5,018 adults of 20 years or more, 14.8 % with the outcome.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    path = "nhanes/combined_data/2017-2018/NHANES_data_2017-2018.tsv"
    frame = pd.read_csv(BytesIO(verified_bytes(path)), sep="\t", low_memory=False)
    adult = frame["AgeInYearsAtScreening"] >= 20
    measured = frame["Glycohemoglobin"].notna()
    kept = frame[adult & measured].reset_index(drop=True)
    return validate(
        ClinicalTable(
            name="nhanes",
            title="NHANES 2017-2018, adults",
            features=_features(kept),
            label=(kept["Glycohemoglobin"] >= 6.5).to_numpy(dtype=np.int8),
            outcome="HbA1c of 6.5 % or more",
            attributes=_attributes(kept),
            patient_ids=kept["SEQN"].to_numpy(dtype=np.int64),
            dropped=_dropped(list(frame.columns)),
            excluded={
                "younger than 20": int((~adult).sum()),
                "adult without HbA1c": int((adult & ~measured).sum()),
            },
            citation=(
                "Centers for Disease Control and Prevention, National Health and "
                "Nutrition Examination Survey 2017-2018; as shipped by the nhanes "
                "package (Poldrack)"
            ),
            licence="public domain (the data); MIT (the nhanes package)",
        )
    )


def _features(frame: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {
        name: _number(frame[source]) for source, name in _NUMERIC.items()
    }
    # 7777 and 9999 are "refused" and "don't know".
    sedentary = columns["sedentary_minutes"]
    columns["sedentary_minutes"] = sedentary.where(sedentary <= 24 * 60)
    columns["systolic_pressure"] = frame[_SYSTOLIC].mean(axis=1)
    # A diastolic reading of 0 means that the sound never vanished, not a pressure.
    diastolic = frame[_DIASTOLIC].where(frame[_DIASTOLIC] >= 1)
    columns["diastolic_pressure"] = diastolic.mean(axis=1)
    depression = frame[_DEPRESSION.split()].apply(_number)
    columns["depression_score"] = depression.sum(axis=1, skipna=False)
    columns["sex"] = _sex(frame)
    columns["general_health"] = recode(frame["GeneralHealthCondition"], _HEALTH)
    columns["smoking"] = _smoking(frame)
    snoring = frame["HowOftenDoYouSnore"].str.split(" ").str[0]
    often = lowered("Never", "Rarely", "Occasionally", "Frequently")
    columns["snoring"] = recode(snoring, often)
    for source, name in _YES_NO.items():
        columns[name] = recode(_number(frame[source]), {0.0: "no", 1.0: "yes"})
    return pd.DataFrame(columns)


def _smoking(frame: pd.DataFrame) -> pd.Series:
    ever = _number(frame["SmokedAtLeast100CigarettesInLife"])
    now = frame["DoYouNowSmokeCigarettes"].astype(object)
    habits = {"never": "never", "Not at all": "former"}
    habits |= lowered("Some days", "Every day")
    return recode(now.where(ever != 0, "never"), habits)


def _sex(frame: pd.DataFrame) -> pd.Series:
    return recode(frame["Gender"], lowered("Female", "Male"))


def _attributes(frame: pd.DataFrame) -> pd.DataFrame:
    races = {
        "Non-Hispanic White": "white",
        "Non-Hispanic Black": "black",
        "Mexican American": "Mexican American",
        "Other Hispanic": "other Hispanic",
        "Non-Hispanic Asian": "Asian",
        "Other Race - Including Multi-Racial": "other or several",
    }
    education = {
        "Less than 9th grade": "below 9th grade",
        "9-11th grade (Includes 12th grade with no diploma)": "9th to 11th grade",
        "High school graduate/GED or equivalent": "high school",
        "Some college or AA degree": "some college",
        "College graduate or above": "college",
    }
    age = frame["AgeInYearsAtScreening"]
    line = "times the poverty line"
    incomes = (f"under 1.3 {line}", f"1.3 to 3.5 {line}", f"3.5 {line} or more")
    income = frame["RatioOfFamilyIncomeToPoverty"]
    insured = _number(frame["CoveredByHealthInsurance"])
    return pd.DataFrame(
        {
            "sex": _sex(frame),
            "race": recode(frame["RacehispanicOriginWNhAsian"], races),
            "insured": _recorded(recode(insured, {1.0: "yes", 0.0: "no"})),
            "education": _recorded(recode(frame["EducationLevelAdults20"], education)),
            "age": bands(age, (0, 45, 65), ("<45", "45-64", ">=65")),
            "poverty": _recorded(bands(income, (0, 1.3, 3.5), incomes)),
        }
    )


def _dropped(columns: list[str]) -> Mapping[str, str]:
    used = {*_NUMERIC, *_YES_NO, *_SYSTOLIC, *_DIASTOLIC}
    used |= {*_DEPRESSION.split(), *_OTHER_SOURCES.split()}
    recalled = {c: _RECALL for c in columns if c.endswith(("_DR1TOT", "_DR2TOT"))}
    leaks = {name: why for why, names in _LEAKS.items() for name in names.split()}
    reasons = recalled | leaks
    return {c: reasons.get(c, _ELSEWHERE) for c in columns if c not in used}


def _number(column: pd.Series) -> pd.Series:
    """Returns floats, with 0 for 5.4e-79, a zero in the file's first format."""
    number = pd.to_numeric(column).astype(np.float64)
    return number.where(number.isna() | (number.abs() > 1e-70), 0.0)


def _recorded(column: pd.Series) -> pd.Series:
    return column.cat.add_categories([table.NOT_RECORDED]).fillna(table.NOT_RECORDED)
