"""Tables of intersections, and their distribution when values are shuffled.

A table has an axis for each attribute. An intersection fixes the categories of some
attributes and sums over the other attributes, so one table gives all intersections. The
values of a shuffle are tabulated in the same way. With few distinct values, as for a
rate or for patients' numbers of hits, the table is drawn from its distribution.
Otherwise the values are permuted by sorting or by random shifts.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Limits a table of the cells to a few megabytes, and detects unbinned numbers.
_MAX_CELLS = 2**20
# Numbers held at a time while shuffling.
_CHUNK = 2**18
# Statistics that are equal in exact arithmetic may differ in the last bits.
_TIE = 1e-4
# Up to this many units are shuffled by sorting, more by shifts within blocks.
_SORTED = 2**11
_LONGEST_BLOCK = 2**12


def cells_of(attributes: np.ndarray, num_levels: tuple[int, ...]) -> np.ndarray:
    """Returns each row's cell of the full cross, in row-major order; -1 for none."""
    if not num_levels or len(num_levels) != attributes.shape[0]:
        raise ValueError(
            f"num_levels must have one number for each of the {attributes.shape[0]} "
            f"attributes; got {len(num_levels)}."
        )
    if min(num_levels) < 1:
        raise ValueError(f"num_levels must be at least 1; got {min(num_levels)}.")
    if math.prod(num_levels) > _MAX_CELLS:
        raise ValueError(
            f"The cross of the attributes must have at most {_MAX_CELLS:,} cells; got "
            f"{math.prod(num_levels):,}. Merge categories or leave out attributes."
        )
    cells = np.zeros(attributes.shape[1], np.int32)
    placed = np.ones(attributes.shape[1], bool)
    for number, (codes, levels) in enumerate(zip(attributes, num_levels, strict=True)):
        outside = (codes < -1) | (codes >= levels)
        if outside.any():
            raise ValueError(
                f"attributes[{number}] must lie in 0 .. {levels - 1}, or be -1; got "
                f"{outside.sum()} rows with other ids, such as {codes[outside][0]}."
            )
        cells = cells * levels + codes.astype(np.int32)
        placed &= codes >= 0
    return np.where(placed, cells, -1)


