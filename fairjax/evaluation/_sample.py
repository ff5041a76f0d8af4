"""Predictions under any weights, and the quantities that many metrics share."""

import jax
import jax.numpy as jnp

from fairjax import metrics
from fairjax.evaluation.cohorts import Cohort
from fairjax.groups import Grouping
from fairjax.metrics import GroupCounts


class Sample:
    """One repeat's predictions under ``B`` weightings, with shared parts cached."""

    def __init__(
        self,
        cohort: Cohort,
        scores: jax.Array,
        decisions: jax.Array,
        weights: jax.Array,
    ):
        """Stores scores ``[n]``, decisions ``[n]`` and weights ``[B, n]``.

        Decisions are bool, or floats in [0, 1]: probabilities of a positive decision.
        """
        self.cohort = cohort
        self.scores = scores
        self.decisions = decisions
        self.weights = weights
        self._order = metrics.score_order(scores)
        self._auroc: jax.Array | None = None
        self._group_aurocs: dict[str, jax.Array] = {}
        self._counts: dict[str, GroupCounts] = {}
        everyone = jnp.zeros_like(cohort.labels)
        self._whole = Grouping("", ("",), everyone)

    def auroc(self) -> jax.Array:
        """Returns the AUROC of all patients, ``[B]``."""
        if self._auroc is None:
            self._auroc = self._ranked(self.weights)
        return self._auroc

    def group_aurocs(self, grouping: Grouping) -> jax.Array:
        """Returns each group's AUROC, ``[B, G]``; NaN for groups not compared."""
        if grouping.name not in self._group_aurocs:
            members = grouping.codes == jnp.arange(grouping.size)[:, None]
            # Sorted once, with weights of 0 for other groups: a sort by group too is
            # slow to compile.
            found = jax.lax.map(lambda one: self._ranked(self.weights * one), members).T
            enough = jnp.asarray(grouping.compared)
            self._group_aurocs[grouping.name] = jnp.where(enough, found, jnp.nan)
        return self._group_aurocs[grouping.name]

    def _ranked(self, weights: jax.Array) -> jax.Array:
        """Returns AUROCs ``[B]`` under weights ``[B, n]``."""
        auroc = jax.vmap(metrics.auroc_from_order, in_axes=(None, None, 0))
        return auroc(self._order, self.cohort.labels, weights)

    def counts(self, grouping: Grouping | None = None) -> GroupCounts:
        """Returns counts ``[B, G, 2, 2]``, or of all patients without a grouping.

        Counts are expectations where decisions are probabilities. A single matrix
        product computes all counts.
        """
        chosen = grouping or self._whole
        if chosen.name not in self._counts:
            self._counts[chosen.name] = self._counted(chosen)
        return self._counts[chosen.name]

    def _counted(self, grouping: Grouping) -> GroupCounts:
        cell = 2 * grouping.codes + self.cohort.labels
        if jnp.issubdtype(self.decisions.dtype, jnp.floating):
            members = jax.nn.one_hot(cell, 2 * grouping.size)
            parts = jnp.stack([1 - self.decisions, self.decisions])
            # [2 decisions, B, 2 G]
            table = jnp.stack([self.weights @ (members * p[:, None]) for p in parts])
            table = jnp.moveaxis(table, 0, -1)
        else:
            entry = 2 * cell + self.decisions
            table = self.weights @ jax.nn.one_hot(entry, 4 * grouping.size)
        return GroupCounts(table.reshape(-1, grouping.size, 2, 2))
