r"""Named objectives, and objectives that are functions of cell means.

Examples are partitioned into cells, such as sex × race × label. A model's per-example
statistics :math:`s_i` have cell means

.. math:: m_{s,c} = \frac{\sum_{i \in c} w_i s_i}{\sum_{i \in c} w_i},

and every objective is a function of these means, :math:`L_k = F_k(m)`. This form makes
the Jacobian of many objectives cheap; see :mod:`fairjax.jacobian`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jaxtyping import Array, Float

from fairjax.groups import Partition
from fairjax.types import (
    Batch,
    CellIds,
    Params,
    Scalar,
    Values,
    check_decay,
    is_known,
)


@dataclasses.dataclass(frozen=True, eq=False)
class CellFunction:
    """One objective as a function of cell means.

    Attributes:
      value: ``value(means, counts) -> scalar``. ``means`` maps the name of a statistic
        to its cell means ``[C]``; ``counts [C]`` is the weight of each cell. An empty
        cell has mean 0 and count 0, and must not influence the value.
      statistics: Names of the statistics that ``value`` reads.
      cells: bool ``[C]``, the cells whose means ``value`` reads. The array is static,
        so that the planner knows which objectives share a cell.
    """

    value: Callable[
        [Mapping[str, Float[Array, " C"]], Float[Array, " C"]], Float[Array, ""]
    ]
    statistics: tuple[str, ...]
    cells: np.ndarray


class RunningMeans(NamedTuple):
    """Exponential moving averages of a batch's cell sums and cell counts.

    Attributes:
      sums: statistic -> ``[C]``, averaged sums of the statistic over each cell.
      counts: ``[C]``, averaged weights of each cell.
      total: ``[]``, the sum of the averaging weights so far, ``1 − decayᵗ``.
    """

    sums: Mapping[str, Float[Array, " C"]]
    counts: Float[Array, " C"]
    total: Float[Array, ""]


class CellSums(NamedTuple):
    """Sums over each cell of a batch: statistic -> ``[C]``, and weights ``[C]``."""

    sums: Mapping[str, Float[Array, " C"]]
    counts: Float[Array, " C"]


@dataclasses.dataclass(frozen=True, eq=False)
class CellObjectives:
    """Objectives that are functions of cell means; made by :func:`cell_objectives`.

    ``objectives(params, batch)`` returns the values ``[K]``. With a ``decay``, the call
    is ``objectives(params, batch, running)`` and returns ``(values, running)``;
    differentiate it with ``has_aux=True``. If ``statistics_fn`` returns aux as well,
    the call returns ``(values, aux)``, or with a decay ``(values, (running, aux))``.

    Example:
      >>> import fairjax
      >>> from fairjax import losses
      >>> cells = fairjax.partition({"sex": ["f", "m"]})
      >>> objectives = cell_objectives(
      ...     lambda w, batch: {"loss": w * batch["y"]},
      ...     cells, {"f": losses.group_risk(cells, "sex", "f")}, decay=0.5)
      >>> batch = {"y": jnp.array([1.0, 3.0, 5.0]), "cells": jnp.array([0, 0, 1])}
      >>> rows = objectives.per_example(2.0, batch)
      >>> rows["loss"].tolist()
      [2.0, 6.0, 10.0]
      >>> sums = objectives.cell_sums(rows, batch)
      >>> sums.sums["loss"].tolist(), sums.counts.tolist()
      ([8.0, 10.0], [2.0, 1.0])
      >>> values, running = objectives.values_from_sums(sums, objectives.init_running())
      >>> values.tolist(), running.counts.tolist()
      ([4.0], [1.0, 0.5])
      >>> objectives.join_aux(running, None) is running
      True
      >>> objectives.with_aux(2.0, batch)[1] is None
      True
      >>> objectives.check_call(batch, running)
      >>> objectives.check_call({"y": batch["y"]}, running)
      Traceback (most recent call last):
        ...
      ValueError: the batch has no 'cells': add the cell of each example, ...
    """

    statistics_fn: Callable[[Params, Batch], Any]
    functions: Mapping[str, CellFunction]
    num_cells: int
    cell_shares: np.ndarray
    decay: Scalar | None
    axis_name: str | None
    has_aux: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives' names, in the order of the values."""
        return tuple(self.functions)

    @property
    def num_objectives(self) -> int:
        """The number of objectives, K."""
        return len(self.functions)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics that at least one objective reads, each once."""
        read = [s for f in self.functions.values() for s in f.statistics]
        return tuple(dict.fromkeys(read))

    @property
    def returns_aux(self) -> bool:
        """Whether a call returns running means or aux beside the values."""
        return self.has_aux or self.decay is not None

    def init_running(self) -> RunningMeans:
        """Returns running means before the first batch."""
        # Separate buffers, so that the running means can be donated.
        sums = {s: jnp.zeros(self.num_cells, jnp.float32) for s in self.statistics}
        counts = jnp.zeros(self.num_cells, jnp.float32)
        return RunningMeans(sums, counts, jnp.zeros((), jnp.float32))

    def per_example(self, params: Params, batch: Batch) -> dict[str, Array]:
        """Returns the statistics ``[B]`` that the objectives read.

        Raises:
          ValueError: ``statistics_fn`` does not return a statistic that an objective
            reads, or a statistic does not have one value per example.
        """
        return self.with_aux(params, batch)[0]

    def with_aux(self, params: Params, batch: Batch) -> tuple[dict[str, Array], Any]:
        """Returns the statistics ``[B]`` that the objectives read, and aux.

        Raises:
          ValueError: As :meth:`per_example`; or ``has_aux`` is True and there is none.
        """
        found = self.statistics_fn(params, batch)
        statistics, aux = _split_aux("statistics", found, self.has_aux)
        if not isinstance(statistics, Mapping):
            raise ValueError(
                "statistics_fn must return a dict from names to statistics [B]; "
                f"got {type(statistics).__name__}. To return (statistics, aux), make "
                "the objectives with has_aux=True."
            )
        size = jnp.shape(batch["cells"])
        chosen = {}
        for name in self.statistics:
            if name not in statistics:
                raise ValueError(
                    f"statistics_fn must return {name!r}, which an objective reads; "
                    f"got {', '.join(map(repr, statistics))}."
                )
            if jnp.shape(statistics[name]) != size:
                raise ValueError(
                    f"statistic {name!r} has shape {jnp.shape(statistics[name])}; "
                    f"one value per example is needed, shape {size}."
                )
            chosen[name] = statistics[name]
        return chosen, aux

    def join_aux(self, running: RunningMeans | None, aux: Any) -> Any:
        """Returns what a call returns beside the values."""
        if not self.has_aux:
            return running
        return aux if running is None else (running, aux)

    def cell_sums(self, statistics: Mapping[str, Array], batch: Batch) -> CellSums:
        """Returns weighted sums of each statistic over each cell, over all devices."""
        cells = jnp.asarray(batch["cells"])
        inside = (cells >= 0) & (cells < self.num_cells)
        weights = jnp.where(inside, example_weights(batch), 0.0)
        # A cell with an unknown weight is not empty: its sums are unknown.
        known = jnp.where(jnp.isnan(weights), 1.0, weights)
        counts = _sum_by_cell(known, cells, self.num_cells)
        # Select, then multiply, so that NaNs of examples of weight 0 are not counted.
        sums = {
            name: _sum_by_cell(
                jnp.where(weights != 0, weights * value.astype(weights.dtype), 0.0),
                cells,
                self.num_cells,
            )
            for name, value in statistics.items()
        }
        if self.axis_name is not None:
            sums, counts = jax.lax.psum((sums, counts), self.axis_name)
        return CellSums(sums, counts)

    def values_from_sums(
        self, batch_sums: CellSums, running: RunningMeans | None = None
    ) -> tuple[Values, RunningMeans | None]:
        """Returns objectives ``[K]`` from a batch's cell sums, and the running means.

        With running means the value is ``F(m̂)`` at the averaged means ``m̂ = Ŝ/N̂``,
        and its derivative with respect to a batch's sums is ``F'(m̂)/N̂``.
        """
        if running is None:
            counts = batch_sums.counts
            means = {k: _divide(v, counts) for k, v in batch_sums.sums.items()}
        else:
            running = self._average(jax.lax.stop_gradient(batch_sums), running)
            counts = _divide(running.counts, running.total)
            means = {}
            for name, total in batch_sums.sums.items():
                change = _divide(total - jax.lax.stop_gradient(total), counts)
                means[name] = _divide(running.sums[name], running.counts) + change
        values = [f.value(means, counts) for f in self.functions.values()]
        return jnp.stack(values), running

    def _average(self, batch_sums: CellSums, running: RunningMeans) -> RunningMeans:
        # A cell whose statistics are not finite counts as empty in this batch, since
        # a NaN would stay in the averages forever.
        finite = jnp.isfinite(batch_sums.counts)
        for total in batch_sums.sums.values():
            finite &= jnp.isfinite(total)
        sums, counts = jax.tree.map(
            lambda x: jnp.where(finite, x, 0.0), (batch_sums.sums, batch_sums.counts)
        )
        new = RunningMeans(sums, counts, jnp.ones(()))
        decay = 0.0 if self.decay is None else self.decay
        return jax.tree.map(lambda old, x: decay * old + (1 - decay) * x, running, new)

    def __call__(
        self, params: Params, batch: Batch, running: RunningMeans | None = None
    ) -> Any:
        """Returns the values ``[K]``; with a ``decay``, ``(values, running)``."""
        self.check_call(batch, running)
        statistics, aux = self.with_aux(params, batch)
        values, running = self.values_from_sums(
            self.cell_sums(statistics, batch), running
        )
        beside = self.join_aux(running, aux)
        return (values, beside) if self.returns_aux else values

    def check_call(self, batch: Batch, running: RunningMeans | None) -> None:
        """Checks that the arguments fit these objectives.

        Raises:
          ValueError: The batch has no cells, or they are no integers; weights or a mask
            do not have one value per example; or running means are missing, or given
            without a decay.
        """
        if "cells" not in batch:
            raise ValueError(
                "the batch has no 'cells': add the cell of each example, as "
                "partition.encode returns it."
            )
        if (running is None) != (self.decay is None):
            raise ValueError(
                "objectives with a decay are called with running means, and objectives "
                "without a decay are not: pass objectives.init_running() at first. "
                "Pass objectives= to training.init_state, which does so."
            )
        size = jnp.shape(batch["cells"])
        kind = jnp.result_type(batch["cells"])
        if not jnp.issubdtype(kind, jnp.integer):
            raise ValueError(
                f"batch['cells'] must hold integers, as partition.encode returns them; "
                f"got {kind}."
            )
        for name in ("weights", "mask"):
            if batch.get(name) is not None and jnp.shape(batch[name]) != size:
                raise ValueError(
                    f"batch[{name!r}] has shape {jnp.shape(batch[name])}; one value "
                    f"per example is needed, shape {size}."
                )


def cell_objectives(
    statistics_fn: Callable[..., Any],
    partition: Partition,
    functions: Mapping[str, CellFunction],
    *,
    decay: Scalar | None = None,
    axis_name: str | None = None,
    has_aux: bool = False,
) -> CellObjectives:
    r"""Makes objectives :math:`L_k = F_k(m)` of the cell means of statistics.

    Args:
      statistics_fn: ``statistics_fn(params, batch) -> {name: [B]}``, one value per
        example; for example the loss and the soft score ``sigmoid(logit)``.
      partition: The cells. A batch holds each example's cell in ``batch["cells"]``
        (``[B]``, from ``partition.encode``; −1 for no cell). It may also hold
        ``batch["weights"]`` (``[B]``, non-negative) and ``batch["mask"]`` (``[B]``,
        False for padding). Examples of weight 0 do not influence the values, but
        must be finite: the derivative of a NaN is NaN whatever its weight.
      functions: name -> :class:`CellFunction`, as :mod:`fairjax.losses` makes them.
      decay: If given, the means are ratios of exponential moving averages of the
        batches' cell sums and cell counts. Averages steady the gaps between cells with
        few examples per batch. The decay lies in [0, 1) and may be traced. A cell whose
        sums are not finite counts as empty in that batch's averages; objectives that
        read the cell are not finite in that step. **Bias**: the averaged means lag,
        because they mix means at parameters up to about ``1/(1 − decay)`` steps old.
        So a closing gap is over-estimated, and an opening gap is under-estimated. The
        gradient's direction within a cell stays that of the current batch, divided by
        the averaged count.
      axis_name: A mapped axis (``shard_map``, ``vmap``) over which cells are summed,
        so that the means are those of the global batch.
      has_aux: Whether ``statistics_fn`` returns ``(statistics, aux)``. The aux, such as
        the model's new state, has no derivative, and may combine examples.

    Returns:
      A :class:`CellObjectives`: call it, or differentiate it with
      :func:`fairjax.value_and_jacobian`.

    Raises:
      ValueError: There are no functions, a function was made for another number of
        cells, or the decay lies outside [0, 1).

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> from fairjax import losses
      >>> cells = fairjax.partition({"sex": ["f", "m"], "died": [0, 1]})
      >>> objectives = fairjax.cell_objectives(
      ...     lambda w, batch: {"loss": (w - batch["y"]) ** 2},
      ...     cells,
      ...     {"task": losses.task(cells), "f": losses.group_risk(cells, "sex", "f")},
      ... )
      >>> batch = {"y": jnp.array([1.0, 3.0]), "cells": jnp.array([0, 3])}
      >>> objectives(jnp.array(2.0), batch)
      Array([1., 1.], dtype=float32)
    """
    if not functions:
        raise ValueError("cell_objectives needs at least one function.")
    for name, function in functions.items():
        if function.cells.shape != (partition.num_cells,):
            raise ValueError(
                f"objective {name!r} was made for {function.cells.size} cells; the "
                f"partition has {partition.num_cells}."
            )
    if decay is not None:
        check_decay(decay)
    shares = partition.counts / max(int(partition.counts.sum()), 1)
    return CellObjectives(
        statistics_fn=statistics_fn,
        functions=dict(functions),
        num_cells=partition.num_cells,
        cell_shares=shares,
        decay=decay,
        axis_name=axis_name,
        has_aux=has_aux,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class StackedObjectives:
    """Named objectives of any form; made by :func:`stack_objectives`."""

    functions: Mapping[str, Callable[..., Array]]

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives' names, in the order of the values."""
        return tuple(self.functions)

    @property
    def num_objectives(self) -> int:
        """The number of objectives, K."""
        return len(self.functions)

    def __call__(self, params: Params, *args: Any) -> Values:
        """Returns the values ``[K]``.

        Raises:
          ValueError: A function does not return one number.
        """
        values = [f(params, *args) for f in self.functions.values()]
        for name, value in zip(self.names, values, strict=True):
            what = jax.tree.map(jnp.shape, value)
            if what != ():
                raise ValueError(
                    f"objective {name!r} must return one number; got shapes {what}. "
                    "Return a mean or a sum over the examples, and nothing beside it."
                )
        return jnp.stack(values)


