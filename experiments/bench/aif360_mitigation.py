"""AIF360's mitigation, as its users call it, on the same arrays as ours."""

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
    """Checks whether AIF360 and the package for its impact remover are installed."""
    return timing.installed("aif360", "BlackBoxAuditing")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings about AIF360's missing extras and pandas' deprecations.

    AIF360 logs the missing extras when it is imported.
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
    """Makes a call of the disparate impact remover, which returns repaired features.

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
    """Makes a call of the fit of equalized odds to two groups.

    The call returns the mean of the false positive and false negative rate. AIF360's
    objective is four times this mean, less two: the sum over both groups of FPR − TPR,
    equal in both groups.

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
