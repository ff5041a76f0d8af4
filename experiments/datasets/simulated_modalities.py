"""Patients from a known distribution, with modalities of known AUC in each group."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from experiments.datasets.modalities import Dense
from experiments.datasets.multimodal import STATIC, MultimodalTable, validate_multimodal
from experiments.datasets.table import ClinicalTable

GROUPS = ("A", "B")
MODALITIES = (STATIC, "easy", "hard")
_WIDTHS = {STATIC: 4, "easy": 8, "hard": 8}
_EASY_SCALE = 5.0
_PATIENTS = 6000


@dataclass(frozen=True)
class Law:
    """The distribution from which patients are drawn.

    Attributes:
        separations: Modality -> δ in each group, in standard deviations between the
            classes' means. By default `easy` separates less in B and `hard` as much
            more, so that all modalities together separate both groups equally well.
        missing: Modality -> the fraction of each group that lacks the modality;
            "static" is never missing.
        prevalence: P(y = 1), in both groups.
        share_of_b: P(group = B).
    """

    separations: Mapping[str, tuple[float, float]]
    missing: Mapping[str, tuple[float, float]]
    prevalence: float
    share_of_b: float


DEFAULT_LAW = Law(
    separations={
        STATIC: (0.5, 0.5),
        "easy": (1.4, 0.7),
        "hard": (1.6, math.sqrt(1.4**2 + 1.6**2 - 0.7**2)),
    },
    missing={"easy": (0.1, 0.1), "hard": (0.1, 0.2)},
    prevalence=0.3,
    share_of_b=0.3,
)


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth about simulated patients, which no study of real patients knows.

    Attributes:
        law: The distribution from which the patients were drawn.
        log_odds: `[n, m]`, the log likelihood ratio of y = 1 to y = 0 that each
            modality gives for each patient, "static" first, 0 where the modality is
            missing. Modalities are independent given class and group, so the sum over
            some modalities is their best score.
    """

    law: Law
    log_odds: Float[np.ndarray, "n m"]

    def best_auc(self, group: str, *modalities: str) -> float:
        """Returns the largest AUC possible in a group with these modalities present.

            AUC = Φ(√(Σ_m δ_m² / 2))

        Args:
            group: "A" or "B".
            *modalities: Names, each once; at least one.

        Returns:
            The AUC of the log likelihood ratio, in patients who have all modalities.

        Raises:
            ValueError: If the group or a modality is unknown, or no modality is named.

        Example:
            >>> _, truth = simulate(100, seed=0)
            >>> [round(truth.best_auc(g, "static", "easy", "hard"), 3) for g in "AB"]
            [0.939, 0.939]
            >>> [round(truth.best_auc(g, "easy"), 3) for g in "AB"]
            [0.839, 0.69]
        """
        known = group in GROUPS and set(modalities) <= {*MODALITIES}
        if not (known and modalities):
            raise ValueError(
                f"the group must be one of {GROUPS} and modalities some of "
                f"{MODALITIES}; got {group!r} and {modalities}"
            )
        separations = self.law.separations
        total = sum(
            separations[name][GROUPS.index(group)] ** 2 for name in set(modalities)
        )
        return 0.5 * (1 + math.erf(math.sqrt(total) / 2))


