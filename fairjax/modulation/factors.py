r"""The numbers that gradients are multiplied by, as pure functions of AUCs and scores.

With modalities :math:`m = 1 .. M` and groups :math:`g = 1 .. G`; the notation is that
of MultiFair (Zubair et al. 2025).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.modulation._arguments import check_two_groups
from fairjax.types import Scalar, check_nonnegative

# As in the released code: what a sum of changes is kept away from zero by.
_SMALL = 1e-8


def modality_balance(
    auc: Float[Array, " M"],
    previous: Float[Array, " M"],
    *,
    signed: bool = False,
    observed: Bool[Array, " M"] | None = None,
) -> Float[Array, " M"]:
    r"""MultiFair's :math:`B_m`: less for the modality whose AUC moves more.

    With :math:`\Delta_m` the change of the modality's AUC since the last batch,
    :math:`B_m = (S - |\Delta_m|) / S` and :math:`S = \sum_m |\Delta_m| + 10^{-8}`.
    They lie in [0, 1] and sum to M − 1, but for rounding; where nothing changes all
    are 1. M and the sum are of the modalities observed: one that is not has no change
    to be compared with, and were its change 0, a single other one would have all of
    :math:`S` and a balance of 0.

    Args:
      auc: ``[M]``, of this batch.
      previous: ``[M]``, of the last one.
      signed: CGGM's balance, :math:`(S - \Delta_m) / S` with
        :math:`S = \sum_m \Delta_m`: of changes that keep their sign, so that it has no
        bounds where they cancel.
      observed: ``[M]``, False for modalities that are compared with none, such as one
        that has no AUC in this batch; None: all are.

    Returns:
      ``[M]``; 1 where not observed, and for all where fewer than two are, signed or
      not: there is nothing to be balanced with.

    Raises:
      ValueError: Shapes that differ.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025. Guo et al.,
      *Classifier-guided Gradient Modulation for Enhanced Multimodal Learning*,
      NeurIPS 2024, for the signed form.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> auc, previous = jnp.array([0.75, 0.75]), jnp.array([0.5, 0.0])
      >>> modulation.modality_balance(auc, previous)
      Array([0.75, 0.25], dtype=float32)
    """
    if jnp.shape(auc) != jnp.shape(previous):
        raise ValueError(
            f"auc has shape {jnp.shape(auc)} and previous {jnp.shape(previous)}: one "
            "number a modality is needed of each."
        )
    if observed is None:
        observed = jnp.ones_like(auc, bool)
    _check_observed(auc, observed)
    change = jnp.where(observed, auc - previous, 0.0)
    if not signed:
        change = jnp.abs(change)
    total = jnp.sum(change) + _SMALL
    compared = observed & (jnp.sum(observed) > 1)
    return jnp.where(compared, (total - change) / total, 1.0)


def contribution_balance(
    contributions: Float[Array, " M"],
    *,
    alpha: Scalar,
    observed: Bool[Array, " M"] | None = None,
) -> Float[Array, " M"]:
    r"""OGM-GE's :math:`k_m`: slows the modalities that contribute more than the others.

    With :math:`s_m` a modality's contribution, the sum of the probabilities that it
    gives the true classes, and :math:`\rho_m = s_m / \bar s_{-m}`, against the mean of
    the other modalities: :math:`k_m = 1 - \tanh(\alpha \rho_m)` where
    :math:`\rho_m > 1`, else 1. With two modalities this is the published method; its
    authors leave more than two open, and the mean is our reading.

    Args:
      contributions: ``[M]``, not negative.
      alpha: How much, 0 or more; may be traced.
      observed: ``[M]``, False for modalities that are compared with none, such as one
        that no row of the batch has; None: all are.

    Returns:
      ``[M]``, in (0, 1] but for rounding; 1 for a single modality, where all others
      contribute nothing, and where not observed.

    Raises:
      ValueError: ``observed`` of another shape; ``alpha`` below 0.

    References:
      Peng et al., *Balanced Multimodal Learning via On-the-fly Gradient Modulation*,
      CVPR 2022, equation 10.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> modulation.contribution_balance(jnp.array([4.0, 2.0]), alpha=0.5).round(3)
      Array([0.238, 1.   ], dtype=float32)
    """
    check_nonnegative("alpha", alpha)
    if observed is None:
        observed = jnp.ones_like(contributions, bool)
    _check_observed(contributions, observed)
    contributions = jnp.where(observed, contributions, 0.0)
    number = jnp.maximum(jnp.sum(observed) - 1, 1)
    # Added up without its own, which subtracted would cancel small ones.
    own = jnp.eye(contributions.shape[0], dtype=bool)
    others = jnp.sum(jnp.where(own, 0, contributions), axis=1) / number
    ratio = jnp.where(others > 0, contributions / jnp.where(others > 0, others, 1), 0)
    # Equal contributions, which rounding may tell apart, slow nobody.
    return jnp.where(ratio > 1 + 1e-6, 1 - jnp.tanh(alpha * ratio), 1.0)


def fairness_factors(
    group_auc: Float[Array, "M G"],
    shares: Float[Array, " G"],
    *,
    strength: Scalar,
    threshold: Scalar,
    observed: Bool[Array, "M G"] | None = None,
) -> Float[Array, " M"]:
    r"""MultiFair's :math:`f_m`: more where a modality serves the batch's groups worse.

    :math:`f_{m,g} = 1 + \mu (\bar A_m - \hat A_{m,g}) / \max(10^{-4}, \tau)` and
    :math:`f_m = \sum_g (n_g / n) f_{m,g}`, with :math:`\bar A_m` the mean of the
    groups' AUCs. **In a batch that has every group equally often it is 1, whatever
    the gaps**: the deviations from a mean cancel. It may be negative, which turns a
    gradient round; :func:`fairjax.modulation.balance_groups` says what it does then.

    Args:
      group_auc: ``[M, G]``, of two groups or more.
      shares: ``[G]``, :math:`n_g / n`, shares of all labelled rows of the batch, those
        that lack the modality among them: one for all modalities.
      strength: :math:`\mu`, 0 or more; may be traced, as may the threshold.
      threshold: :math:`\tau`, 0 or more.
      observed: ``[M, G]``, False for AUCs that count for nothing; None: all count.

    Returns:
      ``[M]``.

    Raises:
      ValueError: Shapes that do not fit; a single group; a setting below 0.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> aucs, shares = jnp.array([[0.75, 0.5]]), jnp.array([0.25, 0.75])
      >>> modulation.fairness_factors(aucs, shares, strength=0.5, threshold=0.125)
      Array([1.25], dtype=float32)
    """
    if jnp.ndim(group_auc) != 2 or jnp.shape(shares) != jnp.shape(group_auc)[1:]:
        raise ValueError(
            f"shares have shape {jnp.shape(shares)} and group_auc "
            f"{jnp.shape(group_auc)}; [G] and [M, G] are needed."
        )
    check_nonnegative("strength", strength)
    check_nonnegative("threshold", threshold)
    scale = jnp.asarray(strength) / jnp.maximum(1e-4, threshold)
    # Not a matrix product, which an accelerator would take in 16 bits.
    return 1 - scale * jnp.sum(_deviations(group_auc, observed) * shares, axis=1)


def fairness_gap(
    group_auc: Float[Array, "M G"], *, observed: Bool[Array, "M G"] | None = None
) -> Float[Array, ""]:
    r"""MultiFair's :math:`F_G`: mean over m and g of :math:`|\hat A_{m,g} - \bar A_m|`.

    Args:
      group_auc: ``[M, G]``, of two groups or more; differentiable where they are.
      observed: ``[M, G]``, False for AUCs that count for nothing; None: all count.

    Returns:
      0 or more; 0 where nothing is observed.

    Raises:
      ValueError: ``observed`` of another shape; a single group.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> print(modulation.fairness_gap(jnp.array([[0.8, 0.6], [0.7, 0.7]])).round(3))
      0.05
    """
    if observed is None:
        observed = jnp.ones_like(group_auc, bool)
    total = jnp.sum(jnp.abs(_deviations(group_auc, observed)))
    return total / jnp.maximum(jnp.sum(observed), 1)


def _deviations(
    group_auc: Float[Array, "M G"], observed: Bool[Array, "M G"] | None
) -> Float[Array, "M G"]:
    """From the mean of a modality's observed groups; 0 where not observed."""
    check_two_groups(jnp.shape(group_auc)[-1])
    if observed is None:
        observed = jnp.ones_like(group_auc, bool)
    _check_observed(group_auc, observed)
    number = jnp.maximum(jnp.sum(observed, axis=1, keepdims=True), 1)
    seen = jnp.where(observed, group_auc, 0.0)
    mean = jnp.sum(seen, axis=1, keepdims=True) / number
    return jnp.where(observed, group_auc - mean, 0.0)


def _check_observed(values: Array, observed: Array) -> None:
    if jnp.shape(observed) != jnp.shape(values):
        raise ValueError(
            f"observed has shape {jnp.shape(observed)}; what it is of has "
            f"{jnp.shape(values)}."
        )
