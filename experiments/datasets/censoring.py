"""Weights of patients with known outcome that represent patients lost to follow-up."""

import numpy as np
from jaxtyping import Bool, Float, Int


def censoring_weights(
    times: Float[np.ndarray, " n"],
    died: Bool[np.ndarray, " n"],
    strata: Int[np.ndarray, " n"],
    *,
    horizon: float,
) -> Float[np.ndarray, " n"]:
    """Returns inverse-probability-of-censoring weights for the status at a horizon.

    Complete cases include every early death but only the survivors followed to the
    horizon. A patient of known status represents 1/G(t−) patients,

        w_i = 1 / G(min(T_i, horizon)−),

    with G the Kaplan-Meier curve of censoring in the patient's stratum. Deaths come
    before censorings of the same day. The weighted fraction of deaths in a stratum is
    then exactly the Kaplan-Meier risk of death at the horizon.

    Censoring must be independent of death within a stratum. A feature that reveals who
    could have been followed long enough, such as the calendar year, violates this
    assumption.

    Args:
        times: `[n]`, time of death or of last follow-up.
        died: `[n]`, True where `times` is a death.
        strata: `[n]`, the stratum of each patient.
        horizon: Time of the status; a death at the horizon counts.

    Returns:
        `[n]`: 0 where the status is unknown (alive, followed for less than the
        horizon). The weights of a stratum add up to its number of patients.

    Raises:
        ValueError: If lengths differ, a time is NaN, or the patients followed longest
            in a stratum were lost before the horizon, so that nobody can represent
            them.

    References:
        Robins & Finkelstein 2000, "Correcting for noncompliance and dependent
        censoring in an AIDS clinical trial with inverse probability of censoring
        weighted (IPCW) log-rank tests". Satten & Datta 2001, "The Kaplan-Meier
        estimator as an inverse-probability-of-censoring weighted average".

    Example:
        >>> import numpy as np
        >>> # Of four, one is lost at 2: the two who come later stand for it too.
        >>> censoring_weights(np.array([1.0, 2.0, 3.0, 9.0]),
        ...                   np.array([True, False, True, False]),
        ...                   np.zeros(4, int), horizon=5.0)
        array([1. , 0. , 1.5, 1.5])
    """
    if not len(times) == len(died) == len(strata):
        raise ValueError(
            f"times, died and strata have {len(times)}, {len(died)} and {len(strata)} "
            "rows"
        )
    unknown = int(np.isnan(times).sum())
    if unknown:
        raise ValueError(
            f"times must not be NaN; got {unknown} times that are NaN. Leave out "
            "patients who were never followed."
        )
    known = (died & (times <= horizon)) | (times >= horizon)
    weights = np.zeros(len(times))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        last = rows[times[rows] == times[rows].max()]
        if not known[last].all():
            raise ValueError(
                f"stratum {stratum}: nobody was followed beyond {times[last[0]]:g}, "
                f"when {int((~known[last]).sum())} patients were lost, so nobody can "
                f"represent them at {horizon:g}; merge the stratum with another"
            )
        until = np.minimum(times[rows], horizon)
        weights[rows] = known[rows] / _uncensored_before(times[rows], died[rows], until)
    return weights


def _uncensored_before(
    times: np.ndarray, died: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Computes the Kaplan-Meier probability of no censoring before each of `at`."""
    when, lost = np.unique(times[~died], return_counts=True)
    # Patients at risk of being lost at t are followed after t or lost at t.
    later = len(times) - np.searchsorted(np.sort(times), when, side="right")
    survival = np.concatenate([[1.0], np.cumprod(1 - lost / (later + lost))])
    return survival[np.searchsorted(when, at, side="left")]
