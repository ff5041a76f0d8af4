"""The methods of the MultiFair experiment by name, and the settings of its grids."""

import itertools
from collections.abc import Sequence

from experiments.core.programs import Variant

FACTORS = (
    "modality direction",
    "modality magnitude",
    "group direction",
    "group magnitude",
)
"""What is switched in the two grids, in the order of their digits."""
GRID: tuple[tuple[int, ...], ...] = tuple(
    itertools.product((0, 1), repeat=len(FACTORS))
)

TITLES = {
    "logistic_regression": "Logistic regression",
    "joint": "Joint training",
    "late_fusion": "Late fusion",
    "ogm_ge": "OGM-GE",
    "cggm": "CGGM-style signed balance",
    "group_dro": "GroupDRO",
    "penalty": "Fairness penalty",
    "fairgrad": "FairGrad",
    "multifair": "MultiFair, paper",
    "multifair_released": "MultiFair, released code",
    "multifair_after_adam": "MultiFair, paper, scaled after Adam",
    "multifair_levels": "MultiFair, some levels",
    "joint_auxiliary": "Joint, with unimodal losses",
    "dual_level": "Dual-level reconciliation",
    "dual_level_levels": "Dual-level reconciliation, some levels",
}
# No neural network, and no candidate: what a reader has without this library.
REFERENCE = "logistic_regression"
TUNED = ("ogm_ge", "group_dro", "penalty", "fairgrad")
# Of these the fairest setting is chosen, among those that cost little; of the others
# the one that predicts best.
FAIR = ("group_dro", "penalty", "fairgrad")
WATCHED = ("joint", "multifair", "multifair_released", "joint_auxiliary", "dual_level")
"""The methods whose training is shown."""
# The corners of a grid: nothing switched on, and everything.
CORNERS = {
    "multifair": ("joint", "multifair", "multifair_levels"),
    "dual_level": ("joint_auxiliary", "dual_level", "dual_level_levels"),
}


def titles(names: Sequence[str]) -> dict[str, str]:
    """Every method's title, those of single modalities among them."""
    alone = {unimodal(name): f"{name.capitalize()} alone" for name in names}
    first = {name: TITLES[name] for name in (REFERENCE, "joint")}
    return {**first, **alone, **TITLES}


def unimodal(modality: str) -> str:
    """The name of the method that sees one modality.

    Example:
      >>> unimodal("labs")
      'only_labs'
    """
    return f"only_{modality}"


def digits(setting: Sequence[int]) -> str:
    """A grid's setting as its label, a digit for each of `FACTORS`.

    Example:
      >>> digits((1, 0, 0, 1))
      '1001'
    """
    return "".join(str(int(on)) for on in setting)


def grid_variants(grid: str) -> tuple[Variant, ...]:
    """Every cell of a grid, its corners under names of their own."""
    nothing, everything, rest = CORNERS[grid]
    corner: dict[tuple[int, ...], str] = {GRID[0]: nothing, GRID[-1]: everything}
    return tuple(
        Variant(corner.get(setting, rest), "" if setting in corner else digits(setting))
        for setting in GRID
    )
