"""Members of ten subgroups of race, sex and age, drawn from a known law."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from experiments.datasets import subgroup_law as laws
from experiments.datasets.subgroup_law import NUM_PATIENTS, Law, sigmoid
from experiments.datasets.table import ClinicalTable, validate

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, eq=False)
class Truth:
    """What no study of real patients knows.

    Attributes:
        law: The law the members were drawn from.
        cell: `[n]`, each member's place in `law.cells`.
        risk: `[n]`, P(y = 1 | x, g), exact.
        blind_risk: `[n]`, P(y = 1 | x), exact: the most that a model can know that is
            not told race, sex and age.
    """

    law: Law
    cell: Int[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]
    blind_risk: Float[np.ndarray, " n"]

    def auc(self, scores: Float[np.ndarray, " n"]) -> float:
        """Returns a score's AUC expected of these members' features.

        Of a member at risk r, r is the weight as a positive and 1 − r as a negative:
        no draw of outcomes enters. The AUC of `risk` is the largest possible, that of
        `blind_risk` the largest for a model that is told no group.

        Args:
            scores: `[n]`, higher for y = 1.

        Returns:
            The AUC; ties count half.

        Example:
            >>> _, truth = simulate(4000, seed=0)
            >>> known, blind = truth.auc(truth.risk), truth.auc(truth.blind_risk)
            >>> bool(0.5 < blind < known < 1)
            True
        """
        order = np.argsort(scores, kind="stable")
        _, start = np.unique(scores[order], return_index=True)
        positive = np.add.reduceat(self.risk[order], start)
        negative = np.add.reduceat(1 - self.risk[order], start)
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / (positive.sum() * negative.sum()))

    def rates(
        self, decisions: Float[np.ndarray, " n"], groups: Sequence | np.ndarray
    ) -> pd.DataFrame:
        """Returns the rates that decisions have in expectation over outcomes.

        Args:
            decisions: `[n]`, 0 or 1, or chances of 1.
            groups: `[n]`, names of groups, such as crossings with rare ones merged.

        Returns:
            A row a group: `patients`, `base_rate`, `selection_rate`,
            `true_positive_rate` and `false_positive_rate`.
        """
        parts = pd.DataFrame(
            {
                "patients": 1.0,
                "positive": self.risk,
                "selected": np.asarray(decisions, float),
                "both": self.risk * decisions,
            }
        )
        total = parts.groupby(np.asarray(groups)).sum()
        negative = total["patients"] - total["positive"]
        return pd.DataFrame(
            {
                "patients": total["patients"].astype(int),
                "base_rate": total["positive"] / total["patients"],
                "selection_rate": total["selected"] / total["patients"],
                "true_positive_rate": total["both"] / total["positive"],
                "false_positive_rate": (total["selected"] - total["both"]) / negative,
            }
        )


def simulate(
    num_patients: int = NUM_PATIENTS, *, seed: int, law: Law | None = None
) -> tuple[ClinicalTable, Truth]:
    """Returns members of a health insurance in the shape of Kennedy et al. (2025).

    That study's members are proprietary; these are drawn: 376,357 of them, 177
    features, ten subgroups of race, sex and age, the rare combinations being one of
    them, and the smallest of 9,217. That much, the reference and a few disparities of
    its base model were published; all else here is our own choice, and no figure of it
    estimates theirs. Nothing is missing, and no two features hang together but through
    subgroup and outcome, which is simpler than real members are.

    Outcomes are drawn with the base rate of the subgroup, which differs widely, then
    features given both (see `Law`). Proxies tell the subgroup and, within it, nothing
    of the outcome: a model that is told no group learns base rates from them, and a
    disparate impact remover takes them away. Outcomes are harder to tell in the
    subgroups of low base rates, by any model.

    Args:
        num_patients: At least enough for every combination to occur. The subgroups'
            sizes are proportional, the law is the same.
        seed: Of the members.
        law: The law to draw from; `subgroup_law()` by default.

    Returns:
        The validated table, of 4 bytes a value, and what is true of it. Race, sex and
        age are its attributes and not among its features.

    Raises:
        ValueError: If a combination would have no member.

    Example:
        >>> table, truth = simulate(2000, seed=0)
        >>> table.features.shape, truth.risk.shape
        ((2000, 177), (2000,))
        >>> int(laws.simulated_sizes(NUM_PATIENTS).min())
        1300
    """
    law = law or laws.default_law()
    sizes = laws.simulated_sizes(num_patients, law)
    generator = np.random.default_rng(seed)
    cell = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    label = (generator.random(num_patients) < law.base_rates[cell]).astype(np.int8)
    # By columns, so that the frame holds this very memory.
    values = np.empty((num_patients, len(law.kinds)), np.float32, order="F")
    risk, blind_risk = np.empty((2, num_patients))
    for start in range(0, num_patients, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        statistics = _draw(law, law.natural[cell[rows], label[rows]], generator)
        risk[rows], blind_risk[rows] = _risks(law, statistics, cell[rows])
        skewed = law.is_kind("skewed")
        statistics[:, skewed] = np.exp(statistics[:, skewed])
        values[rows] = statistics
    attributes = {
        name: pd.Categorical(np.array(parts)[cell], categories=levels)
        for name, levels, parts in zip(
            ("race", "sex", "age"),
            laws.LEVELS,
            zip(*law.cells, strict=True),
            strict=True,
        )
    }
    table = validate(
        ClinicalTable(
            name="simulated_subgroups",
            title="Simulated members of ten subgroups of race, sex and age",
            features=pd.DataFrame(values, columns=law.names, copy=False),
            label=label,
            outcome="a simulated event",
            attributes=pd.DataFrame(attributes),
            patient_ids=np.arange(num_patients),
            dropped={},
            excluded={},
            citation="drawn at run time from a documented law",
            licence="none: no real data",
        )
    )
    return table, Truth(law, cell, risk, blind_risk)


def simulated_subgroups(
    num_patients: int = NUM_PATIENTS, seed: int = 0
) -> ClinicalTable:
    """Returns members of the default law, by default as many as the study had."""
    return simulate(num_patients, seed=seed)[0]


def _draw(
    law: Law, natural: Float[np.ndarray, "m d"], generator: np.random.Generator
) -> Float[np.ndarray, "m d"]:
    """Sufficient statistics: the features, of skewed ones the logarithms."""
    drawn = natural.copy()
    for kind in laws.KINDS:
        of = law.is_kind(kind)
        eta = natural[:, of]
        if kind == "count":
            drawn[:, of] = generator.poisson(np.exp(eta))
        elif kind == "binary":
            drawn[:, of] = generator.random(eta.shape) < sigmoid(eta)
        else:
            drawn[:, of] = eta + generator.standard_normal(eta.shape)
    return drawn


def _risks(
    law: Law, statistics: Float[np.ndarray, "m d"], cell: Int[np.ndarray, " m"]
) -> tuple[np.ndarray, np.ndarray]:
    """P(y = 1 | x, g) and P(y = 1 | x), by Bayes' rule."""
    eta = law.natural
    count, binary = law.is_kind("count"), law.is_kind("binary")
    normaliser = eta**2 / 2
    normaliser[..., count] = np.exp(eta[..., count])
    normaliser[..., binary] = np.logaddexp(0, eta[..., binary])
    share = law.patients / law.patients.sum()
    prior = np.stack([1 - law.base_rates, law.base_rates], axis=1) * share[:, None]
    # Up to a term that neither the group nor the outcome changes.
    joint = np.einsum("md,cyd->mcy", statistics, eta, optimize=True)
    joint += np.log(prior) - normaliser.sum(-1)
    own = joint[np.arange(len(cell)), cell]
    everyone = np.logaddexp.reduce(joint, axis=1)
    return sigmoid(own[:, 1] - own[:, 0]), sigmoid(everyone[:, 1] - everyone[:, 0])
