"""MultiFair's direction term, which aligns the fused gradient with the modalities'."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fairjax.modulation._arguments import check_outcomes, check_shape, known_values
from fairjax.types import gathered

_SMALL = 1e-8


def last_layer_gradient(
    inputs: Float[Array, "n D"],
    logits: Array,
    labels: Array,
    *,
    weights: Array | None = None,
) -> Array:
    r"""Computes the cross-entropy's gradient for the weights of a last linear layer.

    The gradient is :math:`X^\top (w \odot (p - y)) / \sum_i w_i`, with :math:`p` the
    probabilities of the logits. It is in closed form, so a second derivative costs one
    more derivative of the head's last layer, not of the model.

    Args:
      inputs: ``[n, D]``, the inputs of the layer.
      logits: ``[n]`` of a sigmoid, or ``[n, C]`` of a softmax.
      labels: ``[n]``. For a sigmoid, 0 or 1; rows with another label are padding, and
        are ignored whatever their weight. For a softmax, the class, 0 to C − 1.
      weights: ``[n]``, the weights of the loss, 0 or False for rows that do not count;
        such a row may hold anything. None: all rows but padding count equally.

    Returns:
      ``[D]`` or ``[D, C]``; zero where no row counts.

    Raises:
      ValueError: If the logits have a single column or shapes do not fit. Where values
        are not traced, also if labels of a sigmoid are 1 and −1 or 1 and 2. Likewise if
        rows that count have labels that are not classes of the softmax.

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
            f"logits must have shape [{rows}] for a sigmoid, or [{rows}, C] for a "
            f"softmax of two classes or more; got shape {logits.shape}."
        )
    for name, given in (("labels", labels), ("weights", weights)):
        if given is not None:
            check_shape(name, given, (rows,), "one for each row of inputs")
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
        # Masked before anything is computed, so that no derivative is NaN either.
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
    """Refuses labels outside 0 .. C − 1, whose rows would have no true class."""
    values = known_values(labels)
    counted = np.ones(1) if weights is None else known_values(weights)
    if values is None or counted is None:
        return
    strange = ~np.isin(values, np.arange(num_classes)) & (counted != 0)
    if strange.any():
        raise ValueError(
            f"labels must be classes from 0 to {num_classes - 1}; got "
            f"{values[strange][0]!r}. Give rows that do not count a weight of 0."
        )


def direction_loss(
    fused: Array, unimodal: Array, balance: Float[Array, " M"]
) -> Float[Array, ""]:
    r"""Computes MultiFair's :math:`L_{gm}`, the misalignment of the fused gradient.

    The loss is :math:`\frac1M \left[\sum_m |B_m| - \sum_m B_m \cos(\nabla L,
    \nabla L_m)\right]`. Here :math:`\nabla L` is the fused loss's and
    :math:`\nabla L_m` a unimodal loss's gradient, both for the last layers of their
    heads. The modalities' gradients and the balance are targets, and no derivative
    passes through them.

    Args:
      fused: ``[*layer]``, the fused loss's gradient.
      unimodal: ``[M, *layer]``, the unimodal losses' gradients.
      balance: ``[M]``, the modalities' balance :math:`B_m`.

    Returns:
      A scalar from 0, where all are aligned, to :math:`\frac2M \sum_m |B_m|`.

    Raises:
      ValueError: If the layers have different shapes, between which no angle is
        defined, or ``balance`` does not have one number for each modality.

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
            "the last layers of the fused head and of the modalities' heads must have "
            f"gradients of one shape; got {fused.shape} and {unimodal.shape[1:]}. Give "
            "the heads the same width."
        )
    modalities = unimodal.shape[0]
    check_shape("balance", balance, (modalities,), "a number for each modality")
    unimodal = jax.lax.stop_gradient(unimodal.reshape(modalities, -1))
    balance = jax.lax.stop_gradient(balance)
    flat = fused.reshape(-1)
    # In 16 bits, squares of small gradients and the smallest norm would be 0.
    kind = jnp.promote_types(jnp.result_type(flat, unimodal, balance), jnp.float32)
    flat, unimodal, balance = (x.astype(kind) for x in (flat, unimodal, balance))
    products = jnp.sum(unimodal * flat, axis=1)
    # The square root has no derivative at zero, which the sum may be.
    norms = jnp.sqrt(jnp.sum(flat**2) + _SMALL**2)
    norms *= jnp.sqrt(jnp.sum(unimodal**2, axis=1) + _SMALL**2)
    cosines = products / norms
    return (jnp.sum(jnp.abs(balance)) - jnp.sum(balance * cosines)) / modalities