def totals_of_patients(
    values: np.ndarray,
    strata: np.ndarray,
    cells: np.ndarray,
    inside: np.ndarray,
    patients: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each patient's total value, stratum by number of rows, and cell."""
    if patients.shape != values.shape or (patients < 0).any():
        raise ValueError(
            f"patients must be {values.shape[0]} codes of at least 0; got shape "
            f"{patients.shape}, with {(patients < 0).sum()} negative codes."
        )
    codes = np.unique(patients[inside], return_inverse=True)[1]
    num = int(codes.max(initial=-1)) + 1
    cell = np.zeros(num, np.int32)
    cell[codes] = cells[inside]
    varying = np.unique(codes[cell[codes] != cells[inside]])
    if varying.size:
        raise ValueError(
            "A patient's rows must have equal attributes, because whole patients are "
            f"shuffled; got {varying.size} patients with rows that differ. Give every "
            "row its patient's value at one time, such as the first, or leave the "
            "attribute out."
        )
    num_strata = int(strata.max(initial=0)) + 1
    profile = np.bincount(
        codes * num_strata + strata[inside], minlength=num * num_strata
    )
    profile = profile.reshape(num, num_strata)
    total = np.bincount(codes, values[inside], minlength=num)
    stratum = np.unique(profile, axis=0, return_inverse=True)[1].reshape(-1)
    return total, stratum.astype(np.int32), cell


def centre(values: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each unit's residual from its stratum's mean, and the variance there."""
    count = np.bincount(strata)
    mean = np.bincount(strata, values) / np.maximum(count, 1)
    residuals = values - mean[strata]
    # Residuals within the rounding error of the mean count as 0.
    largest = np.zeros(count.size)
    np.maximum.at(largest, strata, np.abs(values))
    rounding = np.finfo(float).eps * (count + 1) * largest
    residuals = np.where(np.abs(residuals) <= rounding[strata], 0, residuals)
    squares = np.bincount(strata, residuals**2)
    return residuals, (squares / np.maximum(count - 1, 1))[strata]


def marginals(
    table: Any, max_depth: int, *, several: bool = False
) -> dict[tuple[int, ...], Any]:
    """Sums a table, with an axis for each attribute, to each set of few attributes.

    NumPy arrays give NumPy arrays, JAX arrays JAX arrays. A last axis of ``several``
    tables is kept.

    The recursion keeps or sums out one attribute after another, so that sets share the
    sums over the attributes that all of them omit.
    """
    sums = {}

    def decide(table: Any, kept: tuple[int, ...], axis: int) -> None:
        depth = len(kept)
        left = table.ndim - several
        if left == depth:
            sums[kept] = table
        elif depth == max_depth:
            sums[kept] = table.sum(axis=tuple(range(depth, left)))
        else:
            decide(table, (*kept, axis), axis + 1)
            decide(table.sum(axis=depth), kept, axis + 1)

    decide(table, (), 0)
    return {kept: sums[kept] for kept in sorted(sums, key=lambda k: (len(k), k))}


def flat(tables: dict[tuple[int, ...], Any], join: Any = np.concatenate) -> Any:
    """Joins all intersections into one row, or into one column for each table.

    The whole table is omitted. ``join`` is the concatenation of the tables' library.
    """
    parts = {kept: part for kept, part in tables.items() if kept}
    return join([p.reshape(-1, *p.shape[len(kept) :]) for kept, p in parts.items()])


def eligible_for(support: np.ndarray, max_depth: int, min_support: int) -> np.ndarray:
    """Returns which intersections have support, and differ from all wider ones."""
    tables = marginals(support, max_depth)
    kept = {}
    for attributes, inner in tables.items():
        fits = (inner >= min_support) & (tables[()] - inner >= min_support)
        for axis in range(len(attributes)):
            wider = tables[attributes[:axis] + attributes[axis + 1 :]]
            fits &= inner != np.expand_dims(wider, axis)
        kept[attributes] = fits
    return flat(kept)


def levels_of(best: np.ndarray, shape: tuple[int, ...], max_depth: int) -> np.ndarray:
    """Returns the categories of intersections, given by positions in the row."""
    levels = np.full((best.size, len(shape)), -1, np.int32)
    start = 0
    # An empty table with these axes gives the order of the intersections.
    for kept in marginals(np.zeros((0,) * len(shape)), max_depth):
        if not kept:
            continue
        sizes = tuple(shape[attribute] for attribute in kept)
        here = np.flatnonzero((best >= start) & (best < start + math.prod(sizes)))
        levels[np.ix_(here, np.array(kept))] = np.stack(
            np.unravel_index(best[here] - start, sizes), axis=1
        )
        start += math.prod(sizes)
    return levels


class Tested(NamedTuple):
    """The intersections in one row, in the order of `flat`.

    Attributes:
      scale: Factor from a sum of residuals to the intersection's z.
      eligible: Which intersections may be the worst.
      best: Positions of the reported intersections.
      z: The z of all intersections.
    """

    scale: Any
    eligible: Any
    best: Any
    z: Any


def shuffled_beyond(
    key: PRNGKeyArray,
    units: tuple[np.ndarray, np.ndarray, np.ndarray],
    tested: Tested,
    num_levels: tuple[int, ...],
    max_depth: int,
    num_permutations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts shuffles that reach each reported z, at the same position and anywhere."""
    residuals, strata, cells = units
    scale, eligible, best, z = tested
    if best.size == 0:
        return np.zeros(0), np.zeros(0)
    # Drawn on the host, which avoids compiling a program for each number of units.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    observed = z[best] - _TIE
    num_cells = math.prod(num_levels)
    values, draws = _values(residuals, strata)
    if 4 * draws * num_cells <= residuals.size:
        same, worst = np.zeros(best.size), np.zeros(best.size)
        step = max(1, _CHUNK // num_cells)
        for done in range(0, num_permutations, step):
            number = min(step, num_permutations - done)
            tables = _drawn_tables(rng, values, strata, cells, num_cells, number)
            sums = marginals(tables.reshape(*num_levels, -1), max_depth, several=True)
            shuffled = scale[:, None] * flat(sums)
            same += (shuffled[best] >= observed[:, None]).sum(axis=1)
            most = shuffled.max(axis=0, where=eligible[:, None], initial=-np.inf)
            worst += (most >= observed[:, None]).sum(axis=1)
        return same, worst
    noise = rng.random(strata.shape)
    order = np.lexsort((noise, strata))
    residuals, cells = residuals[order], cells[order]
    blocks = _blocks(strata[order])
    # Padding units have no residual; padded sizes need few compiled programs.
    padding = (0, _padded(residuals.size) - residuals.size)
    largest = max(np.abs(residuals).max(), np.finfo(np.float32).tiny)
    worst, same = _shuffle(
        key,
        np.pad(residuals / largest, padding).astype(np.float32),
        np.pad(cells, padding),
        tuple(np.pad(part, padding, mode="edge") for part in blocks),
        tested._replace(scale=(scale * largest).astype(np.float32), z=None),
        num_levels,
        max_depth,
        num_permutations,
        _padded(int(blocks[-1][-1]) + 1),
    )
    worst, same = np.asarray(worst), np.asarray(same)
    return (same >= observed).sum(axis=0), (worst[:, None] >= observed).sum(axis=0)


def _values(
    residuals: np.ndarray, strata: np.ndarray
) -> tuple[list[list[tuple[float, int]]], int]:
    """Returns each stratum's distinct values in descending order, and their counts.

    The second result is the number of draws that place all values; the last value of a
    stratum needs no draw.
    """
    order = np.lexsort((-residuals, strata))
    residuals, strata = residuals[order], strata[order]
    new = np.append(True, (np.diff(residuals) != 0) | (np.diff(strata) != 0))
    starts = np.flatnonzero(new)
    numbers = np.diff(starts, append=strata.size)
    values: list[list[tuple[float, int]]] = [[] for _ in range(int(strata[-1]) + 1)]
    kinds = zip(residuals[starts].tolist(), numbers.tolist(), strict=True)
    for stratum, kind in zip(strata[starts].tolist(), kinds, strict=True):
        values[stratum].append(kind)
    return values, starts.size - sum(map(bool, values))


def _drawn_tables(
    rng: np.random.Generator,
    values: list[list[tuple[float, int]]],
    strata: np.ndarray,
    cells: np.ndarray,
    num_cells: int,
    number: int,
) -> np.ndarray:
    """Draws sums by cell of values shuffled within strata, one column for each shuffle.

    The number of units of each cell with a value has the multivariate hypergeometric
    distribution. Given these numbers, the numbers of remaining units with the next
    value have this distribution too. The units are not read again.
    """
    sizes = np.bincount(strata * num_cells + cells, minlength=len(values) * num_cells)
    sizes = sizes.reshape(len(values), num_cells)
    tables = np.zeros((number, num_cells))
    for table in tables:
        for kinds, left in zip(values, sizes, strict=True):
            for value, units in kinds[:-1]:
                drawn = rng.multivariate_hypergeometric(left, units)
                table += value * drawn
                left = left - drawn
            if kinds:
                table += kinds[-1][0] * left
    return tables.T


def _padded(size: int) -> int:
    """Returns the next of 4, 5, 6, 7, 8, 10, 12, 14, 16, ..., at most 25 % larger."""
    step = 2 ** max(0, math.frexp(size - 1)[1] - 3)
    return math.ceil(size / step) * step


def _blocks(strata: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the start, length and number of each unit's block of a sorted stratum.

    A shift does not move values between blocks. So a fraction of the variance, one over
    the length of the blocks, is missing, and a block has only as many shifts as units.
    With thousands of units in a block both effects are negligible.
    """
    sizes = np.bincount(strata)
    pieces = -(-sizes // _LONGEST_BLOCK)
    lengths = -(-sizes // np.maximum(pieces, 1))
    ends, numbers = np.cumsum(sizes), np.cumsum(pieces)
    first = (ends - sizes)[strata]
    nth = (np.arange(strata.size) - first) // lengths[strata]
    start = first + nth * lengths[strata]
    length = np.minimum(lengths[strata], ends[strata] - start)
    block = np.concatenate([[0], numbers])[strata] + nth
    return start.astype(np.int32), length.astype(np.int32), block.astype(np.int32)


@functools.partial(jax.jit, static_argnums=(5, 6, 7, 8))
def _shuffle(
    key: PRNGKeyArray,
    residuals: Float[Array, " units"],
    cells: Int[Array, " units"],
    blocks: tuple[Array, Array, Array],
    tested: Tested,
    num_levels: tuple[int, ...],
    max_depth: int,
    num_permutations: int,
    num_blocks: int,
) -> tuple[Float[Array, " permutations"], Float[Array, "permutations k"]]:
    """Returns the largest z of every shuffle, and the z of the reported ones."""
    num_units, num_cells = residuals.shape[0], math.prod(num_levels)
    start, length, block = blocks
    place = jnp.arange(num_units) - start
    # Padding units lie beyond the end of their block.
    added = place >= length

    def by_sorting(key: PRNGKeyArray) -> Array:
        # With so few units a block is a whole stratum.
        stratum = jnp.where(added, num_blocks, block)
        noise = jax.random.bits(key, (num_units,))
        return jax.lax.sort((stratum, noise, residuals), num_keys=2)[2]

    def by_shifting(key: PRNGKeyArray) -> Array:
        shift = jax.random.bits(key, (num_blocks,))[block] % length.astype(jnp.uint32)
        moved = place + shift.astype(jnp.int32)
        moved = start + jnp.where(moved >= length, moved - length, moved)
        return residuals[jnp.where(added, start + place, moved)]

    shuffle = by_sorting if num_units <= _SORTED else by_shifting

    def shuffled(key: PRNGKeyArray) -> tuple[Array, Array]:
        table = jax.ops.segment_sum(shuffle(key), cells, num_segments=num_cells)
        sums = marginals(table.reshape(num_levels), max_depth)
        z = flat(sums, jnp.concatenate) * tested.scale
        z = jnp.where(tested.eligible, z, -jnp.inf)
        return jnp.max(z), z[tested.best]

    return jax.lax.map(
        shuffled,
        jax.random.split(key, num_permutations),
        batch_size=max(1, _CHUNK // (num_units + num_cells)),
    )
