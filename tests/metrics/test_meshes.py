"""Rows that lie in parts on an explicit mesh give what they give in one piece."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fairjax import metrics

ROWS, PATIENTS = 64, 20
KEY = jax.random.key(0)
GROUPS = {"num_groups": 3}
CLUSTERS = {"num_groups": 3, "num_patients": PATIENTS}
DRAWS = {"num_replicates": 3}

# Of labels, scores, groups, decisions (as integer weights too) and patients.
CALLS = {
    "group_counts": lambda y, s, g, d, p: metrics.group_counts(y, d, g, **GROUPS),
    "group_auroc": lambda y, s, g, d, p: metrics.group_auroc(
        y, s, g, weights=d, **GROUPS
    ),
    "group_auprc": lambda y, s, g, d, p: metrics.group_auprc(y, s, g, **GROUPS),
    "cross_auroc": lambda y, s, g, d, p: metrics.cross_auroc(y, s, g, **GROUPS),
    "abroca": lambda y, s, g, d, p: metrics.abroca(y, s, g, **GROUPS),
    "group_brier": lambda y, s, g, d, p: metrics.group_brier(y, s, g, **GROUPS),
    "group_calibration_error": lambda y, s, g, d, p: metrics.group_calibration_error(
        y, s, g, weights=d, **GROUPS
    ),
    "logistic_recalibration": lambda y, s, g, d, p: metrics.logistic_recalibration(
        y, s, g, **GROUPS
    ),
    "delong": lambda y, s, g, d, p: metrics.delong(
        y, jnp.stack([s, s**2]), g, patients=p, **CLUSTERS
    ),
    "net_benefit": lambda y, s, g, d, p: metrics.net_benefit(
        y, s, g, jnp.array([0.2, 0.5]), **GROUPS
    ),
    "cluster_rate_covariance": lambda y, s, g, d, p: metrics.cluster_rate_covariance(
        d, y, g, p, **CLUSTERS
    ),
    "entropy_split": lambda y, s, g, d, p: metrics.entropy_split(y, s, g, **GROUPS),
    "influence_variance": lambda y, s, g, d, p: metrics.influence_variance(
        s, g, **GROUPS
    ),
    "bootstrap_auroc": lambda y, s, g, d, p: metrics.bootstrap_auroc(
        KEY, y, s, g, **DRAWS, **GROUPS
    ),
    "patient_bootstrap_counts": lambda y, s, g, d, p: metrics.patient_bootstrap_counts(
        KEY, y, d, g, p, **DRAWS, **CLUSTERS
    ),
}


CASES = [*((name, False) for name in CALLS), ("group_auroc", True), ("delong", True)]
QUICK = [("group_counts", False), ("influence_variance", False)]


@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in CASES
    ],
)
def test_sharded_rows(name, compiled):
    rng = np.random.default_rng(0)
    labels, decisions = rng.integers(0, 2, (2, ROWS))
    scores = rng.random(ROWS).astype(np.float32)
    patients = rng.integers(0, PATIENTS, ROWS)
    columns = labels, scores, rng.integers(-1, 3, ROWS), decisions, patients
    mesh = jax.make_mesh((2,), ("x",))  # explicit, JAX's default
    split = [
        jax.device_put(column, NamedSharding(mesh, PartitionSpec("x")))
        for column in columns
    ]
    call = jax.jit(CALLS[name]) if compiled else CALLS[name]
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6),
        call(*split),
        call(*columns),
    )
