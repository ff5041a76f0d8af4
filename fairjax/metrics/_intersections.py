"""Tables of intersections, and their law when values are shuffled.

A table has an axis for each attribute. An intersection fixes the levels of some
attributes and sums over the others, so that all intersections are read off one table.
The values of a shuffle are tabulated and read off in the same way: where there are few,
as of a rate, or of patients' numbers of hits, the table is drawn from its distribution;
otherwise they are moved by the units' random shifts.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

# Keeps a table of the cells within a few megabytes, and catches unbinned numbers.
_MAX_CELLS = 2**20
# Numbers held at once while shuffling.
_CHUNK = 2**18
# Statistics that are equal in exact arithmetic may differ in the last bits.
_TIE = 1e-4
# Up to so many units are shuffled by sorting, more by shifts within blocks.
_SORTED = 2**11
_LONGEST_BLOCK = 2**12


def cells_of(attributes: np.ndarray, num_levels: tuple[int, ...]) -> np.ndarray:
    """The row's cell of the full cross, in row-major order; -1 for none."""
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
    """Each patient's total value, stratum by number of rows, and cell."""
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
    """Each unit's residual from its stratum's mean, and the stratum's variance."""
    count = np.bincount(strata)
    mean = np.bincount(strata, values) / np.maximum(count, 1)
    residuals = values - mean[strata]
    # What the mean's own rounding leaves is no difference.
    largest = np.zeros(count.size)
    np.maximum.at(largest, strata, np.abs(values))
    rounding = np.finfo(float).eps * (count + 1) * largest
    residuals = np.where(np.abs(residuals) <= rounding[strata], 0, residuals)
    squares = np.bincount(strata, residuals**2)
    return residuals, (squares / np.maximum(count - 1, 1))[strata]


def marginals(
    table: Any, max_depth: int, *, several: bool = False
) -> dict[tuple[int, ...], Any]:
    """Sums of a table with an axis an attribute, over all but each few of the axes.

    NumPy arrays give NumPy arrays, JAX arrays JAX arrays. A last axis of ``several``
    tables is kept.

    Attributes are decided one after another, to be kept or summed out, so that sets
    share the sums over the attributes that they all leave out.
    """
    found = {}

    def decide(table: Any, kept: tuple[int, ...], axis: int) -> None:
        place = len(kept)
        left = table.ndim - several
        if left == place:
            found[kept] = table
        elif place == max_depth:
            found[kept] = table.sum(axis=tuple(range(place, left)))
        else:
            decide(table, (*kept, axis), axis + 1)
            decide(table.sum(axis=place), kept, axis + 1)

    decide(table, (), 0)
    return {kept: found[kept] for kept in sorted(found, key=lambda k: (len(k), k))}


def flat(tables: dict[tuple[int, ...], Any], join: Any = np.concatenate) -> Any:
    """Joins all intersections into one row, or of several tables into a column each.

    The whole table is left out. ``join`` is the concatenation of the tables' library.
    """
    parts = {kept: part for kept, part in tables.items() if kept}
    return join([p.reshape(-1, *p.shape[len(kept) :]) for kept, p in parts.items()])


def eligible_for(support: np.ndarray, max_depth: int, min_support: int) -> np.ndarray:
    """Enough inside and outside, and not the rows of an intersection with fewer."""
    tables = marginals(support, max_depth)
    kept = {}
    for attributes, inner in tables.items():
        fits = (inner >= min_support) & (tables[()] - inner >= min_support)
        for place in range(len(attributes)):
            wider = tables[attributes[:place] + attributes[place + 1 :]]
            fits &= inner != np.expand_dims(wider, place)
        kept[attributes] = fits
    return flat(kept)


def levels_of(best: np.ndarray, shape: tuple[int, ...], max_depth: int) -> np.ndarray:
    """The levels of intersections that are given by their place in the row."""
    levels = np.full((best.size, len(shape)), -1, np.int32)
    start = 0
    # A table of one row that has these axes, to read off the order they come in.
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
    """The intersections in one row, as `flat` has them, and the best of them.

    Attributes:
      scale: What a sum of residuals is multiplied with, to be the intersection's z.
      eligible: Which may be the worst.
      best: Positions of those reported.
      z: Of all intersections.
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
    """How many shuffles reach the z of each of the best: in its own place; anywhere."""
    residuals, strata, cells = units
    scale, eligible, best, z = tested
    if best.size == 0:
        return np.zeros(0), np.zeros(0)
    # Drawn on the host, where no program has to be compiled for so many units.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    observed = z[best] - _TIE
    num_cells = math.prod(num_levels)
    values, draws = _values(residuals, strata)
    if 4 * draws * num_cells <= residuals.size:
        own, worst = np.zeros(best.size), np.zeros(best.size)
        step = max(1, _CHUNK // num_cells)
        for done in range(0, num_permutations, step):
            number = min(step, num_permutations - done)
            tables = _drawn_tables(rng, values, strata, cells, num_cells, number)
            sums = marginals(tables.reshape(*num_levels, -1), max_depth, several=True)
            shuffled = scale[:, None] * flat(sums)
            own += (shuffled[best] >= observed[:, None]).sum(axis=1)
            most = shuffled.max(axis=0, where=eligible[:, None], initial=-np.inf)
            worst += (most >= observed[:, None]).sum(axis=1)
        return own, worst
    noise = rng.random(strata.shape)
    order = np.lexsort((noise, strata))
    residuals, cells = residuals[order], cells[order]
    blocks = _blocks(strata[order])
    # Units beyond the last, of no residual, so that few sizes have to be compiled.
    padding = (0, _padded(residuals.size) - residuals.size)
    largest = max(np.abs(residuals).max(), np.finfo(np.float32).tiny)
    worst, own = _shuffle(
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
    worst, own = np.asarray(worst), np.asarray(own)
    return (own >= observed).sum(axis=0), (worst[:, None] >= observed).sum(axis=0)


def _values(
    residuals: np.ndarray, strata: np.ndarray
) -> tuple[list[list[tuple[float, int]]], int]:
    """Each stratum's values from the highest, with how many units have each.

    With them, how many draws say where all values lie: that of the last is known.
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
    """Sums by cell of values that are shuffled within strata, a column a shuffle.

    How many units of each cell have a value has a known distribution, the multivariate
    hypergeometric; given these, so has how many of the others have the next value. The
    units are not touched again.
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
    """The next of 4, 5, 6, 7, 8, 10, 12, 14, 16, ..., at most a quarter larger."""
    step = 2 ** max(0, math.frexp(size - 1)[1] - 3)
    return math.ceil(size / step) * step


def _blocks(strata: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts sorted strata into blocks: each unit's block's start, length and number.

    A shift moves no value to another block, so that of the variance a share of one over
    the blocks' length is missing from its law, and one block has only as many shifts as
    units. At thousands neither is felt.
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
    """The largest z of every shuffle, and its z of the best."""
    num_units, num_cells = residuals.shape[0], math.prod(num_levels)
    start, length, block = blocks
    place = jnp.arange(num_units) - start
    # What was added to pad lies beyond its block's end.
    added = place >= length

    def by_sorting(key: PRNGKeyArray) -> Array:
        # Few enough units for a block to be a whole stratum.
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
