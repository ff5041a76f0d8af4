"""MultiFair's f: modalities' gradients scaled by how unevenly they serve groups."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from fairjax.modulation._arguments import (
    check_two_groups,
    fused,
    names_of,
    needed,
    unimodal,
)
from fairjax.modulation.aucs import group_aucs
from fairjax.modulation.factors import fairness_factors, fairness_gap
from fairjax.modulation.parameters import check_labels, scale_by_label
from fairjax.types import (
    Params,
    Scalar,
    check_choice,
    check_decay,
    check_nonnegative,
    check_whole,
)

Mode: TypeAlias = Literal["paper", "released"]


class GroupBalanceState(NamedTuple):
    """State of :func:`balance_groups`; read with ``optax.tree.get``.

    Attributes:
      group_auc: ``[M, G]``, moving averages of the surrogate AUCs; .5 at first.
      group_seen: ``[M, G]``, whether the group has had both classes in a batch.
      fairness_factors: ``[M]``, :math:`f_m` of the last batch, applied or not.
      fairness_gap: ``[]``, :math:`F_G` of the averages.
      fused_gap: ``[]``, the largest less the smallest AUC of the fused scores among
        the batch's groups; NaN where fewer than two groups can be compared.
      fairness_gate: ``[]``, whether ``fused_gap`` was above the threshold.
    """

    group_auc: Float[Array, "M G"]
    group_seen: Bool[Array, "M G"]
    fairness_factors: Float[Array, " M"]
    fairness_gap: Float[Array, ""]
    fused_gap: Float[Array, ""]
    fairness_gate: Bool[Array, ""]


class GroupSignals(NamedTuple):
    """A batch's averages, gap and gate; fields as in :class:`GroupBalanceState`."""

    group_auc: Float[Array, "M G"]
    group_seen: Bool[Array, "M G"]
    fused_gap: Float[Array, ""]
    fairness_gate: Bool[Array, ""]


