"""Fits of many splits side by side, each kept as soon as it is done.

A run that is killed loses the fits that were under way; the next one reads the others
back. Fits do not depend on how many processes there are.
"""

import multiprocessing
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from experiments.core.files import write_whole
from experiments.intersectional.learners import (
    Fitted,
    LearnerName,
    make_learner,
    plain,
    reduced,
)
from fairjax.mitigation.constraints import Parity
from fairjax.mitigation.costs import Objective

Maker = Callable[[], "Fit"]


@dataclass(frozen=True, eq=False)
class Fit:
    """One model of one split, and whom it is to predict.

    Attributes:
      reduction: Whether it is exponentiated gradient around the learner.
      learner: Its name.
      constraint: Of the reduction.
      objective: Of the reduction.
      iterations: Of the reduction, at most.
      seed: Of the learner.
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
        """Without the rows that it does not need."""
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
        """Fit, and predict ``others`` in order."""
        others = self.inputs[self.others]
        inputs, label = self.inputs[self.train], self.label[self.train]
        # On one thread: the processes share the cores already.
        with threadpool_limits(limits=1):
            learner = make_learner(self.learner, self.seed)
            if not self.reduction:
                return plain(learner, inputs, label, others)
            return reduced(
                learner,
                inputs,
                label,
                self.codes[self.train],
                others,
                constraint=self.constraint,
                objective=self.objective,
                iterations=self.iterations,
            )


def run_all(
    fits: Mapping[str, Maker],
    work: Path,
    *,
    processes: int,
    advance: Callable[[], None],
) -> dict[str, Fitted]:
    """Name -> predictions, of every fit.

    Args:
      fits: Name of a file -> what makes the fit, called when its turn comes: the inputs
        of all together may be more than the memory holds.
      work: Folder of finished fits.
      processes: How many at a time; without processes of their own for 1.
      advance: Called after each.

    Raises:
      ValueError: A damaged file.
    """
    found = {}
    left = []
    for name, make in fits.items():
        path = _path(work, name)
        if path.exists():
            found[name] = _read(path)
            advance()
        else:
            left.append((name, make))
    runs = _here(left) if processes == 1 or len(left) < 2 else _beside(left, processes)
    for name, fitted in runs:
        write_whole(_path(work, name), lambda p, f=fitted: np.savez(p, **f._asdict()))
        found[name] = fitted
        advance()
    return found


def _here(left: list[tuple[str, Maker]]) -> Iterator[tuple[str, Fitted]]:
    for name, make in left:
        yield name, make().run()


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


def _path(work: Path, name: str) -> Path:
    return work / f"{name}.npz"


def _read(path: Path) -> Fitted:
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return Fitted(stored["scores"], float(stored["missed"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read: it is damaged. Delete it to fit that again."
        ) from error
