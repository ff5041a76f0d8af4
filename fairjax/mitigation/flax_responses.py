r"""Best responses by Flax models, several trained side by side in one program."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from fairjax import training
from fairjax.keys import as_key
from fairjax.models import MLP, functional
from fairjax.types import Params, check_nonnegative, check_whole

# The number of rows that are decided at once, to bound memory.
_ROWS = 65_536
# A feature that varies by a smaller fraction of its largest value is constant.
_ROUNDING = 1e-13


def logistic(num_inputs: int, rngs: nnx.Rngs) -> nnx.Module:
    """Makes a linear model of one output.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> model = logistic(1, nnx.Rngs(0))
      >>> bool(model(jnp.ones((1, 1))) == model.layers[0].kernel[...])
      True
    """
    return MLP(num_inputs, (), 1, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class FlaxClassifier:
    r"""A Flax model and the settings of its training on weighted labels.

    :class:`fairjax.mitigation.ExponentiatedGradient` asks the learner for several
    classifiers at a time. One compiled program trains all classifiers side by side,
    each starting from its parameters of the request before, on

    .. math:: \frac{1}{n} \Big( \sum_i w_i \, \mathrm{BCE}(f(x_i), y'_i) +
       \frac{\text{penalty}}{2} \|K\|^2 \Big), \qquad \sum_i w_i = n

    with K the model's kernels: parameters of two or more axes. The learner is a record
    of settings, not a scikit-learn estimator: to search over settings, search over
    several learners as ``estimator``. The default is logistic regression with
    scikit-learn's default penalty, by L-BFGS on all rows.

    A learner pickles if its functions do. ``model`` must then be a function of a
    module, not a lambda. ``optimizer`` must be a function that makes a transformation,
    such as ``functools.partial(optax.adam, 1e-2)``, because optax's transformations do
    not pickle.

    Attributes:
      model: ``model(num_inputs, rngs)`` makes the module, from inputs ``[b, d]`` to
        logits ``[b]`` or ``[b, 1]``.
      optimizer: An optax transformation, or a function without arguments that makes a
        transformation. None: ``optax.lbfgs`` with a line search of a few points at
        most, which needs all rows at once.
      steps: Number of training steps of each response.
      batch_size: Patients of a step, drawn with replacement; None: all patients.
      penalty: Weight of the kernels' squares, at least 0.
      standardize: Whether to give the model features of mean 0 and standard deviation 1
        in the rows of the fit.

    Example:
      >>> import optax
      >>> from fairjax.mitigation import FlaxClassifier
      >>> from fairjax.models import MLP
      >>> learner = FlaxClassifier(
      ...     lambda d, rngs: MLP(d, (32,), 1, rngs=rngs),
      ...     optimizer=optax.adam(1e-2), steps=200, batch_size=256)
      >>> learner.standardize
      True
    """

    model: Callable[[int, nnx.Rngs], nnx.Module] = logistic
    optimizer: (
        optax.GradientTransformation | Callable[[], optax.GradientTransformation] | None
    ) = None
    steps: int = 15
    batch_size: int | None = None
    penalty: float = 1.0
    standardize: bool = True

    def __deepcopy__(self, memo: Any) -> "FlaxClassifier":
        """Returns the learner itself, so that clones share compiled programs."""
        return self

    def check(self) -> None:
        """Checks that the settings are in range.

        Raises:
          ValueError: If a number of steps or patients is not an integer of at least 1,
            the penalty is negative, or batches have no optimizer.

        Example:
          >>> FlaxClassifier(penalty=0.1).check()
          >>> FlaxClassifier(penalty=-1.0).check()
          Traceback (most recent call last):
            ...
          ValueError: penalty must be ...
        """
        check_whole("steps", self.steps)
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size)
            if self.optimizer is None:
                raise ValueError(
                    "optimizer must suit batches if batch_size is set; got None, for "
                    "L-BFGS on all rows. Give one such as optax.adam(1e-2)."
                )
        check_nonnegative("penalty", self.penalty)


class Mixture(NamedTuple):
    """Trained models and their probabilities; a pytree of arrays.

    Attributes:
      params: ``[H, *param]``, parameters of the models.
      chances: ``[H]``, probabilities of the models, summing to 1.
      center: ``[d]``, subtracted from the features; float64, for large numbers of small
        differences.
      scale: ``[d]``, by which centred features are divided; float64.
    """

    params: Params
    chances: Float[Array | np.ndarray, " H"]
    center: Float[Array | np.ndarray, " d"]
    scale: Float[Array | np.ndarray, " d"]


class FlaxResponses:
    """A learner that answers prices of cells with models, and stores all models.

    Example:
      >>> import numpy as np
      >>> x, cells = np.array([[-1.0], [1.0], [-2.0], [2.0]]), np.array([0, 1, 0, 1])
      >>> answer = FlaxResponses(
      ...     FlaxClassifier(), x, cells, np.ones(4), num_cells=2, lanes=2, key=0)
      >>> answer(np.array([[1.0, -1.0], [-1.0, -1.0]]))
      array([[0., 1.],
             [1., 1.]])
    """

    def __init__(
        self,
        learner: FlaxClassifier,
        features: Float[np.ndarray, "n d"],
        cells: Int[np.ndarray, " n"],
        weights: Float[np.ndarray, " n"],
        *,
        num_cells: int,
        lanes: int,
        key: Array | int,
    ) -> None:
        """Puts the patients on the device, and initialises the models.

        Args:
          learner: The model and its training.
          features: ``[n, d]``.
          cells: ``[n]``, in ``0 .. num_cells − 1``.
          weights: ``[n]``, at least 0, not all 0.
          num_cells: C.
          lanes: K, the number of models trained at once.
          key: Random key of the models' initial parameters and the batches.

        Raises:
          ValueError: If a setting of the learner is out of range, or features exceed
            single precision.
        """
        learner.check()
        self._programs = _programs(learner, features.shape[1])
        center, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if learner.standardize:
            center, spread = _moments(features)
            varies = spread > _ROUNDING * np.abs(features).max(axis=0)
            scale = np.where(varies, spread, 1.0)
        self._center, self._scale = center, scale
        self._data = (
            _rows(features, center, scale),
            jnp.asarray(cells, jnp.int32),
            jnp.asarray(weights / weights.mean(), jnp.float32),
        )
        self._mass = np.bincount(cells, weights, num_cells)
        self._key = as_key(key)
        self._now = self._programs.begin(self._key, lanes)
        self._kept: list[Any] = []

    def __call__(self, prices: Float[np.ndarray, "K C"]) -> Float[np.ndarray, "K C"]:
        """Trains models on prices ``[K, C]``; returns mean decisions ``[K, C]``."""
        key = jax.random.fold_in(self._key, len(self._kept) + 1)
        self._now, selected = self._programs.respond(
            self._now, jnp.asarray(prices, jnp.float32), self._data, key
        )
        self._kept.append(jax.device_get(self._now))
        seen = self._mass > 0
        means = np.asarray(selected, np.float64) / np.where(seen, self._mass, 1.0)
        # The summed weights were divided by their mean, in float32.
        means *= self._mass.sum() / len(self._data[2])
        return np.clip(np.where(seen, means, 0.0), 0.0, 1.0)

    def mixture(self, places: np.ndarray, chances: np.ndarray) -> Mixture:
        """Returns models of positive probability, by iteration and row ``[H, 2]``.

        Raises:
          ValueError: If a model's parameters are not finite.
        """
        used = np.flatnonzero(chances > 0)
        models = [
            jax.tree.map(lambda x, lane=lane: x[lane], self._kept[t])
            for t, lane in places[used]
        ]
        params = jax.tree.map(lambda *leaves: np.stack(leaves), *models)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise ValueError(
                "parameters must be finite; got NaN or inf. Lower the learning rate."
            )
        return Mixture(params, chances[used], self._center, self._scale)


def mixture_probability(
    learner: FlaxClassifier, mixture: Mixture, features: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    r"""Computes patients' probability of selection, :math:`\sum_h q_h [f_h \ge 0]`.

    Args:
      learner: The learner of the mixture's models.
      mixture: The models and their probabilities.
      features: ``[n, d]``.

    Returns:
      ``[n]``, in [0, 1], float64.

    Raises:
      ValueError: If features exceed single precision.

    Example:
      >>> import numpy as np
      >>> learner = FlaxClassifier()
      >>> weights = {"kernel": np.ones((2, 1, 1)), "bias": np.array([[0.0], [-5.0]])}
      >>> mixture = Mixture(
      ...     {"layers": {0: weights}}, np.array([0.25, 0.75]), np.zeros(1), np.ones(1))
      >>> mixture_probability(learner, mixture, np.array([[-1.0], [1.0], [9.0]]))
      array([0.  , 0.25, 1.  ])
    """
    decide = _programs(learner, features.shape[1]).decide
    chances = np.asarray(mixture.chances, np.float64)
    parts = [np.zeros(0)]
    for start in range(0, len(features), _ROWS):
        part = np.asarray(features[start : start + _ROWS], np.float64)
        rows = _rows(part, mixture.center, mixture.scale)
        chosen = np.asarray(decide(mixture.params, rows))
        parts.append(chances @ chosen)
    return np.clip(np.concatenate(parts), 0.0, 1.0)


def parameter_shapes(learner: FlaxClassifier, num_inputs: int) -> Any:
    """Returns the shapes of a model's parameters, as the model holds them.

    Example:
      >>> parameter_shapes(FlaxClassifier(), 3)["layers"][0]["kernel"]
      ShapeDtypeStruct(shape=(3, 1), dtype=float32)
    """
    return jax.eval_shape(lambda: functional(learner.model(num_inputs, nnx.Rngs(0)))[1])


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation ``[d]``, without overflow."""
    _, exponents = np.frexp(np.abs(features).max(axis=0))
    near_one = np.ldexp(features, -exponents)
    mean, deviation = near_one.mean(axis=0), near_one.std(axis=0)
    return np.ldexp(mean, exponents), np.ldexp(deviation, exponents)


def _rows(features: np.ndarray, center: Any, scale: Any) -> Array:
    """Returns scaled features in single precision.

    Raises:
      ValueError: If features exceed single precision.
    """
    with np.errstate(over="ignore"):
        rows = ((features - center) / scale).astype(np.float32)
    if not np.isfinite(rows).all():
        column = int(np.flatnonzero(~np.isfinite(rows).all(axis=0))[0])
        raise ValueError(
            "features must fit single precision once centred and scaled; got values "
            f"beyond it at position {column}. Change that feature's unit."
        )
    return jnp.asarray(rows)


class _Programs(NamedTuple):
    begin: Callable[..., Any]
    respond: Callable[..., Any]
    decide: Callable[..., Any]


def _lbfgs() -> optax.GradientTransformation:
    # All models wait for the longest line search, so its length is bounded.
    search = optax.scale_by_backtracking_linesearch(
        max_backtracking_steps=4, store_grad=True
    )
    return optax.lbfgs(linesearch=search)


# Programs are compiled once for each learner, for any number of fits.
@functools.lru_cache(maxsize=32)
def _programs(learner: FlaxClassifier, num_inputs: int) -> _Programs:
    apply, _ = functional(learner.model(num_inputs, nnx.Rngs(0)))
    transform: Any = _lbfgs if learner.optimizer is None else learner.optimizer
    if not isinstance(transform, optax.GradientTransformation):
        transform = transform()

    def logits(params: Params, rows: Array) -> Array:
        return apply(params, rows).reshape(rows.shape[0])

    def loss(params: Params, batch: Any, opt_state: Any) -> tuple[Array, dict]:
        del opt_state
        scores = logits(params, batch["rows"])
        each = optax.sigmoid_binary_cross_entropy(scores, batch["labels"])
        kernels = [x for x in jax.tree.leaves(params) if x.ndim > 1]
        squares = sum((jnp.sum(x**2) for x in kernels), jnp.zeros(()))
        penalty = 0.5 * learner.penalty / batch["patients"] * squares
        return jnp.mean(batch["weights"] * each) + penalty, {}

    def sample(key: Array, data: Any) -> Any:
        if learner.batch_size is None:
            return data
        patients = data["labels"].shape[0]
        drawn = jax.random.randint(key, (learner.batch_size,), 0, patients)
        taken = {k: data[k][drawn] for k in ("rows", "labels", "weights")}
        return {**taken, "patients": data["patients"]}

    loop = training.make_loop(
        training.make_loss_step(loss, transform), sample, steps_per_call=learner.steps
    )

    def respond_one(params: Params, prices: Array, data: Any, key: Array):
        rows, cells, given = data
        price = prices[cells]
        weights = given * jnp.abs(price)
        asked = {
            "rows": rows,
            "labels": (price < 0).astype(rows.dtype),
            "weights": weights / jnp.maximum(jnp.mean(weights), 1e-30),
            "patients": jnp.asarray(rows.shape[0], rows.dtype),
        }
        run = training.start(training.init_state(params, transform, key=key))
        run, _ = loop(run, asked)
        params = run.state.params
        selected = (logits(params, rows) >= 0) * given
        return params, jax.ops.segment_sum(selected, cells, prices.shape[0])

    @jax.jit
    def respond(params: Params, prices: Array, data: Any, key: Array):
        keys = jax.random.split(key, prices.shape[0])
        return jax.vmap(respond_one, in_axes=(0, 0, None, 0))(
            params, prices, data, keys
        )

    def begin(key: Array, lanes: int) -> Params:
        # All models have equal initial parameters; their prices differ.
        _, params = functional(learner.model(num_inputs, nnx.Rngs(key)))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (lanes, *x.shape)), params)

    @jax.jit
    def decide(params: Params, rows: Array) -> Array:
        return jax.vmap(logits, in_axes=(0, None))(params, rows) >= 0

    return _Programs(begin, respond, decide)
