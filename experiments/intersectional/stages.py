"""Configurations of stages before, in and after training, and their decisions.

A configuration's name says its stages: ``dir`` before, ``egr`` (or a network that is
trained by reconciled gradients) in, ``eo`` after. Decisions are probabilities in
[0, 1]. Exponentiated gradient and equalized odds decide at random, and metrics are
exact expectations over the decisions; thresholds give probabilities of 0 and 1.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fairjax import mitigation
from fairjax.mitigation.costs import Objective
from fairjax.mitigation.thresholds import tune_thresholds

In = Literal["base", "egr", "mlp", "fairgrad", "positive_sum"]
IN_TITLES = {
    "egr": "EGR",
    "mlp": "MLP",
    "fairgrad": "FairGrad",
    "positive_sum": "Positive-sum",
}
# Fitted by scikit-learn's interface in each lane; `lanes.train` trains the others.
FITTED: tuple[In, ...] = ("base", "egr")
NETWORKS: tuple[In, ...] = ("mlp", "fairgrad", "positive_sum")


@dataclass(frozen=True)
class Configuration:
    """One combination of the pipeline's stages.

    Attributes:
      repaired: Whether the disparate impact remover comes before training.
      within: The model that is trained.
      equalized: Whether equalized odds comes after training.
    """

    repaired: bool
    within: In
    equalized: bool

    @property
    def name(self) -> str:
        """The name for the command line.

        Example:
          >>> Configuration(True, "egr", True).name
          'dir_egr_eo'
          >>> Configuration(False, "base", True).name
          'eo'
        """
        within = [] if self.within == "base" else [self.within]
        stages = ["dir"] * self.repaired + within + ["eo"] * self.equalized
        return "_".join(stages) or "base"

    @property
    def title(self) -> str:
        """The name for readers."""
        within = [IN_TITLES[self.within]] if self.within in IN_TITLES else []
        stages = ["DIR"] * self.repaired + within + ["EO"] * self.equalized
        return " + ".join(stages) or "Base"

    @property
    def model(self) -> str:
        """The name of the configuration with the same model and no equalized odds."""
        return dataclasses.replace(self, equalized=False).name

    @property
    def drawn(self) -> bool:
        """Whether decisions are random."""
        return self.equalized or self.within == "egr"


def _ordered(within: Sequence[In]) -> dict[str, Configuration]:
    """Orders configurations with single stages first, as in the paper's table."""
    every = [
        Configuration(repaired, what, equalized)
        for what in within
        for repaired in (False, True)
        for equalized in (False, True)
    ]
    stages = sorted(every, key=lambda c: c.repaired + c.equalized + (c.within == "egr"))
    return {c.name: c for c in stages}


PAPER = _ordered(FITTED)
"""The eight published configurations, by name."""
CONFIGURATIONS = PAPER | {
    name: c for within in NETWORKS for name, c in _ordered([within]).items()
}
"""All configurations; reconciled gradients and their base model come last."""


def choose(names: Sequence[str]) -> list[Configuration]:
    """Returns the configurations of the given names, in order; all if none is given.

    Raises:
      ValueError: If a name is unknown.
    """
    unknown = [name for name in names if name not in CONFIGURATIONS]
    if unknown:
        raise ValueError(
            f"--configurations must name some of {', '.join(CONFIGURATIONS)}; "
            f"got {', '.join(unknown)}."
        )
    wanted = {"base", *names} if names else {*CONFIGURATIONS}
    return [c for name, c in CONFIGURATIONS.items() if name in wanted]


def repaired(
    inputs: np.ndarray, train: np.ndarray, codes: np.ndarray, level: float
) -> np.ndarray:
    """Repairs inputs ``[n, d]`` by the distributions of the training rows' groups."""
    fitted = remover(inputs[train], codes[train], level)
    return np.asarray(fitted.transform(inputs, sensitive_features=codes), np.float32)


def remover(
    inputs: np.ndarray, codes: np.ndarray, level: float
) -> mitigation.DisparateImpactRemover:
    """Fits the disparate impact remover of all configurations to these rows."""
    made = mitigation.DisparateImpactRemover(level, unseen="together")
    return made.fit(inputs, sensitive_features=codes)


def decide(
    configuration: Configuration,
    scores: np.ndarray,
    label: np.ndarray,
    codes: np.ndarray,
    held: np.ndarray,
    *,
    num_groups: int,
    by_group: bool,
    objective: Objective,
) -> np.ndarray:
    """Computes probabilities of selection, ``[n]``.

    Args:
      configuration: The configuration of the scores.
      scores: ``[n]``; NaN for rows that were trained on.
      label: ``[n]``; only labels of the held-out rows are used.
      codes: ``[n]``, subgroups.
      held: Held-out rows, from which rules and thresholds are made; decisions on these
        rows must not be evaluated.
      num_groups: Number of subgroups.
      by_group: Whether each subgroup has its own threshold.
      objective: The objective of equalized odds.

    Returns:
      With equalized odds, the probabilities under the rules of least error with equal
      true and false positive rates on the held-out rows. With exponentiated gradient,
      the scores, which are the probabilities of its randomized classifier. Otherwise 0
      or 1, by the thresholds with the largest F1 on the held-out rows.
    """
    rows = (label[held], scores[held], codes[held])
    if configuration.equalized:
        with warnings.catch_warnings():
            # A small subgroup may lack an outcome among the held-out rows, and then
            # gets the other subgroups' mean rate.
            warnings.filterwarnings("ignore", message="groups without")
            fitted = mitigation.equal_rate_rules(
                *rows, num_groups=num_groups, objective=objective
            )
        known = np.where(np.isnan(scores), -np.inf, scores)
        return mitigation.selection_probability(known, codes, fitted.rules)
    if configuration.within == "egr":
        return scores
    found = tune_thresholds(*rows, num_groups=num_groups, by_group=by_group)
    return (scores >= np.asarray(found.values)[codes]).astype(np.float64)
