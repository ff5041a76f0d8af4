"""Modalities besides a table: irregular series, text, dense vectors."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int32, Shaped

from experiments.datasets.table import counted

PADDING, UNKNOWN = 0, 1
_TOO_LATE = "unknown to a prediction made at the landmark"


@dataclass(frozen=True, eq=False)
class Series:
    """Irregular measurements, a (time, variable, value) in each slot, oldest first.

    Attributes:
        times: `[n, t]` float32, years relative to the landmark, 0 or negative.
        variables: `[n, t]` int32, positions in `names`.
        values: `[n, t]` float32, in the source's units.
        mask: `[n, t]`, True where there is a measurement; other slots are padding, on
            the right, with time, variable and value 0.
        names: The variables.
    """

    times: Float32[np.ndarray, "n t"]
    variables: Int32[np.ndarray, "n t"]
    values: Float32[np.ndarray, "n t"]
    mask: Bool[np.ndarray, "n t"]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Text:
    """Each patient's words, in order; `tokenise` numbers the words in each split.

    Attributes:
        words: n tuples of lower-case words, empty where a patient has no text.
    """

    words: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Dense:
    """A vector for each patient.

    Attributes:
        values: `[n, d]` float32.
    """

    values: Float32[np.ndarray, "n d"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Numbered words.

    Attributes:
        tokens: `[n, t]` int32; 0 is padding, on the right, and 1 an unknown word.
        mask: `[n, t]`, True where there is a word.
        vocabulary: The words of the numbers 2, 3 and on.
    """

    tokens: Int32[np.ndarray, "n t"]
    mask: Bool[np.ndarray, "n t"]
    vocabulary: tuple[str, ...]


