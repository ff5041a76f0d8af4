"""Members of ten subgroups of race, sex and age, drawn from a known law."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from experiments.datasets.table import ClinicalTable, validate

REFERENCE = ("White", "Male", "65+")
NUM_PATIENTS = 376_357
# Race, sex and age -> patients, P(y = 1), and how many standard deviations lie between
# the outcomes. The last seven are rare: none has half of the patients of the smallest
# subgroup, and together they are the tenth.
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
_RACES = ("White", "Latino", "Black", "Asian")
_SEXES = ("Female", "Male")
_AGES = ("<65", "65+")
# Features of each kind and role.
_ROLES = ("proxy", "shifted", "informative", "noise")
_KINDS = {
    "continuous": (12, 12, 12, 24),
    "skewed": (5, 5, 5, 10),
    "count": (7, 7, 7, 16),
    "binary": (12, 10, 10, 23),
}
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, eq=False)
class Law:
    """The law members are drawn from.

    Given its subgroup g and outcome y a member's features are independent, and feature
    j is of an exponential family with the natural parameter

        η_{g,y,j} = b_j + s_{g,j} + (y − 1/2) δ_g e_j,

    which is a mean (continuous features, of variance 1, and the logarithms of skewed
    ones), the logarithm of a Poisson rate (counts) or log odds (binary features).

    Attributes:
        cells: C combinations of race, sex and age.
        patients: `[C]`, how many of `NUM_PATIENTS` are of each.
        base_rates: `[C]`, P(y = 1 | g).
        kinds: `[d]`, "continuous", "skewed", "count" or "binary".
        roles: `[d]`, whether s and e are other than 0: s of a "proxy", e of an
            "informative" feature, both of a "shifted" one, neither of "noise".
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
        """`[d]`, the features' names: kind, role and number."""
        pairs = zip(self.kinds, self.roles, strict=True)
        return [f"{k}_{r}_{i}" for i, (k, r) in enumerate(pairs)]

    def is_kind(self, kind: str) -> Bool[np.ndarray, " d"]:
        """Which features are of a kind."""
        return np.array(self.kinds) == kind


def subgroup_law(*, shift: float = 0.4, seed: int = 0) -> Law:
    """Returns a law; the effects of its features are drawn, then held.

    Args:
        shift: How far subgroups lie apart in a proxy: the standard deviation, in
            units of the feature's own, of what each race, each sex and each age adds.
        seed: Of the effects and shifts.

    Returns:
        The law. Effects e are scaled so that their sum of squares, in units of each
        feature's standard deviation, is 1: δ_g then is about the distance between the
        outcomes' log odds in standard deviations, and Φ(δ_g / √2) the AUC in g.
    """
    generator = np.random.default_rng(seed)
    kinds = [kind for kind, counts in _KINDS.items() for _ in range(sum(counts))]
    roles = [
        role
        for counts in _KINDS.values()
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
    scale[binary] = 1 / np.sqrt(_sigmoid(base[binary]) * _sigmoid(-base[binary]))
    told = np.isin(role, ("informative", "shifted"))
    effects = np.where(told, generator.standard_normal(number), 0.0)
    effects *= scale / np.linalg.norm(effects)
    levels = {
        level: generator.standard_normal(number) for level in (*_RACES, *_SEXES, *_AGES)
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
        >>> int(simulated_sizes(NUM_PATIENTS).min())
        1300
    """
    law = law or _default_law()
    sizes = simulated_sizes(num_patients, law)
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
        name: pd.Categorical(np.array(law.cells)[:, place][cell], categories=levels)
        for place, (name, levels) in enumerate(
            {"race": _RACES, "sex": _SEXES, "age": _AGES}.items()
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


def simulated_sizes(num_patients: int, law: Law | None = None) -> np.ndarray:
    """Returns how many members each combination of race, sex and age has.

    Args:
        num_patients: Of all, shared out in proportion to `law.patients` by largest
            remainder.
        law: `subgroup_law()` by default.

    Returns:
        `[C]`, whole numbers.

    Raises:
        ValueError: If a combination would have no member.
    """
    law = law or _default_law()
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


@functools.cache
def _default_law() -> Law:
    return subgroup_law()


def _draw(
    law: Law, natural: Float[np.ndarray, "m d"], generator: np.random.Generator
) -> Float[np.ndarray, "m d"]:
    """Sufficient statistics: the features, of skewed ones the logarithms."""
    drawn = natural.copy()
    for kind in _KINDS:
        of = law.is_kind(kind)
        eta = natural[:, of]
        if kind == "count":
            drawn[:, of] = generator.poisson(np.exp(eta))
        elif kind == "binary":
            drawn[:, of] = generator.random(eta.shape) < _sigmoid(eta)
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
    return _sigmoid(own[:, 1] - own[:, 0]), _sigmoid(everyone[:, 1] - everyone[:, 0])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))
