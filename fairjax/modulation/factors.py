r"""The factors that scale gradients, as pure functions of AUCs and contributions.

Modalities are :math:`m = 1 .. M` and groups are :math:`g = 1 .. G`. The notation
follows MultiFair (Zubair et al. 2025).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fairjax.modulation._arguments import check_shape, check_two_groups
from fairjax.types import Scalar, check_nonnegative

# Keeps a sum of changes away from zero, as in the released code.
_SMALL = 1e-8


def modality_balance(
    auc: Float[Array, " M"],
    previous: Float[Array, " M"],
    *,
    signed: bool = False,
    observed: Bool[Array, " M"] | None = None,
) -> Float[Array, " M"]:
    r"""Computes MultiFair's :math:`B_m`, less for a modality whose AUC changes more.

    With :math:`\Delta_m` the change of the modality's AUC since the last batch,
    :math:`B_m = (S - |\Delta_m|) / S` and :math:`S = \sum_m |\Delta_m| + 10^{-8}`.
    The :math:`B_m` lie in [0, 1] and sum to M − 1, up to rounding; where no AUC
    changes, all are 1. M and the sum count observed modalities only. If an unobserved
    modality counted with a change of 0, a single other modality would have all of
    :math:`S` and a balance of 0.

    Args:
      auc: ``[M]``, AUCs of this batch.
      previous: ``[M]``, AUCs of the last batch.
      signed: Whether to compute CGGM's balance, :math:`(S - \Delta_m) / S` with
        :math:`S = \sum_m \Delta_m`. Its changes keep their signs, so the balance is
        unbounded where they cancel.
      observed: ``[M]``, False for modalities to leave out of the comparison, such as a
        modality without an AUC in this batch. None: all are observed.

    Returns:
      ``[M]``; 1 for modalities that are not observed. All are 1, signed or not, if
      fewer than two modalities are observed, since there is nothing to balance.

    Raises:
      ValueError: If shapes differ.

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
    check_shape("previous", previous, jnp.shape(auc), "as auc")
    if observed is None:
        observed = jnp.ones_like(auc, bool)
    check_shape("observed", observed, jnp.shape(auc), "as auc")
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
    r"""Computes OGM-GE's :math:`k_m`, which slows modalities that contribute more.

    A modality's contribution :math:`s_m` is the sum of the probabilities that it gives
    the true classes. The ratio :math:`\rho_m = s_m / \bar s_{-m}` compares the
    contribution with the mean of the other modalities. Then
    :math:`k_m = 1 - \tanh(\alpha \rho_m)` where :math:`\rho_m > 1`, and 1 elsewhere.
    With two modalities this is the published method. Its authors leave more than two
    open, and the mean is our reading.

    Args:
      contributions: ``[M]``, not negative.
      alpha: How much to slow a modality, 0 or more; may be traced.
      observed: ``[M]``, False for modalities to leave out of the comparison, such as a
        modality that no row of the batch has. None: all are observed.

    Returns:
      ``[M]``, in (0, 1] up to rounding; 1 for a single modality, where all others
      contribute nothing, and for modalities that are not observed.

    Raises:
      ValueError: If ``observed`` has another shape or ``alpha`` is below 0.

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
    check_shape("observed", observed, jnp.shape(contributions), "as contributions")
    contributions = jnp.where(observed, contributions, 0.0)
    number = jnp.maximum(jnp.sum(observed) - 1, 1)
    # Summed over the others: subtracting from the total would cancel small numbers.
    own = jnp.eye(contributions.shape[0], dtype=bool)
    others = jnp.sum(jnp.where(own, 0, contributions), axis=1) / number
    ratio = jnp.where(others > 0, contributions / jnp.where(others > 0, others, 1), 0)
    # Contributions that are equal up to rounding slow no modality.
    return jnp.where(ratio > 1 + 1e-6, 1 - jnp.tanh(alpha * ratio), 1.0)


def fairness_factors(
    group_auc: Float[Array, "M G"],
    shares: Float[Array, " G"],
    *,
    strength: Scalar,
    threshold: Scalar,
    observed: Bool[Array, "M G"] | None = None,
) -> Float[Array, " M"]:
    r"""Computes MultiFair's :math:`f_m`, more where a modality serves groups worse.

    :math:`f_{m,g} = 1 + \mu (\bar A_m - \hat A_{m,g}) / \max(10^{-4}, \tau)` and
    :math:`f_m = \sum_g (n_g / n) f_{m,g}`, with :math:`\bar A_m` the mean of the
    groups' AUCs. **In a batch that has every group equally often,** :math:`f_m` **is 1
    whatever the gaps**, because deviations from a mean cancel. A negative :math:`f_m`
    reverses a gradient; :func:`fairjax.modulation.balance_groups` says how it treats
    negative factors.

    Args:
      group_auc: ``[M, G]``, AUCs of two groups or more.
      shares: ``[G]``, :math:`n_g / n`, each group's fraction of all labelled rows of
        the batch. Rows that lack a modality count too, so the fractions are the same
        for all modalities.
      strength: :math:`\mu`, 0 or more; may be traced, as may the threshold.
      threshold: :math:`\tau`, 0 or more.
      observed: ``[M, G]``, False for AUCs to ignore. None: all count.

    Returns:
      Factors ``[M]``.

    Raises:
      ValueError: If shapes do not fit, there is a single group, or a setting is below
        0.

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
            "shares must have shape [G] and group_auc [M, G]; "
            f"got {jnp.shape(shares)} and {jnp.shape(group_auc)}."
        )
    check_nonnegative("strength", strength)
    check_nonnegative("threshold", threshold)
    scale = jnp.asarray(strength) / jnp.maximum(1e-4, threshold)
    # Not a matrix product, which an accelerator would compute in 16 bits.
    return 1 - scale * jnp.sum(_deviations(group_auc, observed) * shares, axis=1)


def fairness_gap(
    group_auc: Float[Array, "M G"], *, observed: Bool[Array, "M G"] | None = None
) -> Float[Array, ""]:
    r"""Computes MultiFair's :math:`F_G`, the mean of :math:`|\hat A_{m,g} - \bar A_m|`.

    The mean is over modalities m and groups g.

    Args:
      group_auc: ``[M, G]``, AUCs of two groups or more. The gap is differentiable if
        the AUCs are.
      observed: ``[M, G]``, False for AUCs to ignore. None: all count.

    Returns:
      A scalar, 0 or more; 0 where nothing is observed.

    Raises:
      ValueError: If ``observed`` has another shape or there is a single group.

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
    """Computes deviations from the mean of a modality's observed groups, else 0."""
    check_two_groups(jnp.shape(group_auc)[-1])
    if observed is None:
        observed = jnp.ones_like(group_auc, bool)
    check_shape("observed", observed, jnp.shape(group_auc), "as group_auc")
    number = jnp.maximum(jnp.sum(observed, axis=1, keepdims=True), 1)
    seen = jnp.where(observed, group_auc, 0.0)
    mean = jnp.sum(seen, axis=1, keepdims=True) / number
    return jnp.where(observed, group_auc - mean, 0.0)
