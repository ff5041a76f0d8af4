"""Fits of many splits in several processes, each stored as soon as it is done.

A run that is killed loses only unfinished fits; the next run reads the finished fits.
Fits do not depend on the number of processes.
"""

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from experiments.core.files import read_arrays, write_whole
from experiments.intersectional.learners import LearnerName, make_learner
from fairjax.mitigation import ExponentiatedGradient
from fairjax.mitigation.constraints import Parity
from fairjax.mitigation.costs import Objective

Maker = Callable[[], "Fit"]


class Fitted(NamedTuple):
    """A model's predictions, and how far the model misses its bound.

    Attributes:
      scores: ``[k]``, in [0, 1].
      missed: How far the worst subgroup's rate exceeds the bound on the training rows;
        at most 0 if no rate does, NaN for a model without a bound.
    """

    scores: np.ndarray
    missed: float


@dataclass(frozen=True, eq=False)
class Fit:
    """The fit of one model in one split, and the rows to predict.

    Attributes:
      reduction: Whether the model is exponentiated gradient around the learner.
      learner: Name of the learner.
      constraint: Constraint of the reduction.
      objective: Objective of the reduction.
      iterations: Maximum iterations of the reduction.
      seed: Seed of the learner.
      inputs: ``[n, d]``.
      label: ``[n]``.
      codes: ``[n]``, subgroups.
      train: Row numbers to fit on.
      others: Row numbers to predict.
    """

    reduction: bool
    learner: LearnerName
    constraint: Parity
    objective: Objective
    iterations: int
    seed: int
    inputs: np.ndarray
    label: np.ndarray
    codes: np.ndarray
    train: np.ndarray
    others: np.ndarray

    def packed(self) -> "Fit":
        """Returns the fit without rows that it does not need."""
        rows = np.concatenate([self.train, self.others])
        first = len(self.train)
        return replace(
            self,
            inputs=self.inputs[rows],
            label=self.label[rows],
            codes=self.codes[rows],
            train=np.arange(first),
            others=np.arange(first, len(rows)),
        )

    def run(self) -> Fitted:
        """Fits, and predicts ``others`` in order; a reduction gives probabilities."""
        others = self.inputs[self.others]
        inputs, label = self.inputs[self.train], self.label[self.train]
        # One thread, since the processes share the cores already.
        with threadpool_limits(limits=1), warnings.catch_warnings():
            # The report says how often and how far bounds are missed.
            warnings.filterwarnings("ignore", message="no mixture of the learner's")
            learner = make_learner(self.learner, self.seed)
            if not self.reduction:
                probability = learner.fit(inputs, label).predict_proba(others)[:, 1]
                return Fitted(np.asarray(probability, np.float64), np.nan)
            model = ExponentiatedGradient(
                learner,
                constraint=self.constraint,
                objective=self.objective,
                max_iterations=self.iterations,
            ).fit(inputs, label, sensitive_features=self.codes[self.train])
            return Fitted(model.predict_proba(others)[:, 1], model.violation_)


def run_all(
    fits: Mapping[str, Maker],
    work: Path,
    *,
    processes: int,
    advance: Callable[[], None],
) -> dict[str, Fitted]:
    """Runs all fits, and returns name -> predictions.

    Args:
      fits: Name of a file -> function that makes the fit. The function is called just
        before the fit runs, since all inputs together may exceed the memory.
      work: Folder of finished fits.
      processes: Number of fits at a time; 1 runs the fits in this process.
      advance: Called after each fit.

    Raises:
      ValueError: If a file is damaged.
    """
    paths = {name: work / f"{name}.npz" for name in fits}
    found = {}
    for name, path in paths.items():
        if path.exists():
            stored = read_arrays(path, "fit", "scores", "missed")
            found[name] = Fitted(stored["scores"], float(stored["missed"]))
            advance()
    left = [(name, make) for name, make in fits.items() if name not in found]
    runs = ((name, make().run()) for name, make in left)
    if processes > 1 and len(left) > 1:
        runs = _beside(left, processes)
    for name, fitted in runs:
        write_whole(paths[name], lambda p, f=fitted: np.savez(p, **f._asdict()))
        found[name] = fitted
        advance()
    return found


def _beside(
    left: list[tuple[str, Maker]], processes: int
) -> Iterator[tuple[str, Fitted]]:
    # A process that is forked after JAX has started its threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = list(reversed(left))
        running: dict[Future, str] = {}
        try:
            while waiting or running:
                while waiting and len(running) <= processes:
                    name, make = waiting.pop()
                    running[pool.submit(_run, make().packed())] = name
                done = next(as_completed(running))
                yield running.pop(done), done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(fit: Fit) -> Fitted:
    return fit.run()
