"""The MultiFair method: the factors on its gradients, and the terms of its loss."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from fairjax.modulation._arguments import check_shape, fused
from fairjax.modulation.direction import direction_loss
from fairjax.modulation.factors import fairness_gap, modality_balance
from fairjax.modulation.groups import (
    Mode,
    balance_groups,
    check_settings,
    group_signals,
)
from fairjax.modulation.modalities import balance_modalities, modality_aucs
from fairjax.types import Scalar


class MultiFairPenalty(NamedTuple):
    """The terms of :func:`multifair_penalty`.

    Attributes:
      total: ``[]``, the penalty that is added to the loss.
      direction: ``[]``, :math:`L_{gm}`.
      fairness: ``[]``, :math:`F_G`.
      gate: ``[]``, whether the fairness term counts in this batch.
    """

    total: Float[Array, ""]
    direction: Float[Array, ""]
    fairness: Float[Array, ""]
    gate: Bool[Array, ""]


def multifair(
    param_labels: PyTree,
    modalities: Sequence[str],
    *,
    num_groups: int,
    mode: Mode = "paper",
    rho: Scalar = 1.2,
    mu: Scalar = 0.3,
    tau: Scalar = 0.04,
    decay: Scalar = 0.9,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales modalities' gradients by MultiFair's factors :math:`\rho B_m f_m`.

    The transformation is ``optax.chain(balance_modalities(...), balance_groups(...))``;
    :func:`balance_modalities` and :func:`balance_groups` describe the formulas, modes,
    arguments and errors. In the published chain, clipping at .8 and AdamW follow. The
    method's direction and fairness terms are part of the loss:
    :func:`fairjax.modulation.multifair_penalty`. In the released code these two terms
    give no gradient, so ``mode="released"`` is this transformation alone.

    Args:
      param_labels: From :func:`fairjax.modulation.modality_labels`, or a prefix of it.
      modalities: Names, in the order of the columns of ``unimodal_scores``.
      num_groups: Number of groups, G, 2 or more.
      mode: ``"paper"`` or ``"released"``.
      rho: Factor on the balance of modalities, 0 or more; may be traced, as may the
        next three.
      mu: Strength of the groups' factor, 0 or more.
      tau: Threshold of the gate, 0 or more.
      decay: Decay of the moving averages, in [0, 1).

    Returns:
      A transformation of updates ``[*param]``, or of stacked updates ``[K, *param]``.
      Its ``update`` needs ``unimodal_scores=[n, M]``, ``scores=[n]``, ``labels=[n]``
      and ``groups=[n]``, and takes ``present=[n, M]``.

    Raises:
      ValueError: As :func:`balance_modalities` and :func:`balance_groups`.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from fairjax import modulation
      >>> labels = {"image": "image", "notes": "notes", "head": "shared"}
      >>> tx = optax.chain(
      ...     modulation.multifair(labels, ["image", "notes"], num_groups=2),
      ...     optax.clip_by_global_norm(10.0),
      ... )
      >>> gradients = {name: jnp.ones(1) for name in labels}
      >>> updates, _ = jax.jit(tx.update)(
      ...     gradients, tx.init(gradients), labels=jnp.array([1, 0, 1, 0]),
      ...     unimodal_scores=jnp.array([[.9, .6], [.2, .4], [.7, .4], [.4, .6]]),
      ...     scores=jnp.array([.9, .2, .6, .4]), groups=jnp.array([0, 0, 1, 1]))

      The image alone ranks all patients correctly; the notes rank them at random:

      >>> [round(float(updates[name][0]), 3) for name in labels]
      [0.0, 1.2, 1.0]
    """
    return optax.chain(
        balance_modalities(param_labels, modalities, rho=rho),
        balance_groups(
            param_labels,
            modalities,
            num_groups=num_groups,
            mode=mode,
            mu=mu,
            tau=tau,
            decay=decay,
        ),
    )


