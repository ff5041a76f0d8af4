"""A multi-layer perceptron, and a function that makes NNX models pure functions."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from fairjax.models._layers import Dropout
from fairjax.types import Params, check_whole


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
    ):
        """Makes the layers.

        Args:
          num_inputs: Number of features of an example.
          hidden: Width of each hidden layer; an empty sequence gives a linear model.
          num_outputs: Number of outputs of an example.
          activation: Activation function between the layers.
          dropout: Fraction of hidden units that is dropped where a call has ``rngs``.
          rngs: Keys for the initial weights.

        Raises:
          ValueError: If a size is not an integer above 0.
        """
        check_whole("num_inputs", num_inputs)
        check_whole("num_outputs", num_outputs)
        for width in hidden:
            check_whole("the width of a hidden layer", width)
        widths = [num_inputs, *hidden, num_outputs]
        self.layers = nnx.List(
            nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)
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
      module: Any module; state that is not an ``nnx.Param`` (keys, batch statistics) is
        frozen at its present value.

    Returns:
      ``apply(params, *args, **kwargs)``, pure, and ``params``, a nested dict of arrays.
      Both work under ``jit``, ``vmap`` and ``jacrev``.

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
    graph, state, rest = nnx.split(module, nnx.Param, ...)

    def apply(params: Params, *args: Any, **kwargs: Any) -> Any:
        # copy=True: merging the same frozen variables inside two transformations
        # must not share, and so leak, their tracers.
        model = nnx.merge(graph, params, rest, copy=True)
        return model(*args, **kwargs)

    return apply, nnx.to_pure_dict(state)
