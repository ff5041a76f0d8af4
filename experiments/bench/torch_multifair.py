"""MultiFair's released algorithm in PyTorch, on the benchmark's model and weights.

The model is a copy of :mod:`experiments.bench.modulation_steps`, with parameters of the
same names and shapes. As in the released code, scikit-learn computes the AUCs for B and
the gate on the CPU. A loop computes the AUCs of modalities within groups, and every
state is a Python number. Terms that are constants to the optimiser there (see
:func:`fairjax.modulation.multifair_penalty`) are left out, which saves their time.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from experiments.bench import modulation_steps as setup
from experiments.bench.modulation_steps import MODALITIES
from experiments.bench.torch_reconcilers import DEVICE, finish, set_fastest_threads

Tree = Any


class Signals(NamedTuple):
    """The algorithm's signals of a batch, which are carried to the next batch.

    Attributes:
      modality_auc: Modality -> AUC.
      balance: Modality -> B.
      group_auc: Modality -> moving average of the surrogate AUC in each group.
      factors: Modality -> f.
      fused_gap: Gap of the fused AUC between groups; NaN if a group has one row.
      gate: Whether the factors apply.
    """

    modality_auc: dict[str, float]
    balance: dict[str, float]
    group_auc: dict[str, list[float]]
    factors: dict[str, float]
    fused_gap: float
    gate: bool


class Twin:
    """The model, its optimisers and the algorithm's state.

    Args:
      problem: The model's sizes, JAX's parameters, and the batch.
      released: Whether to modulate; otherwise the plain joint step.
    """

    def __init__(self, problem: setup.Problem, *, released: bool) -> None:
        self.num_heads, self.num_groups = problem.size.num_heads, problem.num_groups
        self.released = released
        self.params = jax.tree.map(partial(_tensor, requires_grad=True), problem.params)
        self.give(problem.batch)
        model = {k: v for k, v in self.params.items() if k != "auxiliary"}
        self._model = model = jax.tree.leaves(model)
        heads, adamw = jax.tree.leaves(self.params["auxiliary"]), torch.optim.AdamW
        # In one kernel each, the fastest that there is.
        self._optimisers = (
            adamw(model, setup.MODEL_RATE, weight_decay=setup.MODEL_DECAY, fused=True),
            adamw(heads, setup.HEADS_RATE, weight_decay=setup.HEADS_DECAY, fused=True),
        )
        self.signals = Signals(
            modality_auc=dict.fromkeys(MODALITIES, 0.5),
            balance=dict.fromkeys(MODALITIES, 1.0),
            group_auc=dict.fromkeys(MODALITIES, [0.5] * self.num_groups),
            factors=dict.fromkeys(MODALITIES, 1.0),
            fused_gap=math.nan,
            gate=False,
        )

    def give(self, batch: Mapping[str, Any]) -> None:
        """Continues with another batch."""
        self.batch = jax.tree.map(_tensor, dict(batch))
        self.batch["groups"] = self.batch["groups"].long()

    def outputs(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes logits ``[B]`` of the batch, fused and of each modality."""
        params, inputs = self.params, self.batch["inputs"]
        encoders, num_heads = params["encoders"], self.num_heads
        features = {
            "labs": _mlp(encoders["labs"], **inputs["labs"]),
            "vitals": _series(encoders["vitals"], num_heads, inputs["vitals"]),
        }
        tokens, alone = [], {}
        for name in MODALITIES:
            projection, head = params["projections"][name], params["auxiliary"][name]
            projected = _linear(projection["linear"], features[name])
            tokens.append(_norm(projection["norm"], projected))
            hidden = torch.relu(_linear(head["hidden"], tokens[-1].detach()))
            alone[name] = _linear(head["last"], hidden)[:, 0]
        placed = torch.stack(tokens, dim=1) + params["embeddings"]
        fused = _transformer(params["fusion"], num_heads, placed).mean(1)
        head = params["classifier"]
        hidden = _gelu(_norm(head["norm"], _linear(head["hidden"], fused)))
        return _linear(head["last"], hidden)[:, 0], alone

    def step(self) -> None:
        """Makes one step on the batch."""
        self.backward()
        self.apply()

    def apply(self) -> None:
        """Clips the model's gradient, and updates the parameters."""
        torch.nn.utils.clip_grad_norm_(self._model, setup.CLIP)
        for optimiser in self._optimisers:
            optimiser.step()
        finish()

    def arrays(self) -> Tree:
        """Returns the parameters in JAX's form."""
        return jax.tree.map(_array, self.params)

    def gradients(self) -> Tree:
        """Returns the gradients of the last `backward`."""
        return jax.tree.map(lambda leaf: _array(leaf.grad), self.params)

    def backward(self) -> None:
        """Computes the gradients, modulated but not yet clipped, in ``.grad``."""
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        logits, alone = self.outputs()
        labels = self.batch["labels"]
        cross_entropy = functional.binary_cross_entropy_with_logits
        loss = cross_entropy(logits, labels)
        for one in alone.values():
            loss = loss + cross_entropy(one, labels)
        loss.backward()
        if not self.released:
            return
        with torch.no_grad():
            self._observe(logits, alone)
            seen = self.signals
            for name in MODALITIES:
                factor = setup.RHO * seen.balance[name]
                if seen.gate:
                    factor *= seen.factors[name]
                for leaf in jax.tree.leaves(self.params["encoders"][name]):
                    if leaf.grad is not None:
                        leaf.grad.mul_(factor)

    def _observe(self, logits: torch.Tensor, alone: dict[str, torch.Tensor]) -> None:
        """Computes the signals of this batch."""
        labels, groups = self.batch["labels"], self.batch["groups"]
        scores = {name: torch.sigmoid(alone[name]) for name in MODALITIES}
        on_host = labels.cpu().numpy()
        previous = self.signals.modality_auc
        auc = {n: _auc(on_host, scores[n], previous[n]) for n in MODALITIES}
        change = {n: abs(auc[n] - previous[n]) for n in MODALITIES}
        total = sum(change.values()) + 1e-8
        averages, factors = {}, {}
        members = [groups == group for group in range(self.num_groups)]
        counts = [int(member.sum()) for member in members]
        strength = setup.MU / max(1e-4, setup.TAU)
        for name in MODALITIES:
            own = averages[name] = []
            before = self.signals.group_auc[name]
            for old, member in zip(before, members, strict=True):
                found = _surrogate(scores[name][member], labels[member])
                own.append(setup.DECAY * old + (1 - setup.DECAY) * found)
            mean = sum(own) / len(own)
            lifted = [1 + strength * (mean - one) for one in own]
            factors[name] = float(np.average(lifted, weights=counts))
        gap, fused = math.nan, torch.sigmoid(logits)
        if min(counts) > 1:
            host_groups = groups.cpu().numpy()
            by_group = [
                _auc(on_host[host_groups == group], fused[member], 0.5)
                for group, member in enumerate(members)
            ]
            gap = max(by_group) - min(by_group)
        balance = {name: (total - change[name]) / total for name in MODALITIES}
        self.signals = Signals(auc, balance, averages, factors, gap, gap > setup.TAU)


