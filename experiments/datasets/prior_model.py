"""A published model's predictions for real patients, as input of an audit.

RHC has a column with the probability of living for two months that SUPPORT's prognostic
model gave each patient (Knaus et al. 1995). The predictions were computed before the
study's outcomes were known, and no model here was fitted to the outcomes.
"""

import pandas as pd

from experiments.datasets.files import read_pickled_frame
from experiments.datasets.survset import RHC_ATTRIBUTES, known_at
from experiments.datasets.table import recoded

# The model predicts survival of two months.
_DAYS = 60


def rhc_prior_model() -> pd.DataFrame:
    """Returns RHC's patients with a prior model's risk of death within 60 days.

    Returns:
        A row for each patient known at day 60: `patient`, `died` (0 or 1), `risk` in
        [0, 1] (one minus the model's two-month survival), and `sex`, `race`, `income`,
        `insurance` in plain words and `age` in years.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If the file is not the pinned one.
    """
    source = read_pickled_frame("SurvSet/resources/pickles/rhc.pickle")
    frame, died, _ = known_at(source, _DAYS)
    return pd.DataFrame(
        {
            "patient": frame["pid"],
            "died": died,
            # The source has six decimals; a subtraction would show sixteen.
            "risk": (1 - frame["num_surv2md1"]).round(6),
            **recoded(frame, RHC_ATTRIBUTES),
            "age": frame["num_age"].round(1),
        }
    )
