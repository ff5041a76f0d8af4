"""A multi-layer perceptron, and any NNX model as a pure function of a pytree."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from fairjax.types import Params


class MLP(nnx.Module):
    """Dense layers with an activation and optional dropout between them.

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
        """Make the layers.

        Args:
          num_inputs: Features of an example.
          hidden: Width of each hidden layer; none gives a linear model.
          num_outputs: Outputs of an example.
          activation: Between the layers.
          dropout: Share of hidden units that is dropped in training mode.
          rngs: Keys for the initial weights.
        """
        widths = [num_inputs, *hidden, num_outputs]
        self.layers = nnx.List(
            nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(widths)
        )
        self.dropout = nnx.Dropout(dropout) if dropout else None
        self.activation = activation

    def __call__(
        self, inputs: Float[Array, "*batch num_inputs"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*batch num_outputs"]:
        """Outputs; in training mode with dropout, ``rngs`` draws what is dropped."""
        for layer in self.layers[:-1]:
            inputs = self.activation(layer(inputs))
            if self.dropout is not None:
                inputs = self.dropout(inputs, rngs=rngs)
        return self.layers[-1](inputs)


def functional(module: nnx.Module) -> tuple[Callable[..., Any], Params]:
    """Split an NNX module into a pure function and its parameters.

    Args:
      module: Any module; what is no ``nnx.Param`` (keys, batch statistics) is frozen
        at its present value.

    Returns:
      ``apply(params, *args, **kwargs)``, pure, and ``params``, a nested dict of arrays.
      Both work under ``jit``, ``vmap`` and ``jacrev``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import MLP, functional
      >>> apply, params = functional(MLP(3, (8,), 1, rngs=nnx.Rngs(0)))
      >>> apply(params, jnp.ones((5, 3))).shape
      (5, 1)
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