def simulate(
    num_patients: int, *, seed: int, law: Law = DEFAULT_LAW
) -> tuple[MultimodalTable, Truth]:
    """Returns patients with a tabular, an easy and a hard modality, and the truth.

    In modality m and group g a patient's latent vector is

        x_m | y, g ~ N((2y − 1) δ_{m,g} / 2 · u_m, I),

    so its best score is δ_{m,g} u_mᵀx_m, with AUC Φ(δ_{m,g} / √2). The observed vector
    is a one-to-one function of x_m, which does not change the AUC, but changes how hard
    the modality is to learn:

    - "static": four numbers, with u a random direction, and the group itself, which the
      best score needs. Weak.
    - "easy": u is the first coordinate, which is five times as large as the other
      coordinates. The quickest to learn.
    - "hard": the signal's sign is flipped where another coordinate is negative. Either
      coordinate alone is uninformative, and no linear score has an AUC above 1/2. But
      by default this modality has the largest δ, especially in B.

    So by default, a model that relies on "easy" is unfair to B, and the best fused
    model is not. Values of a missing modality are 0.

    Args:
        num_patients: At least 1; enough for both classes and both groups to occur.
        seed: Seed of NumPy's generator.
        law: The distribution to draw from.

    Returns:
        The validated data, and the truth about them.

    Raises:
        ValueError: If a fraction or a prevalence is not a probability, a separation is
            not finite, "static" is among the missing, or the draw lacks a class or a
            group.

    Example:
        >>> data, truth = simulate(500, seed=1)
        >>> data.present.shape, data.modalities["hard"].values.shape
        ((500, 3), (500, 8))
    """
    _check(law)
    generator = np.random.default_rng(seed)
    in_b = (generator.random(num_patients) < law.share_of_b).astype(np.int64)
    label = (generator.random(num_patients) < law.prevalence).astype(np.int8)
    direction = generator.standard_normal(_WIDTHS[STATIC])
    direction /= np.linalg.norm(direction)
    observed, log_odds, present = {}, [], []
    for name in MODALITIES:
        separation = np.array(law.separations[name])[in_b]
        # The signal along u, and noise in the directions across it.
        latent = generator.standard_normal((num_patients, _WIDTHS[name]))
        signal = latent[:, 0] + (label - 0.5) * separation
        missing = np.array(law.missing.get(name, (0.0, 0.0)))[in_b]
        has = generator.random(num_patients) >= missing
        if name == STATIC:
            x = latent - np.outer(latent @ direction, direction)
            x += np.outer(signal, direction)
        else:
            x = latent
            x[:, 0] = signal
        if name == "easy":
            x[:, 0] *= _EASY_SCALE
        if name == "hard":
            x[:, 0] *= np.where(x[:, 1] < 0, -1, 1)
        observed[name] = np.where(has[:, None], x, 0.0).astype(np.float32)
        log_odds.append(np.where(has, separation * signal, 0.0))
        present.append(has)
    group = pd.Categorical.from_codes(in_b, pd.Index(GROUPS))
    static = pd.DataFrame(observed.pop(STATIC).astype(np.float64))
    data = validate_multimodal(
        MultimodalTable(
            table=ClinicalTable(
                name="simulated",
                title="Simulated patients with three modalities",
                features=static.add_prefix("static_").assign(group=group),
                label=label,
                outcome="a simulated event",
                attributes=pd.DataFrame({"group": group}),
                patient_ids=np.arange(num_patients),
                citation="drawn at run time from a documented distribution",
                licence="none: no real data",
            ),
            modalities={name: Dense(values) for name, values in observed.items()},
            present=np.stack(present, axis=1),
            weights=np.ones(num_patients, np.float32),
        )
    )
    return data, Truth(law, np.stack(log_odds, axis=1))


def simulated() -> MultimodalTable:
    """Returns 6,000 patients of the default distribution, always the same."""
    return simulate(_PATIENTS, seed=0)[0]


def simulated_truth() -> Truth:
    """Returns the truth about the patients of `simulated`."""
    return simulate(_PATIENTS, seed=0)[1]


def _check(law: Law) -> None:
    shares = [law.prevalence, law.share_of_b, *np.ravel(list(law.missing.values()))]
    wrong = {
        f"separations must name {MODALITIES}; got {tuple(law.separations)}": (
            set(law.separations) != set(MODALITIES)
        ),
        f"only 'easy' and 'hard' can be missing; got {tuple(law.missing)}": (
            not set(law.missing) <= {"easy", "hard"}
        ),
        "the separations must be finite": (
            not np.isfinite(list(law.separations.values())).all()
        ),
        "prevalence, share_of_b and missing fractions must lie between 0 and 1": (
            not all(0 <= share <= 1 for share in shares)
        ),
    }
    for problem, found in wrong.items():
        if found:
            raise ValueError(problem)
