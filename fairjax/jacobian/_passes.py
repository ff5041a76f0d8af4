"""The backward passes that give the Jacobian of objectives over cells.

The objectives are functions of the cell sums ``S[s, c]`` of statistics ``s``, so
``∂L_k/∂θ = Σ_s Σ_c A[k, s, c] ∂S[s, c]/∂θ`` with ``A = ∂L/∂S``. If a single objective
reads a pair ``(s, c)``, ``A`` enters the cotangent of the examples in the cell. All
such pairs of the objective make one segment. A pair that several objectives read is a
segment by itself, and such segments are mixed by ``A`` afterwards. One backward pass
computes several segments that share no cell, since each example then contributes to
one segment.

The passes are static: they follow from what the objectives declare to read.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fairjax.objectives import CellObjectives

SHARED = -1
UNREAD = -2


class Segment(NamedTuple):
    """Cells whose examples are pulled back together.

    Attributes:
      objective: The objective whose gradient the segment is part of; ``SHARED`` for a
        pair of a statistic and a cell that several objectives read.
      pairs: bool ``[S, C]``, which statistics are pulled back in which cells.
    """

    objective: int
    pairs: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        """Which cells the segment has, bool ``[C]``."""
        return np.any(self.pairs, axis=0)


class Pass(NamedTuple):
    """One backward pass: segments without a cell in common."""

    segments: tuple[Segment, ...]

    @property
    def segment_of_cell(self) -> np.ndarray:
        """The segment of each cell, int ``[C]``; −1 for a cell in no segment."""
        cells = np.full(self.segments[0].cells.shape, -1)
        for i, segment in enumerate(self.segments):
            cells[segment.cells] = i
        return cells

    @property
    def sources(self) -> np.ndarray:
        """The objective of each pair, or ``SHARED`` or ``UNREAD``, int ``[S, C]``."""
        sources = np.full(self.segments[0].pairs.shape, UNREAD)
        for segment in self.segments:
            sources[segment.pairs] = segment.objective
        return sources


def readers(objectives: CellObjectives) -> np.ndarray:
    """Returns which objective reads which statistic of which cell, ``[K, S, C]``."""
    return np.stack(
        [
            np.stack([f.cells & (s in f.statistics) for s in objectives.statistics])
            for f in objectives.functions.values()
        ]
    )


def choose_passes(
    reads: np.ndarray, cost: Callable[[Sequence[Pass]], float]
) -> tuple[Pass, ...]:
    """Returns the cheapest passes, with each statistic's shared pairs pulled or mixed.

    Where the shared pairs are pulled, each objective that reads them is pulled back by
    itself, as if no other objective read them.
    """
    _, statistics, _ = reads.shape
    shared = [s for s in range(statistics) if (reads[:, s].sum(axis=0) > 1).any()]
    # With more than four shared statistics, all are pulled or all are mixed.
    choices = itertools.product((False, True), repeat=len(shared))
    if len(shared) > 4:
        choices = [(False,) * len(shared), (True,) * len(shared)]
    candidates = [
        _pack(_segments(reads, set(itertools.compress(shared, chosen))))
        for chosen in choices
    ]
    return min(candidates, key=cost)


def cell_order(passes: Sequence[Pass]) -> np.ndarray:
    """Returns an order of the cells in which the segments of a pass have few gaps."""
    keys = sorted(
        (p.segment_of_cell for p in passes), key=lambda cells: -cells.max(initial=-1)
    )
    unread = [np.where(cells < 0, cells.size, cells) for cells in keys]
    return np.lexsort(unread[::-1])


def runs(segments: np.ndarray) -> list[tuple[int, int, int]]:
    """Lists runs of equal segments, except −1, as ``(segment, first, last + 1)``."""
    edges = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(segments)]
    return [
        (int(segments[a]), a, b)
        for a, b in itertools.pairwise(edges)
        if segments[a] >= 0
    ]


def _segments(reads: np.ndarray, pulled: set[int]) -> list[Segment]:
    sole = reads.sum(axis=0) == 1
    sole[list(pulled)] = True
    own = reads & sole
    found = [Segment(k, own[k]) for k in range(len(reads)) if own[k].any()]
    for s, c in np.argwhere(reads.any(axis=0) & ~sole):
        pairs = np.zeros_like(sole)
        pairs[s, c] = True
        found.append(Segment(SHARED, pairs))
    return found


def _pack(segments: Sequence[Segment]) -> tuple[Pass, ...]:
    """Packs segments, each into the first pass that has none of the segment's cells."""
    packed: list[list[Segment]] = []
    taken: list[np.ndarray] = []
    for segment in segments:
        for members, cells in zip(packed, taken, strict=True):
            if not (cells & segment.cells).any():
                members.append(segment)
                cells |= segment.cells
                break
        else:
            packed.append([segment])
            taken.append(segment.cells.copy())
    return tuple(Pass(tuple(members)) for members in packed)
