"""A classifier of patients from several modalities, some of which may be absent."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Unpack, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from fairjax.models._layers import Dropout, LayerOptions, keep, learned
from fairjax.models.transformer import Transformer
from fairjax.types import check_choice, check_whole

Pool = Literal["mean", "first"]


class MultimodalOutputs(NamedTuple):
    """Outputs of a :class:`MultimodalClassifier` for B patients.

    Attributes:
      logits: ``[B, C]``, from all modalities that are present.
      unimodal_logits: ``[B, M, C]``, each auxiliary head's logits from one modality;
        meaningless where the modality is absent. They are detached from the encoders: a
        loss of these logits trains only the heads.
      attached_unimodal_logits: ``[B, M, C]``, equal values that are not detached: a
        loss of these logits trains encoders and heads.
      last_inputs: ``[B, D]``, the inputs of the classifier's last linear layer.
      unimodal_last_inputs: ``[B, M, D]``, the inputs of each auxiliary head's last
        linear layer.
    """

    logits: Float[Array, "B C"]
    unimodal_logits: Float[Array, "B M C"]
    attached_unimodal_logits: Float[Array, "B M C"]
    last_inputs: Float[Array, "B D"]
    unimodal_last_inputs: Float[Array, "B M D"]


class MultimodalClassifier(nnx.Module):
    r"""A classifier that fuses one token from each modality's encoder by a transformer.

    .. math::
        h_m &= \mathrm{LayerNorm}(W_m\,\mathrm{encoder}_m(x_m) + b_m) \\
        z &= \mathrm{pool}(\mathrm{Transformer}(h_1 + e_1, \dots, h_M + e_M)) \\
        \text{logits} &= \mathrm{classifier}(z), \quad
        \text{unimodal logits}_m = \mathrm{auxiliary}_m(h_m).

    The transformer attends to the modalities that are present. The parameters of
    modality ``m`` are under ``encoders``, ``projections`` and ``auxiliary``, by the
    modality's name. Shared parameters are under ``fusion``, ``embeddings`` and
    ``classifier``. The last layers ``classifier.last`` and ``auxiliary[m].last`` have
    the same shape, so that their gradients can be compared.

    Attributes:
      modalities: Names of the modalities, in the order of the encoders, of the columns
        of ``present`` and of the axis M of the outputs.

    References:
      The order of the parts follows MultiFair's released model, in which all modalities
      are present and ``pool`` is ``"first"``.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import MultimodalClassifier, TabularEncoder, TextEncoder
      >>> rngs = nnx.Rngs(0)
      >>> encoders = {
      ...     "labs": TabularEncoder(3, 8, 1, num_heads=2, rngs=rngs),
      ...     "notes": TextEncoder(50, 8, 1, num_heads=2, max_length=4, rngs=rngs),
      ... }
      >>> widths = {"labs": 8, "notes": 8}
      >>> model = MultimodalClassifier(
      ...     encoders, widths, width=8, depth=1, num_heads=2, rngs=rngs
      ... )
      >>> inputs = {
      ...     "labs": (jnp.ones((5, 3)),),
      ...     "notes": {"tokens": jnp.zeros((5, 4), int)},
      ... }
      >>> present = jnp.asarray([[True, True]] * 4 + [[True, False]])
      >>> outputs = nnx.jit(model)(inputs, present)
      >>> outputs.logits.shape, outputs.unimodal_logits.shape
      ((5, 1), (5, 2, 1))
    """

    def __init__(
        self,
        encoders: Mapping[str, nnx.Module],
        widths: Mapping[str, int],
        *,
        width: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        num_outputs: int = 1,
        dropout: float = 0.1,
        pool: Pool = "mean",
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes all parts but the encoders.

        Args:
          encoders: Modality -> encoder, which maps the modality's inputs to
            ``[B, width of the modality]``. An encoder must return finite numbers for
            inputs of zeros, and take ``rngs`` if the classifier is called with
            ``rngs``.
          widths: Modality -> number of features that its encoder returns.
          width: Features of a modality's token and inputs of the last layers, D.
          depth: Number of blocks of the transformer over modalities.
          num_heads: Number of attention heads; divides ``width``.
          num_outputs: Number of logits of a patient, C.
          dropout: Fraction of units that is dropped where a call has ``rngs``.
          pool: ``"mean"`` of the tokens of the modalities that are present, or the
            ``"first"`` token of a present modality.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of all parts but the encoders, as Flax
            has them.

        Raises:
          ValueError: If ``encoders`` is empty, ``widths`` has other modalities, a name
            cannot be used, or ``pool`` is unknown. Also if a size is not an integer
            above 0, or the heads do not divide the width.
        """
        names = tuple(encoders)
        _check_names(names, widths)
        check_whole("num_outputs", num_outputs)
        check_choice("pool", pool, *get_args(Pool))
        self.encoders = nnx.Dict(encoders)
        self.projections = nnx.Dict(
            {
                name: _Projection(widths[name], width, dropout, rngs, **layers)
                for name in names
            }
        )
        self.embeddings = learned(rngs, len(names), width, **layers)
        self.fusion = Transformer(
            width, depth, num_heads, dropout=dropout, rngs=rngs, **layers
        )
        self.classifier = _Head(width, num_outputs, dropout, rngs, fused=True, **layers)
        self.auxiliary = nnx.Dict(
            {name: _Head(width, num_outputs, dropout, rngs, **layers) for name in names}
        )
        self.modalities = names
        self.widths = tuple(widths[name] for name in names)
        self.pool = pool

    def __call__(
        self,
        inputs: Mapping[str, Any],
        present: Bool[Array, "B M"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> MultimodalOutputs:
        """Computes the patients' logits from all modalities and from each modality.

        Args:
          inputs: Modality -> the arguments of its encoder, as a tuple or by name; the
            leading axis of each array is the patient.
          present: ``[B, M]``, False, or 0, where a patient lacks a modality; the inputs
            there are not read and may be NaN. None: all patients have all modalities.
            All patients without any modality have the same learned logits.
          rngs: Keys for dropout, in the encoders too; None drops nothing.

        Returns:
          The outputs.

        Raises:
          ValueError: If a modality is missing or unknown, ``present`` has another
            shape, or the inputs have unequal lengths or are not in a tuple or mapping.
            Also if an encoder does not return the number of features in ``widths``.
        """
        self._check(inputs, present)
        if present is not None:
            present = jnp.asarray(present).astype(bool)
        tokens = _side_by_side(
            self._project(name, inputs, present, rngs) for name in self.modalities
        )
        last_inputs, logits = self.classifier(self._fuse(tokens, present, rngs), rngs)
        # With one key both calls drop the same units, so their logits are equal.
        key = None if rngs is None else rngs.dropout()
        unimodal_last_inputs, unimodal_logits = self._alone(
            jax.lax.stop_gradient(tokens), key
        )
        _, attached_unimodal_logits = self._alone(tokens, key)
        return MultimodalOutputs(
            logits,
            unimodal_logits,
            attached_unimodal_logits,
            last_inputs,
            unimodal_last_inputs,
        )

    def _alone(self, tokens: Array, key: Array | None) -> tuple[Array, Array]:
        """Computes the inputs of the auxiliary heads' last layers, and their logits."""
        rngs = None if key is None else nnx.Rngs(dropout=key)
        heads = [
            self.auxiliary[name](tokens[:, m], rngs)
            for m, name in enumerate(self.modalities)
        ]
        last_inputs, logits = zip(*heads, strict=True)
        return _side_by_side(last_inputs), _side_by_side(logits)

    def _project(
        self,
        name: str,
        inputs: Mapping[str, Any],
        present: Array | None,
        rngs: nnx.Rngs | None,
    ) -> Array:
        column = self.modalities.index(name)
        kept = keep(None if present is None else present[:, column])
        given = jax.tree.map(kept, inputs[name])
        keys = {} if rngs is None else {"rngs": rngs}
        encoder: Any = self.encoders[name]
        # A mapping passes the inputs by name, a tuple by position.
        unnamed, named = ((), given) if isinstance(given, Mapping) else (given, {})
        features = encoder(*unnamed, **named, **keys)
        if features.shape[1:] != (self.widths[column],):
            raise ValueError(
                f"the encoder of {name!r} must return [B, {self.widths[column]}], as "
                f"widths says; got shape {features.shape}."
            )
        return kept(self.projections[name](features, rngs))

    def _fuse(
        self, tokens: Array, present: Array | None, rngs: nnx.Rngs | None
    ) -> Array:
        placed = tokens + self.embeddings[...]
        if present is None:
            fused = self.fusion(placed, rngs=rngs)
            return fused.mean(1) if self.pool == "mean" else fused[:, 0]
        # A patient who lacks all modalities is represented by the embeddings alone.
        mask = present | ~present.any(axis=1, keepdims=True)
        fused = self.fusion(placed, mask, rngs)
        if self.pool == "mean":
            return fused.sum(1) / mask.sum(1, keepdims=True).astype(fused.dtype)
        first = mask & (jnp.cumsum(mask, axis=1) == 1)
        return keep(first)(fused).sum(1)

    def _check(self, inputs: Mapping[str, Any], present: Array | None) -> None:
        if set(inputs) != set(self.modalities):
            raise ValueError(
                "inputs must have the model's modalities "
                f"{', '.join(map(repr, self.modalities))}; got "
                f"{', '.join(map(repr, inputs))}. Pass zeros for a modality that "
                "patients lack, and False in present."
            )
        for name, arrays in inputs.items():
            if not isinstance(arrays, tuple | Mapping):
                raise ValueError(
                    f"the inputs of {name!r} must be a tuple or dict of the encoder's "
                    f"arguments; got {type(arrays).__name__}."
                )
        lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(dict(inputs))}
        if len(lengths) != 1 or () in lengths:
            raise ValueError(
                "the leading axis of all inputs is the patient, and must have one "
                f"length; got {sorted(lengths)}."
            )
        expected = (*lengths.pop(), len(self.modalities))
        if present is not None and jnp.shape(present) != expected:
            raise ValueError(
                f"present must have shape {expected}, a column for each modality; "
                f"got {jnp.shape(present)}."
            )


class _Projection(nnx.Module):
    """The layers from an encoder's features to a token."""

    def __init__(
        self,
        num_inputs: int,
        width: int,
        dropout: float,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        self.linear = nnx.Linear(num_inputs, width, rngs=rngs, **layers)
        self.norm = nnx.LayerNorm(width, rngs=rngs, **layers)
        self.dropout = Dropout(dropout)

    def __call__(self, features: Array, rngs: nnx.Rngs | None) -> Array:
        return self.dropout(self.norm(self.linear(features)), rngs)


class _Head(nnx.Module):
    """The layers from a token to the last layer's inputs, and to logits."""

    def __init__(
        self,
        width: int,
        num_outputs: int,
        dropout: float,
        rngs: nnx.Rngs,
        *,
        fused: bool = False,
        **layers: Unpack[LayerOptions],
    ):
        self.hidden = nnx.Linear(width, width, rngs=rngs, **layers)
        self.norm = nnx.LayerNorm(width, rngs=rngs, **layers) if fused else None
        self.dropout = Dropout(dropout)
        self.last = nnx.Linear(width, num_outputs, rngs=rngs, **layers)

    def __call__(self, token: Array, rngs: nnx.Rngs | None) -> tuple[Array, Array]:
        hidden, norm = self.hidden(token), self.norm
        hidden = jax.nn.relu(hidden) if norm is None else jax.nn.gelu(norm(hidden))
        hidden = self.dropout(hidden, rngs)
        return hidden, self.last(hidden)


def _side_by_side(rows: Iterable[Array]) -> Array:
    """Stacks ``[B, width]`` of each modality as ``[B, M, width]``."""
    return jnp.stack(list(rows), axis=1)


def _check_names(names: tuple[str, ...], widths: Mapping[str, int]) -> None:
    if not names:
        raise ValueError("encoders must have at least one modality; got none.")
    if set(names) != set(widths):
        raise ValueError(
            "encoders and widths must have the same modalities; got encoders of "
            f"{', '.join(map(repr, names))}, and widths of "
            f"{', '.join(map(repr, widths)) or 'none'}."
        )
    for name in names:
        check_whole(f"the width of {name!r}", widths[name])
        if hasattr(nnx.Dict, name):
            raise ValueError(
                f"a modality must not have the name of a method; got {name!r}."
            )