def stack_objectives(
    functions: Mapping[str, Callable[..., Array]],
) -> StackedObjectives:
    """Stacks named scalar functions ``f(params, *args)`` into one ``values [K]``.

    Use it for objectives that are not functions of cell means, such as a contrastive
    loss.

    Raises:
      ValueError: There are no functions.

    Example:
      >>> import fairjax
      >>> both = fairjax.stack_objectives({"a": lambda w: w**2, "b": lambda w: -w})
      >>> both.names, both(3.0)
      (('a', 'b'), Array([ 9., -3.], dtype=float32, weak_type=True))
    """
    if not functions:
        raise ValueError("stack_objectives needs at least one function.")
    return StackedObjectives(dict(functions))


@dataclasses.dataclass(frozen=True, eq=False)
class OutputObjectives(StackedObjectives):
    """Named objectives of examples' outputs; made by :func:`output_objectives`.

    Example:
      >>> import fairjax
      >>> size = lambda scores, batch: (scores**2).sum()
      >>> objectives = fairjax.output_objectives(lambda w, x: x * w, {"size": size})
      >>> objectives.values(np.array([1.0, 2.0]), np.zeros(2)).tolist()
      [5.0]
      >>> objectives.with_aux(3.0, np.array([1.0, 2.0]))
      (array([3., 6.]), None)
    """

    outputs_fn: Callable[..., Any]
    axis_name: str | None = None
    has_aux: bool = False

    def __call__(self, params: Params, *args: Any) -> Any:
        """Returns the values ``[K]``; of this device's examples; or with aux."""
        outputs, aux = self.with_aux(params, *args)
        values = self.values(outputs, *args)
        return (values, aux) if self.has_aux else values

    def with_aux(self, params: Params, *args: Any) -> tuple[Any, Any]:
        """Returns the outputs, and aux.

        Raises:
          ValueError: ``has_aux`` is True, and ``outputs_fn`` returns no aux.
        """
        return _split_aux("outputs", self.outputs_fn(params, *args), self.has_aux)

    def values(self, outputs: Any, *args: Any) -> Values:
        """Returns the values ``[K]`` at the outputs.

        Raises:
          ValueError: A function does not return one number.
        """
        return super().__call__(outputs, *args)


