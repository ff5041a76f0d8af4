"""A distribution of features and outcomes in ten subgroups of race, sex and age."""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

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
    told = np.isin(role, ("informative", "shifted"))
    effects = np.where(told, generator.standard_normal(number), 0.0)
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
