"""Members of ten subgroups of race, sex and age, from a known distribution."""

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
    """The truth about simulated members, which no study of real patients knows.

    Attributes:
        law: The distribution from which the members were drawn.
        cell: `[n]`, each member's index in `law.cells`.
        risk: `[n]`, P(y = 1 | x, g), exact.
        blind_risk: `[n]`, P(y = 1 | x), exact: the best score of a model without race,
            sex and age.
    """

    law: Law
    cell: Int[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]
    blind_risk: Float[np.ndarray, " n"]


def simulate(
    num_patients: int = NUM_PATIENTS, *, seed: int, law: Law | None = None
) -> tuple[ClinicalTable, Truth]:
    """Returns members of a health insurance in the shape of Kennedy et al. (2025).

    The data of that study are proprietary, so these members are simulated: 376,357
    members, 177 features, and ten subgroups of race, sex and age. The rare combinations
    are one subgroup, and the smallest subgroup has 9,217 members. These numbers, the
    reference and a few disparities of the base model were published. All other settings
    are our choice, and no number here estimates the study's numbers. No value is
    missing, and features depend on each other only through subgroup and outcome, which
    is simpler than in real data.

    Outcomes are drawn with the base rate of the subgroup, which differs widely; then
    features are drawn given subgroup and outcome (see `Law`). Proxies reveal the
    subgroup and, within a subgroup, are independent of the outcome. A model without the
    group learns base rates from proxies, and a disparate impact remover removes this
    information. Outcomes are harder to predict in subgroups with low base rates, for
    any model.

    Args:
        num_patients: Large enough for every combination to occur. The subgroups' sizes
            are proportional, and the distribution is the same.
        seed: Seed of the members.
        law: The distribution to draw from; `subgroup_law()` by default.

    Returns:
        The validated table, with 4 bytes for a value, and the truth about it. Race, sex
        and age are attributes of the table and not among its features.

    Raises:
        ValueError: If a combination would have no member.

    Example:
        >>> table, truth = simulate(2000, seed=0)
        >>> table.features.shape, truth.risk.shape
        ((2000, 177), (2000,))
        >>> int(laws.simulated_sizes(NUM_PATIENTS).min())
        1300
    """
    law = law or laws.subgroup_law()
    sizes = laws.simulated_sizes(num_patients, law)
    generator = np.random.default_rng(seed)
    cell = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    label = (generator.random(num_patients) < law.base_rates[cell]).astype(np.int8)
    # In column order, so that the data frame shares this memory.
    values = np.empty((num_patients, len(law.kinds)), np.float32, order="F")
    risk, blind_risk = np.empty((2, num_patients))
    for start in range(0, num_patients, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        statistics = _draw(law, law.natural[cell[rows], label[rows]], generator)
        risk[rows], blind_risk[rows] = _risks(law, statistics, cell[rows])
        skewed = law.is_kind("skewed")
        statistics[:, skewed] = np.exp(statistics[:, skewed])
        values[rows] = statistics
    parts = zip(*law.cells, strict=True)
    attributes = {
        name: pd.Categorical(np.array(own)[cell], categories=levels)
        for (name, levels), own in zip(laws.LEVELS.items(), parts, strict=True)
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
            citation="drawn at run time from a documented law",
            licence="none: no real data",
        )
    )
    return table, Truth(law, cell, risk, blind_risk)


def simulated_subgroups(
    num_patients: int = NUM_PATIENTS, seed: int = 0
) -> ClinicalTable:
    """Returns members of the default distribution, by default as many as the study."""
    return simulate(num_patients, seed=seed)[0]


def _draw(
    law: Law, natural: Float[np.ndarray, "m d"], generator: np.random.Generator
) -> Float[np.ndarray, "m d"]:
    """Draws sufficient statistics: the features, or logarithms of skewed features."""
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
    """Computes P(y = 1 | x, g) and P(y = 1 | x), by Bayes' rule."""
    eta = law.natural
    count, binary = law.is_kind("count"), law.is_kind("binary")
    normaliser = eta**2 / 2
    normaliser[..., count] = np.exp(eta[..., count])
    normaliser[..., binary] = np.logaddexp(0, eta[..., binary])
    share = law.patients / law.patients.sum()
    prior = np.stack([1 - law.base_rates, law.base_rates], axis=1) * share[:, None]
    # Up to a term that depends neither on the group nor on the outcome.
    joint = np.einsum("md,cyd->mcy", statistics, eta, optimize=True)
    joint += np.log(prior) - normaliser.sum(-1)
    own = joint[np.arange(len(cell)), cell]
    everyone = np.logaddexp.reduce(joint, axis=1)
    return sigmoid(own[:, 1] - own[:, 0]), sigmoid(everyone[:, 1] - everyone[:, 0])
