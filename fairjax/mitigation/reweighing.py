r"""Reweighing: example weights under which label and group are independent."""

import numpy as np
from jaxtyping import Float32, Int, Real

from fairjax.mitigation._patients import binary, check_lengths, group_ids
from fairjax.types import check_whole


def reweighing(
    labels: Real[np.ndarray, " n"], groups: Int[np.ndarray, " n"], *, num_groups: int
) -> Float32[np.ndarray, " n"]:
    r"""Computes weights of patients under which label and group are independent.

    .. math:: w_i = \frac{P(g_i) \, P(y_i)}{P(g_i, y_i)}

    with the fractions of the patients given, scaled to a mean of 1. Pass the weights
    to the loss, or to ``fit`` as ``sample_weight``. Compute them from training rows
    alone.

    Args:
      labels: ``[n]``, 0 or 1.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.

    Returns:
      ``[n]``, float32, with mean 1.

    Raises:
      ValueError: If columns differ in length, labels are not 0 or 1, or groups are out
        of range. Leave out rows that are in no group: −1 is out of range.

    References:
      Kamiran and Calders, *Data preprocessing techniques for classification without
      discrimination*, Knowledge and Information Systems 33, 2012.

    Example:
      >>> import numpy as np
      >>> from fairjax.mitigation.reweighing import reweighing
      >>> labels, groups = np.array([0, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 1])
      >>> reweighing(labels, groups, num_groups=2).round(3)
      array([0.9, 0.9, 1.2, 1.2, 0.8], dtype=float32)
    """
    check_whole("num_groups", num_groups)
    check_lengths(labels=labels, groups=groups)
    label, group = binary(labels), group_ids(groups, num_groups)
    if not len(label):
        return np.zeros(0, np.float32)
    joint = np.bincount(2 * group + label, minlength=2 * num_groups).reshape(-1, 2)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0) / len(label)
    weights = (expected / np.maximum(joint, 1))[group, label]
    return (weights / weights.mean()).astype(np.float32)
