"""Distances between the groups' distributions of features."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import pdist

from fairjax.mitigation._patients import near_one

# Groups times distinct values that are processed together.
_CELLS = 2**20


def distribution_distances(
    features: Float[np.ndarray, "n d"],
    groups: Int[np.ndarray, " n"],
    *,
    num_groups: int,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    r"""Computes two distances between the groups' distributions of each feature.

    - Kolmogorov-Smirnov: the largest :math:`\sup_x |F_g(x) - F_h(x)|` of two groups, in
      [0, 1].
    - Wasserstein: the largest :math:`\int |F_g(x) - F_h(x)| dx` of two groups over the
      standard deviation of all values, 0 or more; 0 for a constant feature.

    Args:
      features: ``[n, d]``; NaN is a missing value and is ignored.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.

    Returns:
      Both distances, ``[d]``; NaN where fewer than two groups have values.

    References:
      Feldman et al., KDD 2015; Villani, *Optimal Transport*, 2009, for the second.

    Example:
      >>> import numpy as np
      >>> x = np.array([[0.0], [1.0], [1.0], [2.0]])
      >>> smirnov, wasserstein = distribution_distances(
      ...     x, np.array([0, 0, 1, 1]), num_groups=2)
      >>> float(smirnov[0]), round(float(wasserstein[0]), 3)
      (0.5, 1.414)
    """
    features = np.asarray(features, np.float64)
    smirnov = np.full(features.shape[1], np.nan)
    wasserstein = np.full(features.shape[1], np.nan)
    for column, values in enumerate(features.T):
        seen = ~np.isnan(values)
        known = np.bincount(groups[seen], minlength=num_groups) > 0
        if known.sum() < 2:
            continue
        member = (np.cumsum(known) - 1)[groups[seen]]
        smirnov[column], apart = _apart(values[seen], member, int(known.sum()))
        spread = near_one(values[seen]).std()
        wasserstein[column] = apart / spread if spread > 0 else 0.0
    return smirnov, wasserstein


def _apart(values: np.ndarray, groups: np.ndarray, number: int) -> tuple[float, float]:
    """Computes both distances, the second in the unit of `near_one`.

    Each group must have values. Distinct values are processed in blocks, so that memory
    does not exceed that of the pairs of groups.
    """
    of, which = np.unique(values, return_inverse=True)
    order = np.argsort(which, kind="stable")
    groups, which = groups[order], which[order]
    sizes = np.bincount(groups, minlength=number)[:, None]
    # There is no gap after the last value.
    gaps = np.append(np.diff(near_one(of)), 0.0)
    largest, before = 0.0, np.zeros((number, 1), np.int64)
    between = np.zeros(number * (number - 1) // 2)
    step = max(1, _CELLS // number)
    for first in range(0, len(of), step):
        width = min(step, len(of) - first)
        rows = slice(*np.searchsorted(which, (first, first + width)))
        cell = groups[rows] * width + which[rows] - first
        counts = np.bincount(cell, minlength=number * width).reshape(number, width)
        counts = before + np.cumsum(counts, axis=1)
        below, before = counts / sizes, counts[:, -1:]
        # The two groups that are furthest apart at a value.
        largest = max(largest, float(np.max(below.max(axis=0) - below.min(axis=0))))
        between += pdist(below * gaps[first : first + width], "cityblock")
    return largest, float(between.max())
