"""TorchJD's methods on the benchmark's rows: weights from the Gram matrix alone.

TorchJD's Nash-MTL and ConFIG need the rows, so they get the rows, which are so few that
computing their Gram matrix takes almost no time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchjd import aggregation

from experiments.bench.torch_pcgrad import DEVICE, finish, set_fastest_threads


class Theirs:
    """One method of TorchJD, on one set of rows after another.

    Args:
      name: The class in ``torchjd.aggregation``.
      options: Arguments of the class.
      draws: Rows ``[K, P]``, float32.
    """

    def __init__(
        self, name: str, options: dict[str, Any], draws: Sequence[np.ndarray]
    ) -> None:
        aggregator = getattr(aggregation, name)(**options)
        rows = [torch.tensor(one, device=DEVICE) for one in draws]
        self._draws, self._inputs, self._method = draws, rows, aggregator
        self._weighs = isinstance(aggregator, aggregation.WeightedAggregator)
        if isinstance(aggregator, aggregation.GramianWeightedAggregator):
            self._method = aggregator.gramian_weighting
            self._inputs = [one @ one.T for one in rows]
        elif isinstance(aggregator, aggregation.WeightedAggregator):
            self._method = aggregator.weighting

    def __call__(self, draw: int) -> torch.Tensor:
        """Computes the weights ``[K]``, or the update ``[P]`` without weights."""
        found = self._method(self._inputs[draw])
        finish()
        return found

    def result(self, draw: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Computes the update, in float64, and the weights if there are any.

        Args:
          draw: The number of the rows.
          seed: Seed of TorchJD's random draws.
        """
        torch.manual_seed(seed)
        found = self(draw).detach().cpu().numpy().astype(np.float64)
        return (found @ self._draws[draw], found) if self._weighs else (found, None)

    def set_fastest_threads(self) -> None:
        """Uses one thread per core or one thread, which is often faster if small."""
        set_fastest_threads(lambda: self(0))


def seeded_orders(name: str, size: int, seed: int) -> np.ndarray:
    """Returns the orders ``[K, K]`` in which a method meets other rows, by a seed.

    Args:
      name: ``"PCGrad"``, which draws an order of all rows, or ``"GradVac"``, which
        draws an order of the other rows.
      size: Number of rows, K.
      seed: Seed, as for :meth:`Theirs.result`.
    """
    torch.manual_seed(seed)
    if name == "PCGrad":
        return np.stack([torch.randperm(size).numpy() for _ in range(size)])
    if name != "GradVac":
        raise ValueError(f"name must be 'PCGrad' or 'GradVac'; got {name!r}.")
    others = [np.delete(np.arange(size), row) for row in range(size)]
    drawn = [one[torch.randperm(size - 1).numpy()] for one in others]
    return np.stack([np.append(one, row) for row, one in enumerate(drawn)])
