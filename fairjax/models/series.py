"""A transformer over a series of measurements at irregular times."""

import math
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fairjax.models._layers import LayerOptions, check_length, keep, learned, look_up
from fairjax.models.transformer import Transformer
from fairjax.types import check_whole


class SeriesEncoder(nnx.Module):
    r"""An encoder that summarises measurements ``(t, v, x)`` by a transformer.

    Each measurement has one token,

    .. math::
        \text{token} = e_v + x\, d_v
            + W [\sin \omega_f t, \cos \omega_f t]_{f=1}^F + c,

    with ``e, d`` learned for each variable. The frequencies ``ω`` are fixed, and form a
    geometric series between the frequencies of the longest and the shortest period.
    Times are in hours, if the periods are. Nothing is gridded or imputed. The result
    does not depend on the order of the measurements or on the number of masked entries.

    References:
      Tipirneni and Reddy, Self-Supervised Transformer for Sparse and Irregularly
      Sampled Multivariate Clinical Time-Series, ACM TKDD 2022 (measurements as
      triplets; values and times go through dense layers there); Xu et al.,
      Self-Attention with Functional Time Representation Learning, NeurIPS 2019 (time
      by sinusoids).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import SeriesEncoder
      >>> encoder = SeriesEncoder(
      ...     num_variables=2, width=8, depth=1, num_heads=2, max_length=3,
      ...     rngs=nnx.Rngs(0),
      ... )
      >>> hours = jnp.asarray([[0.0, 0.5, 6.0]])
      >>> variables = jnp.asarray([[0, 1, 0]])  # heart rate, lactate, heart rate
      >>> values = jnp.asarray([[-0.3, 1.2, 0.4]])
      >>> measured = jnp.asarray([[True, True, True]])
      >>> nnx.jit(encoder)(hours, variables, values, measured).shape
      (1, 8)
    """

    def __init__(
        self,
        num_variables: int,
        width: int,
        depth: int,
        num_heads: int,
        *,
        max_length: int,
        num_frequencies: int = 8,
        shortest_period: float = 1.0,
        longest_period: float = 1024.0,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        remat: bool = False,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the tokens and the transformer.

        Args:
          num_variables: Number of kinds of measurement.
          width: Features of a token, and of the summary.
          depth: Number of the transformer's blocks.
          num_heads: Number of attention heads; divides ``width``.
          max_length: Largest number of measurements of an example, which bounds the
            memory for attention.
          num_frequencies: Number of frequencies, F.
          shortest_period: Shortest period, in hours.
          longest_period: Longest period, in hours; preferably longer than any series.
          mlp_ratio: Hidden units of a block's dense layers, as a multiple of the width.
          dropout: Fraction of units that is dropped where a call has ``rngs``.
          remat: Whether the backward pass computes each block again, to save memory.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0, the heads do not divide the
            width, or the periods are not positive and ascending.
        """
        check_whole("num_variables", num_variables)
        check_whole("max_length", max_length)
        check_whole("num_frequencies", num_frequencies)
        if not 0 < shortest_period <= longest_period < math.inf:
            raise ValueError(
                "periods must be finite, above 0 and ascending; got shortest_period="
                f"{shortest_period} and longest_period={longest_period}."
            )
        self.transformer = Transformer(
            width,
            depth,
            num_heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            remat=remat,
            rngs=rngs,
            **layers,
        )
        self.variables = learned(rngs, num_variables, width, **layers)
        self.directions = learned(rngs, num_variables, width, **layers)
        self.time = nnx.Linear(2 * num_frequencies, width, rngs=rngs, **layers)
        self.summary = learned(rngs, width, **layers)
        ratio = (longest_period / shortest_period) ** (1 / max(num_frequencies - 1, 1))
        self.frequencies = tuple(
            2 * math.pi / (shortest_period * ratio**f) for f in range(num_frequencies)
        )
        self.max_length = max_length

    def __call__(
        self,
        times: Float[Array, "B T"],
        variables: Int[Array, "B T"],
        values: Float[Array, "B T"],
        mask: Bool[Array, "B T"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B width"]:
        """Summarises the examples; an example without measurements has a summary, too.

        Args:
          times: ``[B, T]``, hours since a moment that is defined equally for all
            examples, such as admission.
          variables: ``[B, T]``, the kind of each measurement, from 0 to
            ``num_variables - 1``; another number gives NaN.
          values: ``[B, T]``, preferably standardised by variable; integers are
            converted to floats.
          mask: ``[B, T]``, False at entries that are empty and are not read.
          rngs: Keys for dropout; None drops nothing.

        Returns:
          ``[B, width]``.

        Raises:
          ValueError: If T is more than ``max_length``, the arrays have different
            shapes, ``variables`` are not integers, or ``times`` have 16 bits, which
            would shift a measurement by hours.
        """
        _check_series(times=times, variables=variables, values=values, mask=mask)
        check_length(times.shape[-1], self.max_length, "series")
        present = keep(mask)
        angles = present(times).astype(jnp.float32)[..., None]
        angles *= jnp.asarray(self.frequencies, jnp.float32)
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        kinds, values = present(variables), present(values)
        if not jnp.issubdtype(values.dtype, jnp.floating):
            # The waves take the values' type, and would be 0 as integers.
            values = values.astype(jnp.float32)
        tokens = (
            look_up(self.variables[...], kinds)
            + look_up(self.directions[...], kinds) * values[..., None]
            + self.time(waves.astype(values.dtype))
        )
        return self.transformer.summarize(self.summary[...], tokens, mask, rngs)


def _check_series(**parts: Array) -> None:
    """Refuses arrays with different shapes or types that cannot be used."""
    shapes = {name: jnp.shape(part) for name, part in parts.items()}
    first = shapes["times"]
    if len(first) != 2 or set(shapes.values()) != {first}:
        raise ValueError(
            "times, variables, values and mask must have one shape, [examples, "
            f"measurements]; got {', '.join(map(str, shapes.values()))}."
        )
    kind = parts["variables"].dtype
    if not jnp.issubdtype(kind, jnp.integer):
        raise ValueError(
            f"variables must be integers, the kind of each measurement; got {kind}. "
            "Pass variables.astype(int) if the values are integers."
        )
    kind = parts["times"].dtype
    if jnp.issubdtype(kind, jnp.floating) and kind.itemsize < 4:
        raise ValueError(
            f"times must have 32 bits or more; got {kind}, which rounds hour 257 to "
            "256. Leave times in 32 bits when you cast values."
        )