def balance_groups(
    param_labels: PyTree,
    modalities: Sequence[str],
    *,
    num_groups: int,
    mode: Mode = "paper",
    mu: Scalar = 0.3,
    tau: Scalar = 0.04,
    decay: Scalar = 0.9,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales modalities' gradients by MultiFair's :math:`f_m`, where groups differ.

    :math:`f_m` is :func:`fairjax.modulation.fairness_factors` of moving averages of
    each modality's surrogate AUC in each group. It applies to a batch in which the
    *fused* scores' exact AUC differs between groups by more than :math:`\tau`. The
    fractions :math:`n_g / n` are of all labelled rows of the batch that have a group.
    Rows that lack a modality count too, so the fractions are the same for every
    modality.

    - ``mode="released"`` computes what the released code does. The surrogate is .307
      for scores that do not separate the classes, yet .5 for a group that lacks a
      class, also in the averages. The gate needs two rows or more of *every* group, and
      counts a group that lacks a class with an AUC of .5.
    - ``mode="paper"`` uses the surrogate that is .5 for scores that do not separate the
      classes. A group that lacks a class in a batch keeps its average, and is left out
      of the gate. Groups never seen with both classes are ignored. :math:`f_m` is 0 at
      least, so that no gradient is reversed.

    In both modes :math:`f_m = 1` where a batch has all groups equally often.

    Args:
      param_labels: From :func:`fairjax.modulation.modality_labels`, or a prefix of
        it.
      modalities: Names, in the order of the columns of ``unimodal_scores``.
      num_groups: Number of groups, G, 2 or more; each intersection is a group.
      mode: ``"paper"`` or ``"released"``, see above.
      mu: :math:`\mu`, the strength, 0 or more; may be traced, as may the next two.
        The released code has .3 with a ``tau`` of .04 (FairVision), and .5 with .07
        (FairCLIP).
      tau: :math:`\tau`, 0 or more, the threshold of the gate and the scale of the
        factors.
      decay: Decay of the moving averages, in [0, 1).

    Returns:
      A transformation of updates ``[*param]``, or of stacked updates ``[K, *param]``.
      Its ``update`` needs ``unimodal_scores=[n, M]`` and ``scores=[n]``
      (probabilities), ``labels=[n]`` (1 or 0; other rows are padding) and
      ``groups=[n]`` (in ``0 .. G − 1``; a row with a negative number is in no group),
      and takes ``present=[n, M]``. The batch is what one call sees, as for
      :func:`balance_modalities`.

    Raises:
      ValueError: As :func:`balance_modalities`. Also if there are fewer than two
        groups, ``mode`` is unknown, a setting is out of its range, or
        :func:`fairjax.modulation.group_aucs` refuses the groups.

    References:
      Zubair et al., *MultiFair*, arXiv:2510.07328, 2025.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax import modulation
      >>> params = {"image": jnp.ones(1), "head": jnp.ones(1)}
      >>> tx = modulation.balance_groups(
      ...     {"image": "image", "head": "shared"}, ["image"], num_groups=2, tau=0.1)
      >>> scores = jnp.array([0.9, 0.1, 0.2, 0.8, 0.3])
      >>> updates, state = jax.jit(tx.update)(
      ...     params, tx.init(params), scores=scores, unimodal_scores=scores[:, None],
      ...     labels=jnp.array([1, 0, 1, 0, 0]), groups=jnp.array([0, 0, 1, 1, 1]))
      >>> bool(state.fairness_gate), round(float(updates["image"][0]), 3)
      (True, 1.011)
    """
    names = names_of(modalities)
    check_whole("num_groups", num_groups)
    check_two_groups(num_groups)
    check_choice("mode", mode, *get_args(Mode))
    check_settings(tau=tau, decay=decay, mu=mu)

    def init(params: Params) -> GroupBalanceState:
        check_labels(param_labels, names, params)
        shape = (len(names), num_groups)
        return GroupBalanceState(
            group_auc=jnp.full(shape, 0.5, jnp.float32),
            group_seen=jnp.zeros(shape, bool),
            fairness_factors=jnp.ones(len(names), jnp.float32),
            fairness_gap=jnp.zeros((), jnp.float32),
            fused_gap=jnp.full((), jnp.nan, jnp.float32),
            fairness_gate=jnp.zeros((), bool),
        )

    def update(
        updates: PyTree,
        state: Any,
        params: Params | None = None,
        *,
        unimodal_scores: Array | None = None,
        scores: Array | None = None,
        labels: Array | None = None,
        groups: Array | None = None,
        present: Array | None = None,
        **extra: Any,
    ) -> tuple[PyTree, GroupBalanceState]:
        del params, extra
        groups = needed("balance_groups", "groups", groups)
        labels = needed("balance_groups", "labels", labels)
        columns = unimodal("balance_groups", unimodal_scores, names)
        signals = group_signals(
            columns,
            fused("balance_groups", scores, columns.shape[0]),
            labels,
            groups,
            state.group_auc,
            state.group_seen,
            mode=mode,
            tau=tau,
            decay=decay,
            present=present,
        )
        counts = _counts(labels, groups, num_groups)
        seen = signals.group_seen if mode == "paper" else None
        factors = fairness_factors(
            signals.group_auc,
            counts / jnp.maximum(jnp.sum(counts), 1),
            strength=mu,
            threshold=tau,
            observed=seen,
        )
        if mode == "paper":
            factors = jnp.maximum(factors, 0.0)
        applied = jnp.where(signals.fairness_gate, factors, 1.0)
        updates = scale_by_label(updates, param_labels, names, applied)
        return updates, GroupBalanceState(
            group_auc=signals.group_auc.astype(jnp.float32),
            group_seen=signals.group_seen,
            fairness_factors=factors.astype(jnp.float32),
            fairness_gap=fairness_gap(signals.group_auc, observed=seen).astype(
                jnp.float32
            ),
            fused_gap=signals.fused_gap.astype(jnp.float32),
            fairness_gate=signals.fairness_gate,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def group_signals(
    unimodal_scores: Float[Array, "n M"],
    scores: Float[Array, " n"],
    labels: Array,
    groups: Array,
    group_auc: Float[Array, "M G"],
    group_seen: Bool[Array, "M G"],
    *,
    mode: Mode,
    tau: Scalar,
    decay: Scalar,
    present: Bool[Array, "n M"] | None = None,
) -> GroupSignals:
    """Computes the moving averages after a batch, and its gate, from the scores.

    The result is differentiable by the scores.

    Args:
      unimodal_scores: ``[n, M]``, probabilities.
      scores: ``[n]``, the fused probabilities.
      labels: ``[n]``, 1 or 0; other rows are padding.
      groups: ``[n]``, in ``0 .. G − 1``; a row with a negative number is in no group.
      group_auc: ``[M, G]``, the averages before the batch.
      group_seen: ``[M, G]``, whether a group has had both classes before the batch.
      mode: As for :func:`balance_groups`.
      tau: As for :func:`balance_groups`, the threshold of the gate.
      decay: As for :func:`balance_groups`, the decay of the averages.
      present: ``[n, M]``, False where a row lacks the modality.

    Returns:
      The averages after the batch, and its gate.

    Raises:
      ValueError: As :func:`fairjax.modulation.group_aucs`.

    Example:
      >>> import functools, jax, numpy as np
      >>> scores = np.array([0.9, 0.1, 0.2, 0.8])
      >>> signals_of = jax.jit(
      ...     functools.partial(group_signals, mode="paper", tau=0.1, decay=0.9))
      >>> signals = signals_of(
      ...     scores[:, None], scores, np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1]),
      ...     np.full((1, 2), 0.5), np.zeros((1, 2), bool))
      >>> float(signals.fused_gap)
      1.0
    """
    num_groups = group_auc.shape[1]
    found = group_aucs(
        unimodal_scores,
        labels,
        groups,
        num_groups=num_groups,
        kind=mode,
        present=present,
    )
    fused = group_aucs(scores[:, None], labels, groups, num_groups=num_groups)
    compared, fused_auc = fused.defined[0], fused.values[0]
    averaged = group_auc + (1 - jnp.asarray(decay)) * (found.values - group_auc)
    if mode == "paper":
        averaged = jnp.where(found.defined, averaged, group_auc)
        enough = jnp.sum(compared) >= 2
    else:
        counts = _counts(labels, groups, num_groups)
        compared = jnp.ones_like(compared)
        enough = jnp.all(counts > 1)
    highest = jnp.max(jnp.where(compared, fused_auc, -jnp.inf))
    lowest = jnp.min(jnp.where(compared, fused_auc, jnp.inf))
    gap = jnp.where(enough, highest - lowest, jnp.nan)
    # A comparison with NaN is false: without a gap there is no gate.
    return GroupSignals(averaged, group_seen | found.defined, gap, gap > tau)


def _counts(labels: Array, groups: Array, num_groups: int) -> Float[Array, " G"]:
    """Counts the labelled rows of each group; padding does not count."""
    labels, groups = jnp.asarray(labels), jnp.asarray(groups)
    labelled = (labels == 0) | (labels == 1)
    return jnp.sum(jax.nn.one_hot(groups, num_groups) * labelled[:, None], axis=0)


def check_settings(*, tau: Scalar, decay: Scalar, **others: Scalar) -> None:
    """Refuses settings outside their ranges, if they are known now.

    Args:
      tau: The threshold, 0 or more.
      decay: The decay of a moving average, in [0, 1).
      **others: Further settings by name, 0 or more.

    Raises:
      ValueError: If a setting is outside its range.

    Example:
      >>> check_settings(tau=0.04, decay=0.9, mu=0.3)
      >>> check_settings(tau=0.04, decay=0.9, mu=-0.3)
      Traceback (most recent call last):
        ...
      ValueError: mu must be 0 or more; got -0.3.
    """
    for name, value in {"tau": tau, **others}.items():
        check_nonnegative(name, value)
    check_decay(decay)
