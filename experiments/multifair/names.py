"""Names of the MultiFair experiment's methods, and settings of its grids."""

import itertools
from collections.abc import Sequence

from experiments.core.programs import Variant

FACTORS = (
    "modality direction",
    "modality magnitude",
    "group direction",
    "group magnitude",
)
"""The factors that the two grids switch, in the order of the settings' digits."""
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
# Not a neural network and not a candidate: a model without this library's methods.
REFERENCE = "logistic_regression"
TUNED = ("ogm_ge", "group_dro", "penalty", "fairgrad")
# For these methods, the fairest setting is chosen among settings that cost little
# AUROC; for the other methods, the setting that predicts best.
FAIR = ("group_dro", "penalty", "fairgrad")
WATCHED = ("joint", "multifair", "multifair_released", "joint_auxiliary", "dual_level")
"""The methods whose training is shown."""
# Names of each grid's corners, with no factor and all factors on, and of the others.
CORNERS = {
    "multifair": ("joint", "multifair", "multifair_levels"),
    "dual_level": ("joint_auxiliary", "dual_level", "dual_level_levels"),
}


def titles(names: Sequence[str]) -> dict[str, str]:
    """Returns every method's title, including methods of single modalities."""
    alone = {unimodal(name): f"{name.capitalize()} alone" for name in names}
    first = {name: TITLES[name] for name in (REFERENCE, "joint")}
    return {**first, **alone, **TITLES}


def unimodal(modality: str) -> str:
    """Returns the name of the method that sees one modality.

    Example:
      >>> unimodal("labs")
      'only_labs'
    """
    return f"only_{modality}"


def digits(setting: Sequence[int]) -> str:
    """Returns the label of a grid's setting, a digit for each of `FACTORS`.

    Example:
      >>> digits((1, 0, 0, 1))
      '1001'
    """
    return "".join(str(int(on)) for on in setting)


def grid_variants(grid: str) -> tuple[Variant, ...]:
    """Makes the variants of a grid's cells; the corners have names of their own."""
    nothing, everything, rest = CORNERS[grid]
    corner: dict[tuple[int, ...], str] = {GRID[0]: nothing, GRID[-1]: everything}
    return tuple(
        Variant(corner.get(setting, rest), "" if setting in corner else digits(setting))
        for setting in GRID
    )
