"""Members of ten subgroups of race, sex and age, from a known distribution."""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from experiments.datasets.table import ClinicalTable, validate

_ROWS_AT_ONCE = 16_384
REFERENCE = ("White", "Male", "65+")
NUM_PATIENTS = 376_357
# Race, sex and age -> patients, P(y = 1), and the number of standard deviations between
# the outcomes. The last seven are rare: each has less than half of the patients of the
# smallest subgroup, and together they are the tenth subgroup.
_CELLS = {
    ("White", "Female", "65+"): (98_400, 0.71, 1.0),
    ("White", "Male", "65+"): (84_600, 0.76, 1.0),
    ("Latino", "Female", "65+"): (37_800, 0.52, 0.9),
    ("White", "Female", "<65"): (31_900, 0.60, 1.0),
    ("White", "Male", "<65"): (28_300, 0.58, 1.0),
    ("Latino", "Male", "65+"): (26_500, 0.48, 0.9),
    ("Black", "Female", "65+"): (22_700, 0.38, 0.8),
    ("Black", "Male", "65+"): (14_600, 0.31, 0.7),
    ("Asian", "Male", "65+"): (9_217, 0.28, 0.7),
    ("Asian", "Female", "65+"): (4_500, 0.42, 0.8),
    ("Latino", "Female", "<65"): (4_400, 0.50, 0.9),
    ("Black", "Female", "<65"): (4_100, 0.42, 0.8),
    ("Latino", "Male", "<65"): (3_640, 0.46, 0.9),
    ("Black", "Male", "<65"): (2_900, 0.38, 0.7),
    ("Asian", "Female", "<65"): (1_500, 0.44, 0.8),
    ("Asian", "Male", "<65"): (1_300, 0.40, 0.7),
}
LEVELS = {
    "race": ("White", "Latino", "Black", "Asian"),
    "sex": ("Female", "Male"),
    "age": ("<65", "65+"),
}
# Numbers of features of each kind and role.
_ROLES = ("proxy", "shifted", "informative", "noise")
KINDS = {
    "continuous": (12, 12, 12, 24),
    "skewed": (5, 5, 5, 10),
    "count": (7, 7, 7, 16),
    "binary": (12, 10, 10, 23),
}


@dataclass(frozen=True, eq=False)
class Law:
    """The distribution from which members are drawn.

    Given subgroup g and outcome y, a member's features are independent, and feature j
    is of an exponential family with the natural parameter

        η_{g,y,j} = b_j + s_{g,j} + (y − 1/2) δ_g e_j,

    which is a mean (of continuous features with variance 1, and of the logarithms of
    skewed features), the logarithm of a Poisson rate (counts) or log odds (binary
    features).

    Attributes:
        cells: C combinations of race, sex and age.
        patients: `[C]`, how many of `NUM_PATIENTS` each combination has.
        base_rates: `[C]`, P(y = 1 | g).
        kinds: `[d]`, "continuous", "skewed", "count" or "binary".
        roles: `[d]`, whether s and e differ from 0: s for a "proxy", e for an
            "informative" feature, both for a "shifted" feature, neither for "noise".
        natural: `[C, 2, d]`, η.
    """

    cells: tuple[tuple[str, str, str], ...]
    patients: Int[np.ndarray, " C"]
    base_rates: Float[np.ndarray, " C"]
    kinds: tuple[str, ...]
    roles: tuple[str, ...]
    natural: Float[np.ndarray, "C 2 d"]

    @property
    def names(self) -> list[str]:
        """The features' names `[d]`: kind, role and number."""
        pairs = zip(self.kinds, self.roles, strict=True)
        return [f"{k}_{r}_{i}" for i, (k, r) in enumerate(pairs)]

    def is_kind(self, kind: str) -> Bool[np.ndarray, " d"]:
        """Returns which features are of a kind."""
        return np.array(self.kinds) == kind


@functools.cache
def subgroup_law(*, shift: float = 0.4, seed: int = 0) -> Law:
    """Returns a distribution, which is computed once, as are the features' effects.

    Args:
        shift: Distance of subgroups in a proxy: the standard deviation of the shifts
            that each race, sex and age adds, in units of the feature's standard
            deviation.
        seed: Seed of the effects and shifts.

    Returns:
        The distribution. Effects e are scaled so that their sum of squares, in units of
        each feature's standard deviation, is 1. Then δ_g is about the distance between
        the outcomes' log odds in standard deviations, and Φ(δ_g / √2) the AUC in g.
    """
    generator = np.random.default_rng(seed)
    kinds = [kind for kind, counts in KINDS.items() for _ in range(sum(counts))]
    roles = [
        role
        for counts in KINDS.values()
        for role, count in zip(_ROLES, counts, strict=True)
        for _ in range(count)
    ]
    kind, role = np.array(kinds), np.array(roles)
    number = len(kinds)
    base = np.zeros(number)
    count, binary = kind == "count", kind == "binary"
    base[count] = np.log(generator.uniform(0.5, 4, count.sum()))
    base[binary] = generator.uniform(-2, 1, binary.sum())
    scale = np.ones(number)
    scale[count] = np.exp(-base[count] / 2)
    scale[binary] = 1 / np.sqrt(sigmoid(base[binary]) * sigmoid(-base[binary]))
    informative = np.isin(role, ("informative", "shifted"))
    effects = np.where(informative, generator.standard_normal(number), 0.0)
    effects *= scale / np.linalg.norm(effects)
    levels = {
        level: generator.standard_normal(number)
        for several in LEVELS.values()
        for level in several
    }
    moved = np.isin(role, ("proxy", "shifted"))
    shifts = np.stack([sum(levels[level] for level in cell) for cell in _CELLS])
    shifts *= shift * np.where(moved, scale, 0.0)
    patients, base_rates, separations = map(
        np.array, zip(*_CELLS.values(), strict=True)
    )
    told_by = separations[:, None, None] * effects
    natural = base + shifts[:, None] + np.array([-0.5, 0.5])[:, None] * told_by
    return Law(tuple(_CELLS), patients, base_rates, tuple(kinds), tuple(roles), natural)


def simulated_sizes(num_patients: int, law: Law | None = None) -> np.ndarray:
    """Returns how many members each combination of race, sex and age has.

    Args:
        num_patients: Number of all members, divided in proportion to `law.patients` by
            largest remainder.
        law: The distribution; `subgroup_law()` by default.

    Returns:
        Integers `[C]`.

    Raises:
        ValueError: If a combination would have no member.
    """
    law = law or subgroup_law()
    exact = law.patients / law.patients.sum() * num_patients
    sizes = np.floor(exact).astype(np.int64)
    fullest = np.argsort(sizes - exact, kind="stable")
    sizes[fullest[: num_patients - sizes.sum()]] += 1
    if not sizes.all():
        raise ValueError(
            f"{num_patients} patients are too few: "
            f"{' '.join(law.cells[int(sizes.argmin())])} would have none"
        )
    return sizes


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Returns the probability of log odds."""
    return 0.5 * (1 + np.tanh(x / 2))


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
        >>> int(simulated_sizes(NUM_PATIENTS).min())
        1300
    """
    law = law or subgroup_law()
    sizes = simulated_sizes(num_patients, law)
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
        for (name, levels), own in zip(LEVELS.items(), parts, strict=True)
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
            citation="drawn at run time from a documented distribution",
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
    for kind in KINDS:
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
