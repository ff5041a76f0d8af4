"""Each lane's inputs of a model, prepared with statistics of the training rows."""

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
      own: Modality -> argument -> ``[L, n, ...]``, which differ by lane.
      common: Modality -> argument -> ``[n, ...]``, which all lanes share.
    """

    own: dict[str, dict[str, np.ndarray]]
    common: dict[str, dict[str, np.ndarray]]


def prepared(data: MultimodalTable, splits: CrossValidation) -> Prepared:
    """Standardises and tokenises modalities, from each lane's training rows only."""
    own: dict[str, dict[str, np.ndarray]] = {STATIC: {"inputs": splits.inputs}}
    common: dict[str, dict[str, np.ndarray]] = {}
    for place, (name, content) in enumerate(data.modalities.items(), start=1):
        # Rows without the modality hold meaningless values.
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
    """Makes columns ``[L, n, d]`` of all modalities, with one row for each patient.

    A series gives each variable's mean, last value and number of measurements. A text
    gives which words it contains. Each modality also gives whether it is present.
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
    """Returns each variable's mean, last value and logarithm of the count, [n, 3 V]."""
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
