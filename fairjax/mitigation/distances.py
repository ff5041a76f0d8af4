"""How far apart the groups' distributions of features are."""

import numpy as np
from jaxtyping import Float, Int


def distribution_distances(
    features: Float[np.ndarray, "n d"],
    groups: Int[np.ndarray, " n"],
    *,
    num_groups: int,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    r"""How far apart the groups' distributions of each feature are.

    - Kolmogorov-Smirnov: the largest :math:`\sup_x |F_g(x) - F_h(x)|` of two groups, in
      [0, 1].
    - Wasserstein: the largest :math:`\int |F_g(x) - F_h(x)| dx` of two groups over the
      standard deviation of all values, 0 or more; 0 for a constant feature.

    Args:
      features: ``[n, d]``; NaN is a missing value and counts for nothing.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.

    Returns:
      Both, ``[d]``; NaN where fewer than two groups have values.

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
        of, which = np.unique(values[seen], return_inverse=True)
        counts = np.zeros((num_groups, len(of)))
        np.add.at(counts, (groups[seen], which), 1)
        counts = counts[counts.sum(axis=1) > 0]
        if len(counts) < 2:
            continue
        below = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
        smirnov[column] = np.max(below.max(axis=0) - below.min(axis=0))
        apart = np.abs(below[:, None, :-1] - below[None, :, :-1]) @ np.diff(of)
        spread = values[seen].std()
        wasserstein[column] = apart.max() / spread if spread > 0 else 0.0
    return smirnov, wasserstein
