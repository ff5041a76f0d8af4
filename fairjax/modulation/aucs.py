r"""AUCs of a batch, for each modality and group: exact, and as smooth surrogates.

The AUC is the mean of :math:`\phi(s_i - s_j)` over pairs of a positive :math:`i` and
a negative :math:`j` of one group, with :math:`\phi` the step function, or a smooth
stand-in for it.
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
    r"""The AUC of each modality's scores within each group of a batch.

    :math:`\hat A_{m,g}` is the mean of :math:`\phi(s_{i,m} - s_{j,m})` over the pairs
    of a positive :math:`i` and a negative :math:`j` in group :math:`g`, with

    - ``"exact"``: :math:`\phi(d) = 1[d > 0] + 1[d = 0]/2`, the AUC itself; its
      derivative is zero.
    - ``"released"``: :math:`\phi(d) = 1 - \log(1 + e^{-d})`, as MultiFair's released
      code has it. With scores in [0, 1] it lies in [−.313, .687], and is .307 where
      the scores do not separate at all, less than the .5 that stands for a group that
      lacks a class.
    - ``"paper"``: :math:`\phi(d) = 1 - \log(1 + e^{-d}) / (2 \log 2)`, the same loss
      on a scale on which no separation is .5, so that the values and the .5 that
      stands for no value mean the same. With scores in [0, 1]: [.053, .774].

    Takes n² · M / 2 numbers of memory, so that nothing leaves the device.

    Args:
      scores: ``[n, M]``, higher for positives. A probability for the ranges above.
        One that is not finite counts as absent.
      labels: ``[n]``, 1 or 0; rows of another value (padding) are in no pair.
      groups: ``[n]``, whole numbers in ``0 .. G − 1``; a row with a negative one is in
        no group. None: all in one.
      num_groups: G.
      kind: See above.
      present: ``[n, M]``, False, or 0, where a row lacks the modality: in no pair of
        it.

    Returns:
      The AUCs, and where they are defined.

    Raises:
      ValueError: An unknown kind, no groups, shapes that do not fit. Where they are not
        traced: labels that are 1 and −1, or 1 and 2, or text; groups of G or more, or
        all of them negative. Groups that are no whole numbers, traced or not.

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
            f"scores are [n, M], one column a modality; not {scores.shape}."
        )
    labels, groups, present = read_batch(
        scores.shape, labels, groups, present, num_groups=num_groups
    )
    if groups is None:
        groups = jnp.zeros(scores.shape[0], jnp.int32)
    scores, labels, groups = gathered(scores), gathered(labels), gathered(groups)
    # Selected, so that one score that is not finite does not reach all groups, nor
    # stay in a moving average for ever.
    counted = jnp.isfinite(scores)
    if present is not None:
        counted &= gathered(present)
    wide = jnp.promote_types(scores.dtype, jnp.float32)
    scores = jnp.where(counted, scores.astype(wide), 0.0).T
    positive, negative = (labels == 1) & counted.T, (labels == 0) & counted.T
    against = _worth_of_pairs(scores, positive, negative, labels, groups, kind)
    member = jax.nn.one_hot(groups, num_groups, dtype=wide)
    # In full precision: an accelerator would else count pairs in 16 bits.
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
    """For each row of the more frequent class, the sum over its pairs in its group.

    A row is in one group alone, so that one sum serves all groups.
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
    # A negative above a positive is, turned round, a positive above a negative.
    turned = jnp.where(few_are_positive, scores, -scores)
    worth = _worth(turned[:, place][:, :, None], turned[:, None, :], kind)
    # Along the first of the two axes compilers fuse the sum with what is summed.
    return jnp.sum(jnp.where(pair, worth, 0), axis=1)


def _worth(one: Array, other: Array, kind: Kind) -> Array:
    if kind == "exact":
        # Compared, not subtracted: differences of tiny scores are flushed to zero.
        return (one > other) + jnp.asarray(0.5, one.dtype) * (one == other)
    # The log1p of softplus takes several times as long; it is exact where the loss is
    # next to nothing, which beside the 1 cannot be seen. Selected where `maximum` would
    # do, so that the derivative at a tie is a half.
    behind = other - one
    loss = jnp.where(behind >= 0, behind, 0) + jnp.log(1 + jnp.exp(-jnp.abs(behind)))
    return 1 - loss / (1.0 if kind == "released" else 2 * math.log(2.0))