def output_objectives(
    outputs_fn: Callable[..., Any],
    functions: Mapping[str, Callable[..., Array]],
    *,
    axis_name: str | None = None,
    has_aux: bool = False,
) -> OutputObjectives:
    """Makes objectives that read a model through its outputs for each example.

    A function of outputs may compare examples, as a soft AUC or a calibration error
    does. Where the model treats examples one by one,
    :func:`fairjax.reconciled_value_and_grad` computes the reconciled update from a
    backward pass for each output (or each objective, if these are fewer).

    Args:
      outputs_fn: ``outputs_fn(params, *args) -> outputs``, a pytree of ``[B, ...]``
        with one row for each example.
      functions: name -> ``f(outputs, *args) -> []``, a differentiable function.
      axis_name: A mesh axis of ``shard_map`` that the examples are spread over. Then
        :func:`fairjax.value_and_jacobian` gathers the outputs, and all arguments with
        a row for each example that a function reads, so that the objectives are those
        of the global batch.
      has_aux: Whether ``outputs_fn`` returns ``(outputs, aux)``. The aux, such as the
        model's new state, has no derivative, and may combine examples.

    Raises:
      ValueError: There are no functions.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> def ranking(scores, batch):  # One minus a smooth AUC.
      ...     pairs = scores[batch["y"] == 1][:, None] - scores[batch["y"] == 0]
      ...     return jnp.mean(1 / (1 + jnp.exp(pairs)))
      >>> objectives = fairjax.output_objectives(
      ...     lambda w, batch: batch["x"] @ w,
      ...     {"ranking": ranking, "size": lambda scores, batch: jnp.mean(scores**2)},
      ... )
      >>> batch = {"x": jnp.array([[1.0], [1.0], [3.0]]), "y": np.array([0, 1, 1])}
      >>> objectives(jnp.array([0.0]), batch)
      Array([0.5, 0. ], dtype=float32)
    """
    if not functions:
        raise ValueError("output_objectives needs at least one function.")
    return OutputObjectives(dict(functions), outputs_fn, axis_name, has_aux)