def turn(problem: setup.Problem, number: int, *, released: bool) -> Callable[[], None]:
    """Makes a call of ``number`` steps, on the fastest number of threads."""
    twin = Twin(problem, released=released)
    set_fastest_threads(twin.step)
    threads = torch.get_num_threads()

    def steps() -> None:
        torch.set_num_threads(threads)
        for _ in range(number):
            twin.step()

    return steps


def _auc(labels: np.ndarray, scores: torch.Tensor, otherwise: float) -> float:
    """Computes the AUC on the CPU; ``otherwise`` if there is one class."""
    if labels.min() == labels.max():
        return otherwise
    return float(roc_auc_score(labels, scores.cpu().numpy()))


def _surrogate(scores: torch.Tensor, labels: torch.Tensor) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return 0.5
    difference = positive[:, None] - negative
    return float((1 - torch.log1p(torch.exp(-difference))).mean())


def _mlp(params: Tree, inputs: torch.Tensor) -> torch.Tensor:
    *hidden, last = params["layers"].values()
    for layer in hidden:
        inputs = torch.relu(_linear(layer, inputs))
    return _linear(last, inputs)


def _series(
    params: Tree, num_heads: int, inputs: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    times, variables = inputs["times"], inputs["variables"]
    values, mask = inputs["values"], inputs["mask"]
    number = params["time"]["kernel"].shape[0] // 2
    periods = torch.logspace(0, 10, number, base=2, device=times.device)
    angles = times[..., None] * (2 * math.pi / periods)
    waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
    tokens = (
        functional.embedding(variables, params["variables"])
        + functional.embedding(variables, params["directions"]) * values[..., None]
        + _linear(params["time"], waves)
    )
    summary = params["summary"].expand(len(tokens), 1, -1)
    attended = functional.pad(mask, (1, 0), value=True)[:, None, None]
    rows = torch.cat([summary, tokens], dim=1)
    return _transformer(params["transformer"], num_heads, rows, attended, 1)[:, 0]


def _transformer(
    params: Tree,
    num_heads: int,
    tokens: torch.Tensor,
    attended: torch.Tensor | None = None,
    num_rows: int | None = None,
) -> torch.Tensor:
    """Computes all rows, or the first ``num_rows`` alone in the last block."""
    blocks = list(params["blocks"].values())
    for number, block in enumerate(blocks):
        rows = num_rows if number == len(blocks) - 1 else None
        normal = _norm(block["attention_norm"], tokens)
        mixed = _attention(block["attention"], num_heads, normal, attended, rows)
        tokens = tokens[:, :rows] + mixed
        hidden = _linear(block["inner"], _norm(block["mlp_norm"], tokens))
        tokens = tokens + _linear(block["outer"], _gelu(hidden))
    return _norm(params["norm"], tokens)


def _attention(
    params: Tree,
    num_heads: int,
    tokens: torch.Tensor,
    attended: torch.Tensor | None,
    num_rows: int | None,
) -> torch.Tensor:
    parts = _linear(params["query_key_value"], tokens).chunk(3, dim=-1)
    query, key, value = (
        part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in parts
    )
    mixed = functional.scaled_dot_product_attention(
        query[:, :, :num_rows], key, value, attn_mask=attended
    )
    return _linear(params["output"], mixed.transpose(1, 2).flatten(2))


def _linear(params: Tree, inputs: torch.Tensor) -> torch.Tensor:
    return functional.linear(inputs, params["kernel"].T, params["bias"])


def _norm(params: Tree, inputs: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(
        inputs, inputs.shape[-1:], params["scale"], params["bias"], 1e-6
    )


def _gelu(inputs: torch.Tensor) -> torch.Tensor:
    return functional.gelu(inputs, approximate="tanh")


def _tensor(leaf: Any, **options: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(leaf), device=DEVICE, **options)


def _array(leaf: torch.Tensor) -> np.ndarray:
    return leaf.detach().cpu().numpy().copy()
