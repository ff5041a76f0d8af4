"""Each lane's modalities as a model reads them, prepared from its own training rows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.core.protocol import CrossValidation
from experiments.datasets import modalities
from experiments.datasets.modalities import Series, Text
from experiments.datasets.multimodal import STATIC, MultimodalTable

MAX_WORDS, MAX_TEXT = 400, 24


class Prepared(NamedTuple):
    """The arguments of the modalities' encoders.

    Attributes:
      own: Modality -> argument -> ``[L, n, ...]``, of each lane.
      common: Modality -> argument -> ``[n, ...]``, which all lanes share.
    """

    own: dict[str, dict[str, np.ndarray]]
    common: dict[str, dict[str, np.ndarray]]


def prepared(data: MultimodalTable, splits: CrossValidation) -> Prepared:
    """Standardised, numbered, with nothing of rows that a lane does not train on."""
    own: dict[str, dict[str, np.ndarray]] = {STATIC: {"inputs": splits.inputs}}
    common: dict[str, dict[str, np.ndarray]] = {}
    for place, (name, content) in enumerate(data.modalities.items(), start=1):
        # What an absent modality holds means nothing.
        trains = [
            splits.rows(lane, "train") & data.present[:, place]
            for lane in range(splits.num_lanes)
        ]
        if isinstance(content, Series):
            values = [
                modalities.standardise_series(content, rows).values for rows in trains
            ]
            own[name] = {"values": np.stack(values)}
            common[name] = {
                # In months, for the encoder's frequencies.
                "times": 12 * content.times,
                "variables": content.variables,
                "mask": content.mask,
            }
        elif isinstance(content, Text):
            numbered = [
                modalities.tokenise(
                    content, rows, max_words=MAX_WORDS, max_length=MAX_TEXT
                )
                for rows in trains
            ]
            own[name] = {
                "tokens": np.stack([found.tokens for found in numbered]),
                "mask": np.stack([found.mask for found in numbered]),
            }
        else:
            own[name], common[name] = {}, {"inputs": content.values}
    return Prepared(own, common)


def summaries(data: MultimodalTable, found: Prepared) -> np.ndarray:
    """All modalities as columns ``[L, n, d]``, for models that read one row a patient.

    Of a series each variable's mean, its last value and its number of measurements; of
    a text which of the words it has; of each modality whether the patient has it.
    """
    static = found.own[STATIC]["inputs"]
    lanes, parts = len(static), [static]
    for place, (name, content) in enumerate(data.modalities.items(), start=1):
        own, common = found.own[name], found.common.get(name, {})
        there = data.present[:, place].astype(np.float32)
        if isinstance(content, Series):
            number = len(content.names)
            columns = np.stack([_of_series(v, common, number) for v in own["values"]])
        elif isinstance(content, Text):
            words = np.zeros((lanes, len(there), MAX_WORDS + 2), np.float32)
            lane, row = np.ogrid[:lanes, : len(there)]
            words[lane[..., None], row[..., None], own["tokens"]] = 1
            columns = words[..., 2:]
        else:
            values = common["inputs"]
            columns = np.broadcast_to(values, (lanes, *values.shape))
        parts.append(np.where(there[:, None] > 0, columns, 0))
        parts.append(np.broadcast_to(there[:, None], (lanes, len(there), 1)))
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def _of_series(
    values: np.ndarray, common: Mapping[str, Any], number: int
) -> np.ndarray:
    """``[n, 3 V]``: of each variable the mean, the last value, the logged count."""
    means, lasts, counts = (np.zeros((len(values), number)) for _ in range(3))
    rows = np.arange(len(values))
    for slot in range(values.shape[1]):
        measured = common["mask"][:, slot]
        place = rows[measured], common["variables"][measured, slot]
        counts[place] += 1
        means[place] += values[measured, slot]
        lasts[place] = values[measured, slot]
    means /= np.maximum(counts, 1)
    return np.concatenate([means, lasts, np.log1p(counts)], axis=1)
