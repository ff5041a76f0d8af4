"""Factors on modalities' gradients, by the methods MultiFair, CGGM and OGM-GE."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree, UInt

from fairjax.keys import as_key
from fairjax.modulation._arguments import names_of, needed, read_batch, unimodal
from fairjax.modulation.aucs import group_aucs
from fairjax.modulation.factors import contribution_balance, modality_balance
from fairjax.modulation.parameters import check_labels, map_labelled, scale_by_label
from fairjax.types import Params, Scalar, check_nonnegative


class ModalityBalanceState(NamedTuple):
    """State of :func:`balance_modalities`; read with ``optax.tree.get``.

    Attributes:
      modality_auc: ``[M]``, the last AUC of each modality; .5 before the first AUC.
      modality_balance: ``[M]``, :math:`B_m` of the last batch.
    """

    modality_auc: Float[Array, " M"]
    modality_balance: Float[Array, " M"]


class ContributionBalanceState(NamedTuple):
    """State of :func:`ogm_ge`; read with ``optax.tree.get``.

    Attributes:
      contribution_balance: ``[M]``, :math:`k_m` of the last batch.
      key_data: Raw data of the random key for the noise.
    """

    contribution_balance: Float[Array, " M"]
    key_data: UInt[Array, " words"]


def balance_modalities(
    param_labels: PyTree,
    modalities: Sequence[str],
    *,
    rho: Scalar = 1.2,
    signed: bool = False,
    limit: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each modality's gradients by :math:`\rho B_m` of MultiFair or CGGM.

    :math:`B_m` is :func:`fairjax.modulation.modality_balance` of the unimodal scores'
    exact AUCs in this batch and in the last batch. A modality whose rows in the batch
    lack a class, or that no row has, keeps its last AUC and has a balance of 1. The
    other modalities are balanced among themselves; if only one is left, its balance is
    1, too.

    The mean of the :math:`B_m` is 1 − 1/M. So with :math:`\rho = 1.2` and two
    modalities, gradients are multiplied by .6 on average. Adam divides by the
    gradients' size: in a chain before Adam, a constant factor does not affect the
    updates, and only changes of the factor from batch to batch count. After Adam, the
    factor scales the step.

    Args:
      param_labels: From :func:`fairjax.modulation.modality_labels`, or a prefix of
        it.
      modalities: Names, in the order of the columns of ``unimodal_scores``.
      rho: :math:`\rho`, 0 or more; may be traced.
      signed: Whether to use CGGM's balance, of changes with their signs.
      limit: The largest :math:`|B_m|` allowed, if any; may be traced. Without a limit,
        the signed balance is unbounded.

    Returns:
      A transformation of updates ``[*param]``, or of stacked updates ``[K, *param]``.
      Its ``update`` needs ``unimodal_scores=[n, M]`` and ``labels=[n]`` (1 or 0; other
      rows are padding), and takes ``present=[n, M]``, False where a row lacks a
      modality. Only parameters labelled with a modality are scaled. The batch is what
      one call sees. Under ``pmap`` or inside ``shard_map``, gather the scores first;
      otherwise the replicas diverge.

    Raises:
      ValueError: If ``modalities`` is empty or repeats a name, a setting is below 0, or
        the labels do not fit the modalities or the parameters. At the update, if an
        argument is missing or has another shape. Where labels are not traced, also if
        they are 1 and −1 or 1 and 2.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025; Guo et al., NeurIPS 2024.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from fairjax import modulation
      >>> params = {"image": jnp.ones(1), "notes": jnp.ones(1), "head": jnp.ones(1)}
      >>> labels = {"image": "image", "notes": "notes", "head": "shared"}
      >>> tx = modulation.balance_modalities(labels, ["image", "notes"], rho=1.0)
      >>> scores = jnp.array([[0.9, 0.5], [0.1, 0.5]])
      >>> updates, state = jax.jit(tx.update)(
      ...     params, tx.init(params), unimodal_scores=scores, labels=jnp.array([1, 0]))
      >>> [round(float(updates[name][0]), 3) for name in ("image", "notes", "head")]
      [0.0, 1.0, 1.0]
    """
    names = names_of(modalities)
    check_nonnegative("rho", rho)
    if limit is not None:
        check_nonnegative("limit", limit)

    def init(params: Params) -> ModalityBalanceState:
        check_labels(param_labels, names, params)
        number = len(names)
        return ModalityBalanceState(
            jnp.full(number, 0.5, jnp.float32), jnp.ones(number, jnp.float32)
        )

    def update(
        updates: PyTree,
        state: Any,
        params: Params | None = None,
        *,
        unimodal_scores: Array | None = None,
        labels: Array | None = None,
        present: Array | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ModalityBalanceState]:
        del params, extra
        scores = unimodal("balance_modalities", unimodal_scores, names)
        labels = needed("balance_modalities", "labels", labels)
        auc, found = modality_aucs(scores, labels, state.modality_auc, present=present)
        balance = modality_balance(
            auc, state.modality_auc, signed=signed, observed=found
        )
        if limit is not None:
            balance = jnp.clip(balance, -jnp.asarray(limit), limit)
        updates = scale_by_label(
            updates, param_labels, names, jnp.asarray(rho) * balance
        )
        return updates, ModalityBalanceState(
            auc.astype(jnp.float32), balance.astype(jnp.float32)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def modality_aucs(
    unimodal_scores: Float[Array, "n M"],
    labels: Array,
    previous: Float[Array, " M"],
    *,
    present: Bool[Array, "n M"] | None = None,
) -> tuple[Float[Array, " M"], Bool[Array, " M"]]:
    """Computes each modality's exact AUC in a batch, or keeps the last AUC.

    Args:
      unimodal_scores: ``[n, M]``.
      labels: ``[n]``, 1 or 0; other rows are padding.
      previous: ``[M]``, the last AUCs.
      present: ``[n, M]``, False where a row lacks the modality.

    Returns:
      AUCs ``[M]`` in [0, 1], of the type of ``previous``; and bool ``[M]``, False where
      the rows lack a class, so that the last AUC is kept.

    Raises:
      ValueError: As :func:`fairjax.modulation.group_aucs`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> scores, labels = jnp.array([[0.9], [0.1]]), jnp.array([1, 1])
      >>> jax.jit(modality_aucs)(scores, labels, jnp.array([0.7]))
      (Array([0.7], dtype=float32), Array([False], dtype=bool))
    """
    found = group_aucs(unimodal_scores, labels, present=present)
    values, defined = found.values[:, 0], found.defined[:, 0]
    # In the type of the last AUCs, so that an unchanged AUC has a difference of 0.
    values = values.astype(previous.dtype)
    return jnp.where(defined, values, previous), defined


def ogm_ge(
    param_labels: PyTree,
    modalities: Sequence[str],
    *,
    alpha: Scalar = 0.1,
    noise: Scalar = 1.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Slows the modality that contributes most, and adds noise to generalise: OGM-GE.

    A modality's gradient :math:`g` becomes :math:`k_m g + \varepsilon`, with
    :math:`k_m` of :func:`fairjax.modulation.contribution_balance`. The Gaussian noise
    :math:`\varepsilon` has the standard deviation that :math:`g` has over the
    parameter's entries. A contribution is the mean probability that a modality's scores
    give the true class, over the rows that have the modality. A modality that no row
    has is left out of the comparison. The released code modulates convolutions only;
    this function modulates every parameter that is labelled with a modality.

    Args:
      param_labels: From :func:`fairjax.modulation.modality_labels`, or a prefix of
        it.
      modalities: Names, in the order of the columns of ``unimodal_scores``.
      alpha: How much a modality is slowed, 0 or more; may be traced.
      noise: Factor on the noise, 0 or more; 0 for OGM without GE; may be traced.
      key: The random key of the noise.

    Returns:
      A transformation of updates ``[*param]``. Its ``update`` needs
      ``unimodal_scores=[n, M]``, probabilities of class 1, and ``labels=[n]``, and
      takes ``present=[n, M]``.

    Raises:
      ValueError: As :func:`balance_modalities`.

    References:
      Peng et al., *Balanced Multimodal Learning via On-the-fly Gradient Modulation*,
      CVPR 2022.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from fairjax import modulation
      >>> params = {"image": jnp.ones(2), "notes": jnp.ones(2)}
      >>> labels = {"image": "image", "notes": "notes"}
      >>> tx = modulation.ogm_ge(labels, ["image", "notes"], alpha=0.5, noise=0.0)
      >>> updates, _ = jax.jit(tx.update)(
      ...     params, tx.init(params),
      ...     unimodal_scores=jnp.array([[0.8, 0.4]]), labels=jnp.array([1]))
      >>> [round(float(updates[name][0]), 3) for name in ("image", "notes")]
      [0.238, 1.0]
    """
    names = names_of(modalities)
    check_nonnegative("alpha", alpha)
    check_nonnegative("noise", noise)

    def init(params: Params) -> ContributionBalanceState:
        check_labels(param_labels, names, params)
        return ContributionBalanceState(
            jnp.ones(len(names), jnp.float32), jax.random.key_data(as_key(key))
        )

    def update(
        updates: PyTree,
        state: Any,
        params: Params | None = None,
        *,
        unimodal_scores: Array | None = None,
        labels: Array | None = None,
        present: Array | None = None,
        **extra: Any,
    ) -> tuple[PyTree, ContributionBalanceState]:
        del params, extra
        scores = unimodal("ogm_ge", unimodal_scores, names)
        labels = needed("ogm_ge", "labels", labels)
        labels, _, present = read_batch(scores.shape, labels, present=present)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        true = jnp.where(labels[:, None] == 1, scores, 1 - scores)
        counted = ((labels == 0) | (labels == 1))[:, None] & jnp.isfinite(scores)
        if present is not None:
            counted &= present
        number = jnp.sum(counted, axis=0)
        total = jnp.sum(jnp.where(counted, true, 0.0), axis=0)
        balance = contribution_balance(
            total / jnp.maximum(number, 1), alpha=alpha, observed=number > 0
        )
        next_key, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
        drawn = optax.tree.random_like(draw, updates)

        def disturb(number: int, leaf: Array, normal: Array) -> Array:
            spread = jnp.asarray(noise, leaf.dtype) * jnp.std(leaf)
            return leaf * balance[number].astype(leaf.dtype) + spread * normal

        updates = map_labelled(disturb, param_labels, names, updates, drawn)
        return updates, ContributionBalanceState(
            balance.astype(jnp.float32), jax.random.key_data(next_key)
        )

    return optax.GradientTransformationExtraArgs(init, update)