def multifair_penalty(
    *,
    fused_gradient: Array,
    unimodal_gradients: Array,
    unimodal_scores: Float[Array, "n M"],
    scores: Float[Array, " n"],
    labels: Array,
    groups: Int[Array, " n"],
    modality_auc: Float[Array, " M"],
    group_auc: Float[Array, "M G"],
    group_seen: Bool[Array, "M G"],
    direction: Scalar = 0.15,
    fairness: Scalar = 0.5,
    tau: Scalar = 0.04,
    decay: Scalar = 0.9,
    present: Bool[Array, "n M"] | None = None,
) -> MultiFairPenalty:
    r"""Computes the terms that MultiFair adds to the loss.

    The terms are :math:`\lambda L_{gm} + 1[\text{gate}]\, c\, F_G`. Here :math:`L_{gm}`
    is :func:`fairjax.modulation.direction_loss`, weighted by the batch's modality
    balance, and :math:`F_G` is :func:`fairjax.modulation.fairness_gap` of the moving
    averages *with* this batch. The gate is the gate of
    :func:`fairjax.modulation.balance_groups`.

    The derivative of :math:`F_G` is taken by the batch's AUCs in place of the averages.
    A batch has the weight 1 − decay in an average, so through the averages :math:`c`
    would count for a tenth of itself. This derivative is our reading.

    In the released code the optimiser sees both terms as constants. The first is 0,
    because no parameter has the name that the code looks for, and the second is a
    Python number. So this function has no ``mode``.

    Args:
      fused_gradient: ``[*layer]``, gradient of the fused loss for its head's last layer
        (:func:`fairjax.modulation.last_layer_gradient`).
      unimodal_gradients: ``[M, *layer]``, gradients of the unimodal losses for the last
        layers of the auxiliary heads.
      unimodal_scores: ``[n, M]``, probabilities. Their gradient reaches the encoders
        only if the auxiliary heads are not detached from the encoders: see the attached
        scores of :class:`fairjax.models.MultimodalClassifier`.
      scores: ``[n]``, the fused probabilities.
      labels: ``[n]``, 1 or 0.
      groups: ``[n]``, in ``0 .. G − 1``; a row with a negative number is in no group.
      modality_auc: ``[M]``, AUCs of the last batch,
        ``optax.tree.get(opt_state, "modality_auc")``.
      group_auc: ``[M, G]``, ``optax.tree.get(opt_state, "group_auc")``.
      group_seen: ``[M, G]``, ``optax.tree.get(opt_state, "group_seen")``.
      direction: :math:`\lambda`, 0 or more; may be traced, as may the next three.
      fairness: :math:`c`, 0 or more.
      tau: :math:`\tau`, 0 or more.
      decay: Decay of the averages, in [0, 1).
      present: ``[n, M]``, False where a row lacks the modality.

    Returns:
      The terms and their sum.

    Raises:
      ValueError: If shapes do not fit, a setting is out of its range, or
        :func:`fairjax.modulation.group_aucs` refuses the labels or groups.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax import modulation
      >>> scores = jnp.array([0.9, 0.1, 0.2, 0.8])
      >>> penalty = jax.jit(modulation.multifair_penalty)(
      ...     fused_gradient=jnp.array([1.0, 0.0]),
      ...     unimodal_gradients=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
      ...     unimodal_scores=jnp.stack([scores, scores], axis=1), scores=scores,
      ...     labels=jnp.array([1, 0, 1, 0]), groups=jnp.array([0, 0, 1, 1]),
      ...     modality_auc=jnp.full(2, 0.5), group_auc=jnp.full((2, 2), 0.5),
      ...     group_seen=jnp.zeros((2, 2), bool), direction=1.0)
      >>> float(penalty.direction), bool(penalty.gate)
      (0.25, True)
    """
    check_settings(tau=tau, decay=decay, direction=direction, fairness=fairness)
    if jnp.ndim(unimodal_scores) != 2:
        raise ValueError(
            "unimodal_scores must have shape [n, M], a column for each modality; "
            f"got shape {jnp.shape(unimodal_scores)}."
        )
    modalities = unimodal_scores.shape[1]
    for name, given in (("modality_auc", modality_auc), ("group_auc", group_auc)):
        if given.shape[:1] != (modalities,):
            raise ValueError(
                f"{name} must have {modalities} rows, one for each modality; "
                f"got shape {given.shape}."
            )
    if group_auc.ndim != 2 or group_auc.shape[1] < 2:
        raise ValueError(
            f"group_auc must have shape [{modalities}, G] with two groups or more, "
            f"since a gap is computed; got shape {group_auc.shape}."
        )
    check_shape("group_seen", group_seen, group_auc.shape, "as group_auc")
    scores = fused("multifair_penalty", scores, unimodal_scores.shape[0])
    auc, observed = modality_aucs(
        unimodal_scores, labels, modality_auc, present=present
    )
    signals = group_signals(
        unimodal_scores,
        jax.lax.stop_gradient(scores),
        labels,
        groups,
        group_auc,
        group_seen,
        mode="paper",
        tau=tau,
        decay=decay,
        present=present,
    )
    turned = direction_loss(
        fused_gradient,
        unimodal_gradients,
        modality_balance(auc, modality_auc, observed=observed),
    )
    averages = signals.group_auc
    held = jax.lax.stop_gradient(averages)
    averages = held + (averages - held) / (1 - jnp.asarray(decay))
    gap = fairness_gap(averages, observed=signals.group_seen)
    gated = jnp.where(signals.fairness_gate, gap, 0.0)
    return MultiFairPenalty(
        total=jnp.asarray(direction) * turned + jnp.asarray(fairness) * gated,
        direction=turned,
        fairness=gap,
        gate=signals.fairness_gate,
    )
