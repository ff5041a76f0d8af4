"""MultiFair's equations in float64 NumPy, pair by pair: what the tests compare with.

Written from the equations, with no regard to speed, and with nothing of JAX in it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Settings:
    mode: str
    rho: float = 1.2
    mu: float = 0.3
    tau: float = 0.04
    decay: float = 0.9
    direction: float = 0.15
    fairness: float = 0.5


@dataclass(frozen=True)
class Batch:
    """Labels other than 0 and 1, and groups outside 0 .. G − 1, are padding."""

    unimodal_scores: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    present: np.ndarray


def step_function(difference):
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def released_surrogate(difference):
    return 1 - np.log1p(np.exp(-difference))


def paper_surrogate(difference):
    return 1 - np.log1p(np.exp(-difference)) / (2 * np.log(2))


def mean_over_pairs(worth, scores, labels, rows):
    """None where the rows lack a class."""
    found = [
        worth(scores[i] - scores[j])
        for i in rows
        if labels[i] == 1
        for j in rows
        if labels[j] == 0
    ]
    return np.mean(found) if found else None


def rows_of(batch, group=None, modality=None):
    return [
        i
        for i in range(len(batch.labels))
        if (group is None or batch.groups[i] == group)
        and (modality is None or batch.present[i, modality])
    ]


def balance(auc, previous, observed):
    """Among the modalities with an AUC in the batch; 1 for those that have none."""
    compared = [m for m, has in enumerate(observed) if has]
    found = np.ones(len(observed))
    if len(compared) > 1:
        change = {m: abs(auc[m] - previous[m]) for m in compared}
        total = sum(change.values()) + 1e-8
        for m in compared:
            found[m] = (total - change[m]) / total
    return found


class MultiFair:
    """The method, batch after batch."""

    def __init__(self, settings, num_modalities, num_groups):
        self.settings = settings
        self.num_modalities, self.num_groups = num_modalities, num_groups
        self.modality_auc = np.full(num_modalities, 0.5)
        self.group_auc = np.full((num_modalities, num_groups), 0.5)
        self.group_seen = np.zeros((num_modalities, num_groups), bool)

    def follow(self, batch, fused_gradient=None, unimodal_gradients=None):
        """Takes a batch, and returns all that it leads to."""
        settings = self.settings
        previous = self.modality_auc.copy()
        observed = np.zeros(self.num_modalities, bool)
        for m in range(self.num_modalities):
            scores, rows = batch.unimodal_scores[:, m], rows_of(batch, modality=m)
            auc = mean_over_pairs(step_function, scores, batch.labels, rows)
            if auc is not None:
                self.modality_auc[m], observed[m] = auc, True
        balances = balance(self.modality_auc, previous, observed)
        self._average(batch)
        factors, gap = self._factors(batch), self._gap()
        fused_gap = self._fused_gap(batch)
        gate = fused_gap is not None and fused_gap > settings.tau
        found = {
            "modality_auc": self.modality_auc.copy(),
            "modality_balance": balances,
            "group_auc": self.group_auc.copy(),
            "group_seen": self.group_seen.copy(),
            "fairness_factors": factors,
            "fairness_gap": gap,
            "fused_gap": np.nan if fused_gap is None else fused_gap,
            "fairness_gate": gate,
            "scale": balances * settings.rho * (factors if gate else 1.0),
        }
        if fused_gradient is not None:
            turned = direction_loss(fused_gradient, unimodal_gradients, balances)
            total = settings.direction * turned
            found |= {
                "direction": turned,
                "total": total + (settings.fairness * gap if gate else 0.0),
            }
        return found

    def _average(self, batch):
        paper = self.settings.mode == "paper"
        worth = paper_surrogate if paper else released_surrogate
        for m in range(self.num_modalities):
            for g in range(self.num_groups):
                auc = mean_over_pairs(
                    worth,
                    batch.unimodal_scores[:, m],
                    batch.labels,
                    rows_of(batch, g, m),
                )
                if auc is not None:
                    self.group_seen[m, g] = True
                elif paper:
                    continue
                else:
                    auc = 0.5
                decay = self.settings.decay
                self.group_auc[m, g] = decay * self.group_auc[m, g] + (1 - decay) * auc

    def _counted(self, m):
        """The groups whose averages count."""
        if self.settings.mode == "released":
            return list(range(self.num_groups))
        return [g for g in range(self.num_groups) if self.group_seen[m, g]]

    def _deviations(self):
        """Average of a group less the mean of its modality's groups, by (m, g)."""
        return {
            (m, g): self.group_auc[m, g]
            - np.mean([self.group_auc[m, h] for h in self._counted(m)])
            for m in range(self.num_modalities)
            for g in self._counted(m)
        }

    def _gap(self):
        return np.mean([abs(d) for d in self._deviations().values()] or [0.0])

    def _sizes(self, batch):
        labelled = np.isin(batch.labels, (0, 1))
        return np.array(
            [np.sum(labelled & (batch.groups == g)) for g in range(self.num_groups)]
        )

    def _factors(self, batch):
        settings, deviations = self.settings, self._deviations()
        sizes = self._sizes(batch)
        factors = np.ones(self.num_modalities)
        for m in range(self.num_modalities):
            if sizes.sum():
                scale = settings.mu / max(1e-4, settings.tau)
                each = [
                    1 - scale * deviations.get((m, g), 0.0)
                    for g in range(self.num_groups)
                ]
                factors[m] = np.sum(sizes / sizes.sum() * each)
        return np.maximum(factors, 0) if settings.mode == "paper" else factors

    def _fused_gap(self, batch):
        aucs = [
            mean_over_pairs(
                step_function, batch.scores, batch.labels, rows_of(batch, group)
            )
            for group in range(self.num_groups)
        ]
        if self.settings.mode == "released":
            enough = self._sizes(batch).min() >= 2
            aucs = [0.5 if auc is None else auc for auc in aucs]
        else:
            aucs = [auc for auc in aucs if auc is not None]
            enough = len(aucs) >= 2
        return max(aucs) - min(aucs) if enough else None


