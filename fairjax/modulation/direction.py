"""The direction term: the fused loss's gradient turned towards the modalities'."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax.modulation._arguments import check_outcomes, known_values
from fairjax.types import gathered

_SMALL = 1e-8


def last_layer_gradient(
    inputs: Float[Array, "n D"],
    logits: Array,
    labels: Array,
    *,
    weights: Array | None = None,
) -> Array:
    r"""The cross-entropy's gradient for the weights of a head's last linear layer.

    :math:`X^\top (w \odot (p - y)) / \sum_i w_i`, with :math:`p` the probabilities of
    the logits: in closed form, so that it can be differentiated again at the cost of
    one more derivative of the head's last layer, not of the model.

    Args:
      inputs: ``[n, D]``, what enters the layer.
      logits: ``[n]`` of a sigmoid, or ``[n, C]`` of a softmax.
      labels: ``[n]``. Of a sigmoid, 0 or 1, and rows of another label are padding: they
        count for nothing, whatever their weight. Of a softmax, the class, 0 to C − 1.
      weights: ``[n]``, those of the loss, 0 or False for rows that do not count; such
        a row may hold anything. None: all that are not padding count equally.

    Returns:
      ``[D]`` or ``[D, C]``; zero where no row counts.

    Raises:
      ValueError: Logits of a single column; shapes that do not fit; where they are
        not traced, outcomes of a sigmoid coded as 1 and −1 or as 1 and 2, and classes
        of a softmax that there are not, in rows that count.

    References:
      Guo et al., *Classifier-guided Gradient Modulation for Enhanced Multimodal
      Learning*, NeurIPS 2024 (gradients of heads compared).

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> inputs, labels = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1, 0])
      >>> modulation.last_layer_gradient(inputs, jnp.zeros(2), labels)
      Array([-0.25,  0.5 ], dtype=float32)
    """
    rows = inputs.shape[0]
    if logits.ndim not in (1, 2) or logits.shape[0] != rows or logits.shape[1:] == (1,):
        raise ValueError(
            f"logits have shape {logits.shape}; a sigmoid's [{rows}], or those of two "
            f"classes or more, [{rows}, C], are needed."
        )
    for name, given in (("labels", labels), ("weights", weights)):
        if given is not None and jnp.shape(given) != (rows,):
            raise ValueError(
                f"{name} has shape {jnp.shape(given)}; there are {rows} rows of inputs."
            )
    wide = (-1,) + (1,) * (logits.ndim - 1)
    if logits.ndim == 1:
        check_outcomes(labels)
    else:
        _check_classes(labels, weights, logits.shape[1])
    labels = jnp.asarray(labels)
    if logits.ndim == 1:
        labelled = (labels == 0) | (labels == 1)
        weights = jnp.where(labelled, 1.0 if weights is None else weights, 0.0)
    if weights is not None:
        # Selected before anything is computed, so that no derivative is NaN either.
        counted = weights != 0
        inputs = jnp.where(counted[:, None], inputs, 0.0)
        logits = jnp.where(counted.reshape(wide), logits, 0.0)
    if logits.ndim == 1:
        residual = jax.nn.sigmoid(logits) - (labels == 1)
    else:
        residual = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])
    inputs, residual = gathered(inputs), gathered(residual)
    if weights is None:
        return inputs.T @ residual / rows
    mass = gathered(weights).astype(residual.dtype)
    total = jnp.sum(mass)
    return inputs.T @ (mass.reshape(wide) * residual) / jnp.where(total > 0, total, 1)


def _check_classes(labels: Any, weights: Any, num_classes: int) -> None:
    """Refuses classes that there are not, whose rows would pull to no class."""
    values = known_values(labels)
    counted = np.ones(1) if weights is None else known_values(weights)
    if values is None or counted is None:
        return
    strange = ~np.isin(values, np.arange(num_classes)) & (counted != 0)
    if strange.any():
        raise ValueError(
            f"labels are classes from 0 to {num_classes - 1}, not "
            f"{values[strange][0]!r}: give rows that do not count a weight of 0."
        )


def direction_loss(
    fused: Array, unimodal: Array, balance: Float[Array, " M"]
) -> Float[Array, ""]:
    r"""MultiFair's :math:`L_{gm}`: how far the fused gradient is from the modalities'.

    :math:`\frac1M \left[\sum_m |B_m| - \sum_m B_m \cos(\nabla L, \nabla L_m)\right]`,
    with :math:`\nabla L` the fused loss's and :math:`\nabla L_m` a unimodal loss's
    gradient, both of the last layers of their heads. The modalities' gradients and
    the balance are what is aimed at: nothing is differentiated through them.

    Args:
      fused: ``[*layer]``.
      unimodal: ``[M, *layer]``.
      balance: ``[M]``.

    Returns:
      From 0, where all are aligned, to :math:`\frac2M \sum_m |B_m|`.

    Raises:
      ValueError: Layers of different shapes, between which there is no angle; a
        balance that is not of the modalities.

    References:
      Guo et al., *Classifier-guided Gradient Modulation for Enhanced Multimodal
      Learning*, NeurIPS 2024; Zubair et al., *MultiFair*, arXiv:2510.07328, 2025.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import modulation
      >>> unimodal = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> balance = jnp.array([0.5, 0.5])
      >>> print(modulation.direction_loss(jnp.array([1.0, 0.0]), unimodal, balance))
      0.25
    """
    if unimodal.shape[1:] != fused.shape:
        raise ValueError(
            f"the fused head's last layer has a gradient of shape {fused.shape}, the "
            f"modalities' heads {unimodal.shape[1:]}: give the heads the same width."
        )
    modalities = unimodal.shape[0]
    if balance.shape != (modalities,):
        raise ValueError(
            f"balance has shape {balance.shape}; there are {modalities} modalities."
        )
    unimodal = jax.lax.stop_gradient(unimodal.reshape(modalities, -1))
    balance = jax.lax.stop_gradient(balance)
    flat = fused.reshape(-1)
    # Squares of small gradients, and the smallest norm, are 0 in 16 bits.
    kind = jnp.promote_types(jnp.result_type(flat, unimodal, balance), jnp.float32)
    flat, unimodal, balance = (x.astype(kind) for x in (flat, unimodal, balance))
    products = jnp.sum(unimodal * flat, axis=1)
    # The square root of a sum that may be zero has no derivative there.
    norms = jnp.sqrt(jnp.sum(flat**2) + _SMALL**2)
    norms *= jnp.sqrt(jnp.sum(unimodal**2, axis=1) + _SMALL**2)
    cosines = products / norms
    return (jnp.sum(jnp.abs(balance)) - jnp.sum(balance * cosines)) / modalities