def _split_aux(what: str, found: Any, has_aux: bool) -> tuple[Any, Any]:
    """Returns what a model's function returned, and its aux, or None."""
    if not has_aux:
        return found, None
    if not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(
            f"{what}_fn must return ({what}, aux), since has_aux=True; got "
            f"{type(found).__name__}."
        )
    return found


def example_weights(batch: Batch) -> Float[Array, " B"]:
    """Returns the batch's weights ``[B]``, ones by default, and zero where masked.

    Raises:
      ValueError: A weight of an example in a cell is negative. Where weights are
        traced, a negative one is NaN instead, and no update is made.

    Example:
      >>> import jax.numpy as jnp
      >>> batch = {"cells": jnp.array([0, 2]), "mask": jnp.array([True, False])}
      >>> example_weights(batch)
      Array([1., 0.], dtype=float32)
    """
    weights = batch.get("weights")
    if weights is None:
        weights = jnp.ones(jnp.shape(batch["cells"]), jnp.float32)
    else:
        # Weights may be integers; their sums and means are floats.
        weights = jnp.asarray(weights)
        weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    mask = batch.get("mask")
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    if is_known((weights, batch["cells"])) and weights.is_fully_addressable:
        read = np.asarray(weights)[np.asarray(batch["cells"]) >= 0]
        if (read < 0).any():
            raise ValueError(f"weights must be 0 or more; got {read.min()}.")
    elif batch.get("weights") is not None:
        weights = jnp.where(weights < 0, jnp.nan, weights)
    return weights


def _sum_by_cell(
    values: Float[Array, " B"], cells: CellIds, num_cells: int
) -> Float[Array, " C"]:
    """Returns sums of the values over each cell; drops cells out of range."""

    def scatter(values: Array, cells: Array) -> Array:
        outside = (cells < 0) | (cells >= num_cells)
        return jax.ops.segment_sum(
            values, jnp.where(outside, num_cells, cells), num_cells
        )

    def compare(values: Array, cells: Array) -> Array:
        inside = cells[None, :] == jnp.arange(num_cells)[:, None]
        return jnp.sum(jnp.where(inside, values[None, :], 0.0), axis=1)

    mesh = jax.typeof(values).sharding.mesh
    if not mesh.empty and AxisType.Explicit in mesh.axis_types:
        return compare(values, cells)  # The other form is not accepted.
    # On a CPU, B additions instead of B × C comparisons. Elsewhere one pass, which sums
    # in the same order every time; a scatter on a GPU is atomic and does not.
    return jax.lax.platform_dependent(values, cells, cpu=scatter, default=compare)


def _divide(numerator: Array, denominator: Array) -> Array:
    """Returns quotients, 0 where the denominator is 0, with finite gradients."""
    safe = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(denominator > 0, numerator / safe, 0.0)