def direction_loss(fused, unimodal, balances):
    total = sum(abs(b) for b in balances)
    for b, gradient in zip(balances, unimodal, strict=True):
        lengths = np.linalg.norm(fused) * np.linalg.norm(gradient)
        total -= b * np.sum(fused * gradient) / lengths
    return total / len(balances)


def last_layer_gradient(inputs, weights, labels):
    """Of the mean cross-entropy of a sigmoid, by examples."""
    total = np.zeros_like(weights)
    for row, label in zip(inputs, labels, strict=True):
        total += (1 / (1 + np.exp(-row @ weights)) - label) * row
    return total / len(labels)


def draw(seed, rows, num_modalities, num_groups):
    """A batch with ties, absent modalities, padding, and groups that lack a class.

    Of each three seeds one has a group of one class and one misses a modality, of five
    one has one class only, of seven one group only.
    """
    rng = np.random.default_rng(seed)
    shares = 1.0 / (1 + np.arange(num_groups))
    groups = rng.choice(num_groups, rows, p=shares / shares.sum())
    labels = rng.integers(0, 2, rows)
    if seed % 3 == 1:
        labels[groups == seed % num_groups] = seed % 2
    if seed % 5 == 4:
        labels[:] = 1
    if seed % 7 == 6:
        groups[:] = 1
    padding = rng.random(rows) < 0.1
    quality = rng.uniform(0.0, 0.4, num_modalities)
    scores = quality * labels[:, None] + rng.random((rows, num_modalities)) * 0.6
    scores = np.where(rng.random(scores.shape) < 0.5, np.round(scores, 1), scores)
    fused = np.clip(scores.mean(axis=1) + 0.1 * rng.normal(size=rows), 0.01, 0.99)
    present = rng.random((rows, num_modalities)) < 0.8
    if seed % 3 == 2:
        present[:, seed % num_modalities] = False
    return Batch(
        unimodal_scores=scores.astype(np.float32),
        scores=fused.astype(np.float32),
        labels=np.where(padding, -1, labels).astype(np.int32),
        groups=np.where(padding, -1, groups).astype(np.int32),
        present=present,
    )
