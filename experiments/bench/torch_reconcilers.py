"""PyTorch's side of two benchmarks: PCGrad steps, and TorchJD's K x K part.

PCGrad steps, TorchJD's and a loop over sub-batches, use the same weights, batch and
groups as JAX, and end in AdamW. The K x K part of TorchJD's methods computes weights
from the Gram matrix alone. TorchJD's Nash-MTL and ConFIG need the rows, so they get the
rows, which are so few that computing their Gram matrix takes almost no time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import softplus
from torchjd import aggregation
from torchjd.autogram import Engine
from torchjd.autojac import backward, jac_to_grad

from experiments.bench.timing import timed
from experiments.core.lanes import num_cores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[], Any]


def steps(
    params: Sequence[tuple[np.ndarray, np.ndarray]],
    batch: dict[str, np.ndarray],
    groups: int,
    learning_rate: float,
) -> tuple[dict[str, Step], np.ndarray]:
    """Makes steps by name, and the initial group losses, to compare with JAX's.

    Args:
      params: ``(weights [in, out], bias [out])`` of each layer.
      batch: ``x [B, D]``, ``y [B]`` and ``cells [B]``.
      groups: Number of groups.
      learning_rate: AdamW's learning rate.
    """
    x, y = (torch.tensor(batch[name], device=DEVICE) for name in ("x", "y"))
    cells = torch.tensor(batch["cells"], device=DEVICE).long()
    sizes = torch.bincount(cells, minlength=groups).clamp(min=1)

    def fresh() -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
        leaves = [
            torch.tensor(leaf, device=DEVICE, requires_grad=True)
            for layer in params
            for leaf in layer
        ]
        adamw = torch.optim.AdamW(leaves, lr=learning_rate, weight_decay=1e-4)
        return leaves, adamw

    def example_losses(
        leaves: list[torch.Tensor], x: torch.Tensor = x, y: torch.Tensor = y
    ) -> torch.Tensor:
        hidden = x
        for i in range(0, len(leaves) - 2, 2):
            hidden = torch.relu(hidden @ leaves[i] + leaves[i + 1])
        logits = (hidden @ leaves[-2] + leaves[-1])[:, 0]
        return softplus(logits) - y * logits

    def group_means(values: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(groups, device=DEVICE)
        return sums.index_add(0, cells, values) / sizes

    def group_losses(leaves: list[torch.Tensor]) -> torch.Tensor:
        return group_means(example_losses(leaves))

    def make(fill: Callable[[list[torch.Tensor]], Any]) -> Step:
        """Makes a step that updates separate parameters by their filled ``.grad``."""
        leaves, adamw = fresh()

        def step() -> None:
            adamw.zero_grad()
            fill(leaves)
            adamw.step()
            finish()

        return step

    def plain(leaves: list[torch.Tensor]) -> None:
        example_losses(leaves).mean().backward()

    def loop(leaves: list[torch.Tensor]) -> None:
        for group in range(groups):
            chosen = torch.nonzero(cells == group)[:, 0]
            loss = example_losses(leaves, x[chosen], y[chosen]).mean()
            backward(loss, inputs=leaves)
        jac_to_grad(leaves, aggregation.PCGrad())

    def torchjd(chunk: int | None) -> Callable[[list[torch.Tensor]], None]:
        aggregator = aggregation.PCGrad()

        def fill(leaves: list[torch.Tensor]) -> None:
            backward(group_losses(leaves), inputs=leaves, parallel_chunk_size=chunk)
            jac_to_grad(leaves, aggregator)

        return fill

    def autogram() -> Step:
        """Makes a step from the Gram matrix of a module's gradients."""
        layers = []
        for weights, bias in params:
            layer = torch.nn.Linear(*weights.shape, device=DEVICE)
            layer.load_state_dict(
                {"weight": torch.tensor(weights.T), "bias": torch.tensor(bias)}
            )
            layers += [layer, torch.nn.ReLU()]
        module = torch.nn.Sequential(*layers[:-1])
        adamw = torch.optim.AdamW(
            module.parameters(), lr=learning_rate, weight_decay=1e-4
        )
        engine = Engine(module, batch_dim=None)
        weighting = aggregation.PCGradWeighting()

        def step() -> None:
            adamw.zero_grad()
            logits = module(x)[:, 0]
            losses = group_means(softplus(logits) - y * logits)
            losses.backward(weighting(engine.compute_gramian(losses)))
            adamw.step()
            finish()

        return step

    set_fastest_threads(make(plain))
    made = {
        "plain": make(plain),
        "sub-batches": make(loop),
        "autojac": make(torchjd(None)),
        "autojac, rows one by one": make(torchjd(1)),
        "autogram": autogram(),
    }
    return made, group_losses(fresh()[0]).detach().cpu().numpy()


def finish() -> None:
    """Waits until the device has finished all work."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def set_fastest_threads(step: Step) -> None:
    """Uses one thread per core, or one thread if small steps are then faster."""
    best = {}
    for threads in (num_cores(), 1):
        torch.set_num_threads(threads)
        step()
        best[threads] = min(timed(step) for _ in range(5))
    torch.set_num_threads(min(best, key=best.__getitem__))


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
