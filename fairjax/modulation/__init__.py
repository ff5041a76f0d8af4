r"""Dual-level gradient modulation: direction and magnitude, by modality and by group.

The package has MultiFair's terms (Zubair et al., arXiv:2510.07328, 2025) and related
terms, as pure functions and optax transformations for any multimodal model. Our own
method reconciles all modalities' and groups' objectives on one Gram matrix.
"""

from fairjax.modulation.aucs import GroupAucs, group_aucs
from fairjax.modulation.direction import direction_loss, last_layer_gradient
from fairjax.modulation.factors import (
    contribution_balance,
    fairness_factors,
    fairness_gap,
    modality_balance,
)
from fairjax.modulation.groups import GroupBalanceState, balance_groups
from fairjax.modulation.levels import dual_level, modality_group_levels
from fairjax.modulation.modalities import (
    ContributionBalanceState,
    ModalityBalanceState,
    balance_modalities,
    ogm_ge,
)
from fairjax.modulation.multifair_method import (
    MultiFairPenalty,
    multifair,
    multifair_penalty,
)
from fairjax.modulation.parameters import SHARED, modality_labels

__all__ = [
    "SHARED",
    "ContributionBalanceState",
    "GroupAucs",
    "GroupBalanceState",
    "ModalityBalanceState",
    "MultiFairPenalty",
    "balance_groups",
    "balance_modalities",
    "contribution_balance",
    "direction_loss",
    "dual_level",
    "fairness_factors",
    "fairness_gap",
    "group_aucs",
    "last_layer_gradient",
    "modality_balance",
    "modality_group_levels",
    "modality_labels",
    "multifair",
    "multifair_penalty",
    "ogm_ge",
]
