"""The configurations: what each does before, in and after training, and its decisions.

A configuration's name says its stages: ``dir`` before, ``egr`` (or a network that is
trained by reconciled gradients) in, ``eo`` after. Decisions are chances in [0, 1]:
those of exponentiated gradient and of equalized odds are drawn, so that metrics are
exact expectations of them; thresholds give chances of 0 and 1.
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
_IN_TITLES = {
    "egr": "EGR",
    "mlp": "MLP",
    "fairgrad": "FairGrad",
    "positive_sum": "Positive-sum",
}
# Fitted by scikit-learn's interface, lane by lane; the others by `lanes.train`.
FITTED: tuple[In, ...] = ("base", "egr")
NETWORKS: tuple[In, ...] = ("mlp", "fairgrad", "positive_sum")


@dataclass(frozen=True)
class Configuration:
    """One way through the pipeline.

    Attributes:
      repaired: Whether the disparate impact remover goes before.
      within: What is trained.
      equalized: Whether equalized odds comes after.
    """

    repaired: bool
    within: In
    equalized: bool

    @property
    def name(self) -> str:
        """For the command line.

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
        """For readers."""
        within = [_IN_TITLES[self.within]] if self.within in _IN_TITLES else []
        stages = ["DIR"] * self.repaired + within + ["EO"] * self.equalized
        return " + ".join(stages) or "Base"

    @property
    def model(self) -> str:
        """What it shares with the configuration that has no equalized odds."""
        return dataclasses.replace(self, equalized=False).name

    @property
    def drawn(self) -> bool:
        """Whether its decisions are drawn."""
        return self.equalized or self.within == "egr"


def _ordered(within: Sequence[In]) -> dict[str, Configuration]:
    """Single stages before several, as in the paper's table."""
    every = [
        Configuration(repaired, what, equalized)
        for what in within
        for repaired in (False, True)
        for equalized in (False, True)
    ]
    stages = sorted(every, key=lambda c: c.repaired + c.equalized + (c.within == "egr"))
    return {c.name: c for c in stages}


PAPER = _ordered(FITTED)
"""The published eight, by name."""
CONFIGURATIONS = PAPER | {
    name: c for within in NETWORKS for name, c in _ordered([within]).items()
}
"""All of them, those with reconciled gradients and their own base model after."""


def choose(names: Sequence[str]) -> list[Configuration]:
    """The configurations of these names, in order; all where there are none.

    Raises:
      ValueError: An unknown name.
    """
    unknown = [name for name in names if name not in CONFIGURATIONS]
    if unknown:
        raise ValueError(
            f"--configurations has no {', '.join(unknown)}; it knows: "
            f"{', '.join(CONFIGURATIONS)}."
        )
    wanted = {"base", *names} if names else {*CONFIGURATIONS}
    return [c for name, c in CONFIGURATIONS.items() if name in wanted]


def repaired(
    inputs: np.ndarray, train: np.ndarray, codes: np.ndarray, level: float
) -> np.ndarray:
    """Inputs ``[n, d]`` repaired by the distributions of the training rows' groups."""
    fitted = remover(inputs[train], codes[train], level)
    return np.asarray(fitted.transform(inputs, sensitive_features=codes), np.float32)


def remover(
    inputs: np.ndarray, codes: np.ndarray, level: float
) -> mitigation.DisparateImpactRemover:
    """The disparate impact remover of all configurations, fitted to these rows."""
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
    """Chances of selection, ``[n]``.

    Args:
      configuration: Whose scores they are.
      scores: ``[n]``; NaN for rows that were trained on.
      label: ``[n]``; only that of the rows held out is looked at.
      codes: ``[n]``, subgroups.
      held: Rows that rules and thresholds are made of; decisions on them are not to be
        evaluated.
      num_groups: Of subgroups.
      by_group: Whether each has a threshold of its own.
      objective: Of equalized odds.

    Returns:
      Those of equalized odds: the rules of least error under which true and
      false positive rates are equal on the rows held out. Those of exponentiated
      gradient: its scores, which are the chances of its random classifier. Else 0 or
      1, by the thresholds with the largest F1 on the rows held out.
    """
    rows = (label[held], scores[held], codes[held])
    if configuration.equalized:
        with warnings.catch_warnings():
            # A small subgroup may have none of an outcome among the rows held out; it
            # is given the others' mean rate.
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
