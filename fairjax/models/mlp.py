"""A multi-layer perceptron, and a function that makes NNX models pure functions."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fairjax.models._layers import Dropout, LayerOptions
from fairjax.types import Params, check_whole

# Parameters; what a model sows in a call, which is no state of the next; and the rest.
_KINDS = (nnx.Param, nnx.Intermediate, ...)


class MLP(nnx.Module):
    r"""Dense layers with an activation and optional dropout between them.

    .. math::
        h_0 = x, \quad
        h_l = \mathrm{dropout}(\mathrm{activation}(W_l h_{l-1} + b_l)), \quad
        \text{outputs} = W_L h_{L-1} + b_L.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import MLP
      >>> MLP(3, (8, 8), 1, rngs=nnx.Rngs(0))(jnp.ones((5, 3))).shape
      (5, 1)
    """

    def __init__(
        self,
        num_inputs: int,
        hidden: Sequence[int],
        num_outputs: int,
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the layers.

        Args:
          num_inputs: Number of features of an example.
          hidden: Width of each hidden layer; an empty sequence gives a linear model.
          num_outputs: Number of outputs of an example.
          activation: Activation function between the layers.
          dropout: Fraction of hidden units that is dropped where a call has ``rngs``.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0.
        """
        check_whole("num_inputs", num_inputs)
        check_whole("num_outputs", num_outputs)
        for width in hidden:
            check_whole("the width of a hidden layer", width)
        widths = [num_inputs, *hidden, num_outputs]
        self.layers = nnx.List(
            nnx.Linear(a, b, rngs=rngs, **layers) for a, b in itertools.pairwise(widths)
        )
        self.dropout = Dropout(dropout)
        self.activation = activation
        self.num_inputs = num_inputs

    def __call__(
        self, inputs: Float[Array, "*batch num_inputs"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*batch num_outputs"]:
        """Computes the outputs of the examples.

        Args:
          inputs: ``[*batch, num_inputs]``.
          rngs: Keys for dropout. Nothing is dropped if it is None or the model is in
            evaluation mode.

        Returns:
          ``[*batch, num_outputs]``.

        Raises:
          ValueError: If an example does not have ``num_inputs`` features.
        """
        if inputs.shape[-1:] != (self.num_inputs,):
            raise ValueError(
                f"inputs must have shape [..., {self.num_inputs}], as the model has "
                f"num_inputs={self.num_inputs}; got shape {inputs.shape}."
            )
        for layer in self.layers[:-1]:
            inputs = self.dropout(self.activation(layer(inputs)), rngs)
        return self.layers[-1](inputs)


def functional(module: nnx.Module) -> tuple[Callable[..., Any], Params]:
    """Splits an NNX module into a pure function and its parameters.

    Args:
      module: Any module; state that is not an ``nnx.Param`` is frozen at its present
        value.

    Returns:
      ``apply(params, *args, **kwargs)``, pure, and ``params``, a nested dict of arrays.
      Both work under ``jit``, ``vmap`` and ``jacrev``.

    Raises:
      ValueError: At a call that changes other state, such as the statistics of
        ``nnx.BatchNorm`` or the keys of ``nnx.Dropout``. Use :func:`stateful`, or
        switch to evaluation by ``module.eval()``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import MLP, functional
      >>> model = MLP(3, (8,), 1, rngs=nnx.Rngs(0))
      >>> apply, params = functional(model)
      >>> bool(jnp.all(apply(params, jnp.ones((5, 3))) == model(jnp.ones((5, 3)))))
      True
      >>> bool(jnp.any(apply(jax.tree.map(jnp.zeros_like, params), jnp.ones((5, 3)))))
      False
      >>> jax.tree.map(jnp.shape, params)["layers"][0]
      {'bias': (8,), 'kernel': (3, 8)}
    """
    graph, state, sown, rest = nnx.split(module, *_KINDS)

    def apply(params: Params, *args: Any, **kwargs: Any) -> Any:
        # copy=True: merging the same frozen variables inside two transformations
        # must not share, and so leak, their tracers.
        model = nnx.merge(graph, params, sown, rest, copy=True)
        outputs = model(*args, **kwargs)
        *_, after = nnx.split(model, *_KINDS)
        for (path, old), new in zip(
            jax.tree.leaves_with_path(rest), jax.tree.leaves(after), strict=True
        ):
            if new is not old:
                raise ValueError(
                    "the model must not change its state, for which functional has no "
                    f"place; it changes {jax.tree_util.keystr(path)}. Use "
                    "fairjax.models.stateful, or module.eval() before."
                )
        return outputs

    return apply, nnx.to_pure_dict(state)


def stateful(module: nnx.Module) -> tuple[Callable[..., Any], Params, Any]:
    """Splits an NNX module into a pure function, its parameters, and other state.

    The state holds, for example, the statistics of ``nnx.BatchNorm``, but not what the
    module sows. Random numbers
    of the module's own streams, such as those of ``nnx.Dropout``, come from a key.
    For :func:`fairjax.training.make_train_step` with ``has_state=True``.

    Args:
      module: Any module.

    Returns:
      ``apply(params, model_state, key, *args, **kwargs) -> (outputs, model_state)``,
      pure; ``params``; and ``model_state``; nested dicts of arrays.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import stateful
      >>> apply, params, state = stateful(nnx.BatchNorm(1, rngs=nnx.Rngs(0)))
      >>> x = jnp.array([[0.0], [10.0]])
      >>> outputs, new = apply(params, state, jax.random.key(0), x)
      >>> print(outputs[:, 0].round(2), state["mean"], new["mean"].round(2))
      [-1.  1.] [0.] [0.05]
    """
    kinds = (nnx.RngState, *_KINDS)
    graph, streams, params, sown, state = nnx.split(module, *kinds)

    def apply(
        params: Params, model_state: Any, key: Array, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(streams)
        leaves = [
            jax.random.fold_in(key, i)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        drawn = structure.unflatten(leaves)
        model = nnx.merge(graph, drawn, params, sown, model_state, copy=True)
        outputs = model(*args, **kwargs)
        *_, after = nnx.split(model, *kinds)
        return outputs, nnx.to_pure_dict(after)

    return apply, nnx.to_pure_dict(params), nnx.to_pure_dict(state)
