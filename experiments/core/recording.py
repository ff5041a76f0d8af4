"""Records of trained programs: metrics of variants, and the chosen settings."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jax.nn import sigmoid

from experiments.core import lanes
from experiments.core.evaluation import Evaluator, Predictions
from experiments.core.lanes import Trained
from experiments.core.learners import Learner
from experiments.core.programs import Program
from experiments.core.results import AnyResults
from experiments.core.runner import EVALUATION, Bar
from experiments.core.selection import choose


@contextlib.contextmanager
def beside() -> Iterator[Callable[..., Future]]:
    """Yields ``submit(call, *args, **kwargs)``, which runs calls on another thread.

    The calls run one after another. The end of the block waits for all calls, and
    raises the first error. If the block itself fails, calls that did not begin are
    dropped.
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


def units(
    programs: Sequence[Program],
    steps: int,
    recorded: Collection[str],
    tuned: Collection[str],
) -> int:
    """Returns the bar's units while programs are trained and evaluated."""
    total = 0
    for program in programs:
        names = [v.name for v in program.variants if v.name in recorded]
        total += steps + EVALUATION * (len(names) + len({*names} & {*tuned}))
    return total


@dataclass(frozen=True, eq=False)
class Recorder:
    """Fills a run's `Results`.

    Attributes:
      results: Results of the run.
      evaluator: Evaluates the run's predictions.
      titles: Method -> its name for readers.
      bar: Shows what is trained, and advances with each evaluation.
      tolerances: Tuned method -> AUROC that a setting may lose (`selection.select`).
      recorded: Methods to record; all by default.
    """

    results: AnyResults
    evaluator: Evaluator
    titles: Mapping[str, str]
    bar: Bar
    tolerances: Mapping[str, float] = field(default_factory=dict)
    recorded: Collection[str] | None = None

    def train(
        self, program: Program, work: Path, learner: Learner
    ) -> tuple[str, Trained]:
        """Trains a program, and returns its methods' title and the trained program."""
        names = dict.fromkeys(variant.name for variant in program.variants)
        title = ", ".join(self.titles[name] for name in names)
        self.bar.doing(f"training {title}")
        trained = lanes.train(
            program,
            self.results.splits,
            self.results.budget,
            seed=self.results.options.seed,
            work=work,
            advance=self.bar.advance,
            learner=learner,
        )
        return title, trained

    def predictions(self, name: str, setting: str, logits: np.ndarray) -> None:
        """Records a method's logits ``[L, n]``, with validation folds' thresholds.

        At the threshold, a validation fold selects its prevalence.
        """
        if self.recorded is not None and name not in self.recorded:
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

    def program(
        self, program: Program, trained: Trained, *, baseline: np.ndarray
    ) -> None:
        """Records a program's variants, and the chosen setting of each tuned method.

        Args:
          program: The program.
          trained: The trained program.
          baseline: ``[L, n]``, logits of the baseline for the loss of AUROC.
        """
        results = self.results
        for variant, logits in zip(program.variants, trained.logits, strict=True):
            self.predictions(variant.name, variant.setting, logits)
        for name in dict.fromkeys(variant.name for variant in program.variants):
            rows = [i for i, v in enumerate(program.variants) if v.name == name]
            results.histories[name] = {
                k: values[rows] for k, values in trained.history[-1].items()
            }
            if name not in self.tolerances:
                continue
            chosen, results.selected[name] = choose(
                trained.logits[rows],
                baseline,
                results.splits,
                [program.variants[i].setting for i in rows],
                tolerance=self.tolerances[name],
                weights=results.weights,
            )
            self.predictions(name, "selected", chosen)
