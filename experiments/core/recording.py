"""What a run keeps of trained programs: metrics of variants, and what was chosen."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.nn import sigmoid

from experiments.core.evaluation import Evaluator, Predictions
from experiments.core.lanes import Trained
from experiments.core.programs import Program
from experiments.core.results import AnyResults
from experiments.core.runner import EVALUATION, Bar
from experiments.core.selection import select


@contextlib.contextmanager
def beside() -> Iterator[Callable[..., Future]]:
    """Yields ``submit(call, *args, **kwargs)``, which runs calls on another thread.

    They run one after another, and all are done at the end, where the first error is
    raised. Where the block itself fails, calls that did not begin are dropped.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future] = []

        def submit(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
            waiting.append(pool.submit(call, *args, **kwargs))
            return waiting[-1]

        try:
            yield submit
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True, eq=False)
class Recorder:
    """Fills a run's `Results`.

    Attributes:
      results: Of the run.
      evaluator: Of its predictions.
      titles: Method -> its name for readers; others are not recorded.
      bar: Advances with each evaluation.
    """

    results: AnyResults
    evaluator: Evaluator
    titles: Mapping[str, str]
    bar: Bar

    def predictions(self, name: str, setting: str, logits: np.ndarray) -> None:
        """A method's logits ``[L, n]``, decided at the validation folds' prevalence."""
        if name not in self.titles:
            return
        splits, results = self.results.splits, self.results
        thresholds = splits.thresholds(logits, results.weights)
        found = Predictions(
            name,
            setting,
            np.asarray(sigmoid(splits.pool(logits, "test"))),
            splits.pool(logits >= thresholds[..., None], "test"),
        )
        results.predictions[found.title] = found
        results.evaluations[found.title] = self.evaluator(found)
        results.titles[found.title] = self.titles[name]
        self.bar.advance(EVALUATION)

    def units(self, program: Program, tolerances: Mapping[str, float]) -> int:
        """How far the bar advances with a program's evaluations."""
        names = [v.name for v in program.variants if v.name in self.titles]
        return EVALUATION * (len(names) + len({*names} & {*tolerances}))

    def program(
        self,
        program: Program,
        trained: Trained,
        *,
        baseline: np.ndarray,
        tolerances: Mapping[str, float],
    ) -> None:
        """A program's variants, and of each tuned method what validation chooses.

        Args:
          program: What was trained.
          trained: What came of it.
          baseline: ``[L, n]``, the logits that a setting may lose AUROC against.
          tolerances: Tuned method -> how much that may be (`selection.select`).
        """
        splits, results = self.results.splits, self.results
        for variant, logits in zip(program.variants, trained.logits, strict=True):
            self.predictions(variant.name, variant.setting, logits)
        for name in dict.fromkeys(variant.name for variant in program.variants):
            rows = [i for i, v in enumerate(program.variants) if v.name == name]
            results.histories[name] = {
                k: values[rows] for k, values in trained.history[-1].items()
            }
            if name not in tolerances:
                continue
            lane = select(
                trained.logits[rows],
                baseline,
                splits,
                tolerance=tolerances[name],
                weights=results.weights,
            )
            settings = [program.variants[i].setting for i in rows]
            count = np.bincount(lane, minlength=len(rows)).tolist()
            results.selected[name] = dict(zip(settings, count, strict=True))
            chosen = trained.logits[rows][lane, np.arange(splits.num_lanes)]
            self.predictions(name, "selected", chosen)
