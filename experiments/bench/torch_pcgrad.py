"""PCGrad steps in PyTorch on the benchmark's model: a plain loop, and TorchJD.

Both take the same weights, batch and groups as the JAX side, and end in AdamW.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import softplus
from torchjd.aggregation import PCGrad
from torchjd.autojac import backward, jac_to_grad

Step = Callable[[], Any]


def steps(
    params: Sequence[tuple[np.ndarray, np.ndarray]],
    batch: dict[str, np.ndarray],
    groups: int,
    learning_rate: float,
) -> tuple[dict[str, Step], np.ndarray]:
    """Steps by name, and the group losses at the start, to compare with JAX's.

    Args:
      params: ``(weights [in, out], bias [out])`` of each layer.
      batch: ``x [B, D]``, ``y [B]`` and ``cells [B]``.
      groups: Their number.
      learning_rate: AdamW's.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (torch.tensor(batch[name], device=device) for name in ("x", "y"))
    cells = torch.tensor(batch["cells"], device=device).long()
    sizes = torch.bincount(cells, minlength=groups).clamp(min=1)

    def fresh() -> tuple[list[torch.Tensor], torch.optim.Optimizer]:
        leaves = [
            torch.tensor(leaf, device=device, requires_grad=True)
            for layer in params
            for leaf in layer
        ]
        adamw = torch.optim.AdamW(leaves, lr=learning_rate, weight_decay=1e-4)
        return leaves, adamw

    def example_losses(leaves: list[torch.Tensor]) -> torch.Tensor:
        hidden = x
        for i in range(0, len(leaves) - 2, 2):
            hidden = torch.relu(hidden @ leaves[i] + leaves[i + 1])
        logits = (hidden @ leaves[-2] + leaves[-1])[:, 0]
        return softplus(logits) - y * logits

    def group_losses(leaves: list[torch.Tensor]) -> torch.Tensor:
        sums = torch.zeros(groups, device=device)
        return sums.index_add(0, cells, example_losses(leaves)) / sizes

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def plain() -> Step:
        leaves, adamw = fresh()

        def step() -> None:
            adamw.zero_grad()
            example_losses(leaves).mean().backward()
            adamw.step()
            finish()

        return step

    def loop() -> Step:
        leaves, adamw = fresh()

        def step() -> None:
            values = group_losses(leaves)
            rows = torch.stack(
                [
                    torch.cat([g.flatten() for g in one])
                    for one in (
                        torch.autograd.grad(value, leaves, retain_graph=True)
                        for value in values
                    )
                ]
            )
            squares = (rows * rows).sum(1).clamp(min=1e-30)
            total = torch.zeros_like(rows[0])
            for i in range(groups):
                row = rows[i].clone()
                for j in torch.randperm(groups).tolist():
                    product = torch.dot(row, rows[j])
                    if j != i and product < 0:
                        row -= product / squares[j] * rows[j]
                total += row
            start = 0
            for leaf in leaves:
                leaf.grad = total[start : start + leaf.numel()].view_as(leaf)
                start += leaf.numel()
            adamw.step()
            finish()

        return step

    def torchjd(chunk: int | None) -> Step:
        leaves, adamw = fresh()
        aggregator = PCGrad()

        def step() -> None:
            adamw.zero_grad()
            backward(group_losses(leaves), inputs=leaves, parallel_chunk_size=chunk)
            jac_to_grad(leaves, aggregator)
            adamw.step()
            finish()

        return step

    set_fastest_threads(plain())
    made = {
        "torch plain": plain(),
        "torch loop PCGrad": loop(),
        "TorchJD PCGrad": torchjd(None),
        "TorchJD PCGrad, rows one by one": torchjd(1),
    }
    return made, group_losses(fresh()[0]).detach().cpu().numpy()


def set_fastest_threads(step: Step) -> None:
    """One thread a core, or a single one where the cores are busy with other work."""
    best = {}
    for threads in (len(os.sched_getaffinity(0)), 1):
        torch.set_num_threads(threads)
        step()
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
        best[threads] = min(taken)
    torch.set_num_threads(min(best, key=best.__getitem__))
