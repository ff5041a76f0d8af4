r"""Reweighing: example weights under which label and group are independent."""

import numpy as np
from jaxtyping import Float32, Int


def reweighting(
    groups: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    r"""Weights :math:`w(a, y) = P(a) P(y) / P(a, y)` of each example, scaled to mean 1.

    Args:
      groups: ``[n]`` group ids, from 0.
      label: ``[n]``, 0 or 1.

    Returns:
      ``[n]`` float32 with mean 1.

    References:
      Kamiran and Calders, *Data preprocessing techniques for classification without
      discrimination*, Knowledge and Information Systems 33, 2012.

    Example:
      >>> import numpy as np
      >>> weights = reweighting(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1]))
      >>> weights.round(3).tolist() == np.float32([0.9, 0.9, 1.2, 1.2, 0.8]).tolist()
      True
    """
    joint = np.zeros((groups.max() + 1, 2))
    np.add.at(joint, (groups, label), 1.0)
    expected = joint.sum(1, keepdims=True) * joint.sum(0) / len(label)
    ratio = np.divide(expected, joint, out=np.ones_like(joint), where=joint > 0)
    weights = ratio[groups, label]
    return (weights / weights.mean()).astype(np.float32)
