"""AIF360's mitigation, as its users call it, on the arrays that ours are given."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from experiments.bench import timing


def installed() -> bool:
    """Say whether AIF360 is, and the package that its impact remover calls."""
    return timing.installed("aif360", "BlackBoxAuditing")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of the extras that AIF360 misses and of what pandas is to drop.

    It logs the former as it is imported.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def repair(values: np.ndarray, groups: np.ndarray) -> Callable[[], np.ndarray]:
    """A call of the disparate impact remover: it gives the repaired features.

    Args:
      values: ``[n, d]``.
      groups: ``[n]``.
    """
    with quiet():
        from aif360.algorithms.preprocessing import DisparateImpactRemover

        frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
        data = _data(frame.assign(group=groups, label=np.arange(len(values)) % 2))

    def call() -> np.ndarray:
        with quiet():
            remover = DisparateImpactRemover(sensitive_attribute="group")
            return remover.fit_transform(data).features[:, :-1]

    return call


def equal_odds(
    labels: np.ndarray, decisions: np.ndarray, groups: np.ndarray
) -> Callable[[], float]:
    """A call of the fit of equalized odds to two groups.

    It gives the mean of the false positive and false negative rate, which its objective
    is four times of, less two: the sum over both groups of FPR − TPR, equal in both.

    Args:
      labels: ``[n]``, 0 or 1.
      decisions: ``[n]``, 0 or 1.
      groups: ``[n]``, 0 or 1.
    """
    with quiet():
        from aif360.algorithms.postprocessing import EqOddsPostprocessing

        data = _data(pd.DataFrame({"group": groups, "label": labels}))
        predicted = data.copy(deepcopy=True)
        predicted.labels = np.asarray(decisions, float)[:, None]

    def call() -> float:
        with quiet():
            fitted: Any = EqOddsPostprocessing([{"group": 1}], [{"group": 0}], seed=0)
            fitted.fit(data, predicted)
        return fitted.model_params.fun / 4 + 0.5

    return call


def _data(frame: pd.DataFrame) -> Any:
    from aif360.datasets import BinaryLabelDataset

    return BinaryLabelDataset(
        df=frame.astype(float),
        label_names=["label"],
        protected_attribute_names=["group"],
    )