def series_from_rows(
    rows: pd.DataFrame,
    ids: Shaped[np.ndarray, " n"],
    *,
    variables: Sequence[str],
    max_length: int,
) -> tuple[Series, Mapping[str, int]]:
    """Returns padded series of measurements that come one in a row.

    The order of `rows` does not matter: a patient's measurements are sorted by time,
    then variable, then value. A patient with more than `max_length` measurements keeps
    the most recent ones.

    Args:
        rows: Columns `id`, `years` (relative to the landmark, 0 or negative),
            `variable` and `value`, one row for each measurement.
        ids: `[n]` patients, each once; a patient without a row has an empty series.
        variables: The names to number, in order.
        max_length: Largest number of measurements that a patient keeps.

    Returns:
        The series, `[n, t]` with t the longest series and at least 1, and the numbers
        of rows that were cut and of patients with such rows.

    Raises:
        ValueError: If an id or a variable is listed twice; a row is of an unknown
            patient or variable, has a time or a value that is not a number or not
            finite in float32, or is after the landmark; `max_length` is below 1.

    Example:
        >>> import numpy as np, pandas as pd
        >>> rows = pd.DataFrame({
        ...     "id": [7, 7, 7], "years": [-1.0, -3.0, 0.0],
        ...     "variable": ["hdl", "sbp", "hdl"], "value": [50.0, 120.0, 60.0]})
        >>> series, cut = series_from_rows(
        ...     rows, np.array([5, 7]), variables=("hdl", "sbp"), max_length=2)
        >>> series.values.tolist(), series.mask.tolist()
        ([[0.0, 0.0], [50.0, 60.0]], [[False, False], [True, True]])
        >>> cut
        {'measurements beyond the most recent 2': 1, 'patients with more than 2': 1}
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1; got {max_length}")
    if len(np.unique(ids)) != len(ids):
        raise ValueError("ids lists a patient twice")
    for name, number in Counter(variables).items():
        if number > 1:
            raise ValueError(f"variables lists {name!r} {number} times")
    patient = pd.Index(ids).get_indexer(pd.Index(rows["id"]))
    variable = pd.Index(variables).get_indexer(pd.Index(rows["variable"]))
    if (patient < 0).any():
        raise ValueError(
            f"{int((patient < 0).sum())} rows are of patients that ids does not list, "
            f"for example {rows['id'].to_numpy()[patient < 0][0]}"
        )
    if (variable < 0).any():
        raise ValueError(
            f"{int((variable < 0).sum())} rows measure something that variables does "
            f"not list, for example {rows['variable'].to_numpy()[variable < 0][0]!r}"
        )
    numbers = np.stack([_numbers(rows[name]) for name in ("years", "value")], axis=1)
    with np.errstate(over="ignore"):
        odd = (~np.isfinite(numbers.astype(np.float32))).any(axis=1)
    late = f"are after the landmark and {_TOO_LATE}; leave these rows out"
    for wrong, problem in (
        (odd, "have a time or a value that is not finite, or too large for float32"),
        (numbers[:, 0] > 0, late),
    ):
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} rows {problem}")
    order = np.lexsort((numbers[:, 1], variable, numbers[:, 0], patient))
    patient, variable, numbers = patient[order], variable[order], numbers[order]
    counts = np.bincount(patient, minlength=len(ids))
    kept_counts = np.minimum(counts, max_length)
    # The last slots of a patient are for the most recent measurements.
    after = np.cumsum(counts)[patient] - np.arange(len(patient))
    slot = kept_counts[patient] - after
    kept = slot >= 0
    shape = (len(ids), max(1, int(kept_counts.max(initial=0))))
    place = (patient[kept], slot[kept])
    times, values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    numbered, mask = np.zeros(shape, np.int32), np.zeros(shape, np.bool_)
    times[place], values[place] = numbers[kept].T
    numbered[place], mask[place] = variable[kept], True
    return Series(times, numbered, values, mask, tuple(variables)), {
        f"measurements beyond the most recent {max_length}": int((~kept).sum()),
        f"patients with more than {max_length}": int((counts > max_length).sum()),
    }


def _numbers(column: pd.Series) -> np.ndarray:
    """Returns the column in float64; refuses text, even if it looks like a number."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    odd = [entry for entry in column if not isinstance(entry, Real | None)]
    if odd:
        raise ValueError(
            f"column {column.name!r} must contain numbers; got {len(odd)} other "
            f"entries, for example {odd[0]!r}"
        )
    return column.to_numpy(np.float64, na_value=np.nan)


def standardise_series(series: Series, train_rows: np.ndarray) -> Series:
    """Returns the series with each variable centred and scaled by training rows.

    The mean and the standard deviation are over the measurements of the training
    rows. A variable that is constant in these rows is only centred, and a variable
    that is not measured there stays as it is.

    Args:
        series: `[n, t]`.
        train_rows: The training row numbers, or a mask `[n]`.

    Returns:
        The series with other `values`; padding stays 0.

    Example:
        >>> rows = pd.DataFrame({"id": [1, 2, 3], "years": 0.0, "variable": "hdl",
        ...                      "value": [40.0, 60.0, 90.0]})
        >>> series, _ = series_from_rows(
        ...     rows, np.array([1, 2, 3]), variables=("hdl",), max_length=1)
        >>> standardise_series(series, np.array([0, 1])).values.ravel().tolist()
        [-1.0, 1.0, 4.0]
    """
    means, deviations = np.zeros(len(series.names)), np.ones(len(series.names))
    measured = series.mask[train_rows]
    variables = series.variables[train_rows][measured]
    values = series.values[train_rows][measured].astype(np.float64)
    for index in range(len(series.names)):
        own = values[variables == index]
        if own.size:
            means[index], deviations[index] = own.mean(), own.std() or 1.0
    scaled = (series.values - means[series.variables]) / deviations[series.variables]
    return replace(series, values=np.where(series.mask, scaled, 0.0).astype(np.float32))


