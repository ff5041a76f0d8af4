r"""AUCs of a batch, for each modality and group: exact, or as smooth surrogates.

The AUC is the mean of :math:`\phi(s_i - s_j)` over pairs of a positive :math:`i` and
a negative :math:`j` of one group. Here :math:`\phi` is the step function or a smooth
surrogate of the step function.
"""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairjax.modulation._arguments import read_batch
from fairjax.types import check_choice, check_whole, gathered

Kind: TypeAlias = Literal["exact", "paper", "released"]


class GroupAucs(NamedTuple):
    """AUCs of modalities within groups.

    Attributes:
      values: ``[M, G]``; .5 where the group lacks a class.
      defined: ``[M, G]``, whether the group has both classes.
    """

    values: Float[Array, "M G"]
    defined: Bool[Array, "M G"]


def group_aucs(
    scores: Float[Array, "n M"],
    labels: Array,
    groups: Int[Array, " n"] | None = None,
    *,
    num_groups: int = 1,
    kind: Kind = "exact",
    present: Bool[Array, "n M"] | None = None,
) -> GroupAucs:
    r"""Computes the AUC of each modality's scores within each group of a batch.

    :math:`\hat A_{m,g}` is the mean of :math:`\phi(s_{i,m} - s_{j,m})` over the pairs
    of a positive :math:`i` and a negative :math:`j` in group :math:`g`, with

    - ``"exact"``: :math:`\phi(d) = 1[d > 0] + 1[d = 0]/2`, the AUC itself; its
      derivative is zero.
    - ``"released"``: :math:`\phi(d) = 1 - \log(1 + e^{-d})`, as in MultiFair's released
      code. With scores in [0, 1] the value lies in [−.313, .687]. Scores that do not
      separate the classes give .307, which is less than the .5 of a group that lacks a
      class.
    - ``"paper"``: :math:`\phi(d) = 1 - \log(1 + e^{-d}) / (2 \log 2)`, the same loss on
      another scale: scores that do not separate the classes give .5, the value of a
      group that lacks a class. With scores in [0, 1] the value lies in [.053, .774].

    Needs memory for n² · M / 2 numbers; all computations stay on the device.

    Args:
      scores: ``[n, M]``, higher for positives. The ranges above are for probabilities.
        A score that is not finite counts as absent.
      labels: ``[n]``, 1 or 0; rows of another value (padding) are in no pair.
      groups: ``[n]``, integers in ``0 .. G − 1``; a row with a negative number is in no
        group. None: all rows are in one group.
      num_groups: Number of groups, G.
      kind: ``"exact"``, ``"paper"`` or ``"released"``, see above.
      present: ``[n, M]``, False, or 0, where a row lacks the modality; such a row is in
        no pair of the modality.

    Returns:
      The AUCs, and where they are defined.

    Raises:
      ValueError: If ``kind`` is unknown, ``num_groups`` is below 1, shapes do not fit,
        or groups are not integers. Where values are not traced, also if labels are 1
        and −1, 1 and 2, or text. Likewise if groups are G or more, or all negative.

    References:
      Gao and Zhou, *On the Consistency of AUC Pairwise Optimization*, IJCAI 2015, for
      the logistic loss.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fairjax import modulation
      >>> scores = jnp.array([[0.9, 0.2], [0.4, 0.6], [0.1, 0.6]])
      >>> jax.jit(modulation.group_aucs)(scores, jnp.array([1, 1, 0])).values
      Array([[1.  ],
             [0.25]], dtype=float32)
    """
    check_choice("kind", kind, *get_args(Kind))
    check_whole("num_groups", num_groups)
    scores = jnp.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(
            "scores must have shape [n, M], a column for each modality; "
            f"got shape {scores.shape}."
        )
    labels, groups, present = read_batch(
        scores.shape, labels, groups, present, num_groups=num_groups
    )
    if groups is None:
        groups = jnp.zeros(scores.shape[0], jnp.int32)
    scores, labels, groups = gathered(scores), gathered(labels), gathered(groups)
    # Masked, so that a score that is not finite does not reach all groups, nor stay in
    # a moving average for ever.
    counted = jnp.isfinite(scores)
    if present is not None:
        counted &= gathered(present)
    wide = jnp.promote_types(scores.dtype, jnp.float32)
    scores = jnp.where(counted, scores.astype(wide), 0.0).T
    positive, negative = (labels == 1) & counted.T, (labels == 0) & counted.T
    against = _worth_of_pairs(scores, positive, negative, labels, groups, kind)
    member = jax.nn.one_hot(groups, num_groups, dtype=wide)
    # In full precision, since an accelerator would otherwise count pairs in 16 bits.
    total, positives, negatives = (
        jnp.matmul(rows, member, precision=jax.lax.Precision.HIGHEST)
        for rows in (against, positive.astype(wide), negative.astype(wide))
    )
    pairs = positives * negatives
    defined = pairs > 0
    return GroupAucs(jnp.where(defined, total / jnp.maximum(pairs, 1), 0.5), defined)


def _worth_of_pairs(
    scores: Float[Array, "M n"],
    positive: Bool[Array, "M n"],
    negative: Bool[Array, "M n"],
    labels: Array,
    groups: Array,
    kind: Kind,
) -> Float[Array, "M n"]:
    """Sums over the pairs, in its group, of each row of the more frequent class.

    Each row is in one group only, so one sum serves all groups.
    """
    n = labels.shape[0]
    # The less frequent class fits into half of the rows.
    few_are_positive = jnp.sum(labels == 1) <= jnp.sum(labels == 0)
    few = labels == few_are_positive
    (rows,) = jnp.nonzero(few, size=(n + 1) // 2, fill_value=n)
    place = jnp.minimum(rows, n - 1)
    one = jnp.where(few_are_positive, positive, negative)[:, place] & (rows < n)
    other = jnp.where(few_are_positive, negative, positive)
    pair = one[:, :, None] & other[:, None, :]
    pair &= groups[place][:, None] == groups
    # With the signs turned, a negative above a positive becomes a positive above a
    # negative.
    turned = jnp.where(few_are_positive, scores, -scores)
    worth = _worth(turned[:, place][:, :, None], turned[:, None, :], kind)
    # Compilers fuse the sum with its terms along the first of the two axes.
    return jnp.sum(jnp.where(pair, worth, 0), axis=1)


def _worth(one: Array, other: Array, kind: Kind) -> Array:
    if kind == "exact":
        # Compared, not subtracted: differences of tiny scores are flushed to zero.
        return (one > other) + jnp.asarray(0.5, one.dtype) * (one == other)
    # The log1p of softplus takes several times as long. It is more exact only where the
    # loss is tiny, and there the difference vanishes beside the 1. `where` in place of
    # `maximum` makes the derivative at a tie a half.
    behind = other - one
    loss = jnp.where(behind >= 0, behind, 0) + jnp.log(1 + jnp.exp(-jnp.abs(behind)))
    return 1 - loss / (1.0 if kind == "released" else 2 * math.log(2.0))