def tokenise(
    text: Text, train_rows: np.ndarray, *, max_words: int, max_length: int
) -> Tokens:
    """Returns numbered words, with a vocabulary of the training rows' words only.

    Args:
        text: Words of n patients.
        train_rows: The training row numbers, or a mask `[n]`.
        max_words: Size of the vocabulary: the most frequent words of the training
            rows, ties in alphabetical order.
        max_length: Number of first words that a patient keeps.

    Returns:
        Tokens `[n, max_length]`.

    Raises:
        ValueError: If `max_words` or `max_length` is below 1, or no training row has
            a word.

    Example:
        >>> text = Text((("chest", "pain"), ("chest",), ("fever", "chest")))
        >>> tokens = tokenise(text, np.array([0, 1]), max_words=9, max_length=2)
        >>> tokens.vocabulary, tokens.tokens.tolist()
        (('chest', 'pain'), [[2, 3], [2, 0], [1, 2]])
    """
    if max_words < 1 or max_length < 1:
        raise ValueError(
            "max_words and max_length must be at least 1; "
            f"got {max_words} and {max_length}"
        )
    count = Counter(
        word
        for row in np.arange(len(text.words))[train_rows]
        for word in text.words[row]
    )
    if not count:
        raise ValueError("no training row has a word to make a vocabulary of")
    ranked = sorted(count, key=lambda word: (-count[word], word))[:max_words]
    number = {word: index for index, word in enumerate(ranked, start=UNKNOWN + 1)}
    tokens = np.full((len(text.words), max_length), PADDING, np.int32)
    for row, words in enumerate(text.words):
        own = [number.get(word, UNKNOWN) for word in words[:max_length]]
        tokens[row, : len(own)] = own
    return Tokens(tokens, tokens != PADDING, tuple(ranked))


def series_problems(series: Series) -> Iterator[str]:
    """Yields the problems of a `Series`; only the first is sure to make sense."""
    mask, times, shape = series.mask, series.times, series.mask.shape
    if len(shape) != 2 or mask.dtype != np.bool_:
        found = f"{mask.dtype} of shape {shape}"
        yield f"mask must be boolean, [patients, slots]; got {found}"
    if not np.issubdtype(series.variables.dtype, np.integer):
        yield f"variables must be integers; got {series.variables.dtype}"
    for part in ("times", "variables", "values"):
        own = getattr(series, part).shape
        if own != shape:
            yield f"{part} has shape {own} but mask {shape}"
    padded = (~mask[:, :-1] & mask[:, 1:]).any(axis=1)
    if padded.any():
        yield (
            "padding must be on the right; the first patient row with a measurement "
            f"after padding is {int(padded.argmax())}"
        )
    for part in ("times", "values"):
        odd = mask & ~np.isfinite(getattr(series, part))
        yield from counted(f"{part} has", odd, "entries that are not finite")
    number = len(series.names)
    outside = mask & ~np.isin(series.variables, range(number))
    names = f"one of the {number} names' positions"
    yield from counted("", outside, f"entries of variables are not {names}")
    late = f"measurements are after the landmark (times above 0) and {_TOO_LATE}"
    yield from counted("", mask & (times > 0), late)
    unsorted = (mask[:, 1:] & (np.diff(times, axis=1) < 0)).any(axis=1)
    if unsorted.any():
        yield (
            "times must be in order, oldest first; the first patient row out of order "
            f"is {int(unsorted.argmax())}"
        )


def num_patients(modality: Series | Text | Dense) -> int:
    """Returns the number of patients for whom a modality has a row."""
    if isinstance(modality, Text):
        return len(modality.words)
    return len(modality.mask if isinstance(modality, Series) else modality.values)


def recorded(modality: Series | Text | Dense) -> Bool[np.ndarray, " n"]:
    """Returns which patients `[n]` have a measurement, a word or a finite vector."""
    if isinstance(modality, Series):
        return np.asarray(modality.mask.any(axis=1))
    if isinstance(modality, Text):
        return np.array([bool(words) for words in modality.words], dtype=np.bool_)
    return np.asarray(np.isfinite(modality.values).all(axis=1))
