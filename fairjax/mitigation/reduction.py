r"""The reduction of fair to weighted classification, as a game of two players.

One player mixes classifiers, the other sets a multiplier for each constraint.
Exponentiated gradient plays the game, and a linear programme solves the game over the
classifiers found so far. A learner answers prices of cells with classifiers, which the
game sees only as the cells' mean decisions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

from fairjax.mitigation.constraints import (
    ParityConstraints,
    cell_prices,
    expected_cost,
    violations,
)
from fairjax.types import check_whole

# A learner: prices [K, C] of K problems, to the classifiers' mean decisions [K, C].
Respond = Callable[[np.ndarray], np.ndarray]

# Each iteration tries more multipliers than the gradient's: the programme's solution,
# which alone would oscillate, its solutions near the best multipliers so far, and
# multiples of the best, which a learner that minimises a surrogate may answer better.
_NEAR = (0.03, 0.1, 0.2, 0.5)
_MULTIPLES = (2.0, 5.0)
LANES = 2 + len(_NEAR) + len(_MULTIPLES)

_PRECISION = 1e-8
# The step is shortened where the gap has hardly shrunk between two checks.
_FIRST_CHECK, _CHECK_RATIO, _HARDLY, _SHORTER = 5, 1.6, 0.8, 0.8
_EARLIEST = 5


class Reduction(NamedTuple):
    """A mixture of classifiers.

    Attributes:
      chances: ``[H]``, the probability of each classifier found, in order; sums to 1.
      places: ``[H, 2]``, the iteration that found each classifier, and the row of its
        multipliers among the :data:`LANES` of that iteration.
      selected: ``[C]``, the cells' mean probabilities of selection under the mixture.
      multipliers: ``[J]``, the constraints' multipliers that the mixture responds to.
      best_gap: The duality gap: an upper bound on the mixture's distance from the best
        mixture of the learner's classifiers.
      best_iteration: The iteration that reached the gap.
      iterations: Number of iterations.
      gaps: ``[iterations]``, the gap after each iteration.
    """

    chances: Float[np.ndarray, " H"]
    places: np.ndarray
    selected: Float[np.ndarray, " C"]
    multipliers: Float[np.ndarray, " J"]
    best_gap: float
    best_iteration: int
    iterations: int
    gaps: Float[np.ndarray, " T"]


def solve_reduction(
    constraints: ParityConstraints,
    respond: Respond,
    *,
    max_iterations: int = 50,
    gap_tolerance: float | None = None,
    learning_rate: float = 2.0,
    multiplier_bound: float = 100.0,
    num_patients: int | None = None,
) -> Reduction:
    r"""Plays the game until its duality gap is small.

    The mixture Q minimises, the multipliers :math:`\lambda \ge 0`,
    :math:`\|\lambda\|_1 \le B`, maximise

    .. math:: L(Q, \lambda) = \mathrm{cost}(Q) +
       \lambda^\top (M \mu(Q) + k - \epsilon).

    Each iteration answers :data:`LANES` multipliers at once. The first are the
    exponentiated gradient's, :math:`\lambda_t = B e^{\theta_t} / (1 + \sum_j
    e^{\theta_{t,j}})`, the second solve a linear programme over the classifiers found.
    The others are the programme's near the best :math:`\lambda` so far, and multiples
    of the best. The best :math:`\lambda` maximises the lowest Lagrangian of the
    classifiers found. Its gap to a mixture is :math:`\max(L - \min_h L(h, \lambda),
    \max_{\lambda'} L(Q, \lambda') - L)`, over all classifiers found.

    Args:
      constraints: From :func:`fairjax.mitigation.parity_constraints`.
      respond: From prices ``[LANES, C]`` to mean decisions ``[LANES, C]``.
      max_iterations: The most calls of ``respond``.
      gap_tolerance: The gap at which the game ends. None: half the standard error of
        the least cost without constraints (of the error, :math:`\sqrt{e (1 - e) /
        n}`), or 1e-4 without ``num_patients``.
      learning_rate: :math:`\eta_0`; :math:`\theta` moves by :math:`\eta_0 / B` times
        the violations.
      multiplier_bound: B. A violation of less than about 1 / B may stay.
      num_patients: n.

    Returns:
      The mixture of least gap.

    Raises:
      ValueError: If a setting is out of range, or the learner's decisions are not
        within [0, 1].

    References:
      Agarwal et al., *A Reductions Approach to Fair Classification*, ICML 2018,
      algorithm 1.

    Example:
      >>> import numpy as np
      >>> from fairjax.mitigation.constraints import parity_constraints
      >>> labels, groups = np.array([0, 1, 1, 0, 0, 1]), np.array([0, 0, 0, 1, 1, 1])
      >>> constraints = parity_constraints(labels, groups, num_groups=2)
      >>> free = solve_reduction(constraints, lambda prices: (prices < 0) * 1.0)
      >>> round(free.best_gap, 6)
      0.0
    """
    check_game(max_iterations, gap_tolerance, learning_rate, multiplier_bound)
    game = _Game(constraints, multiplier_bound)
    exponents = np.zeros(len(constraints.offset))
    best, ideal = np.zeros_like(exponents), np.zeros_like(exponents)
    rate = learning_rate / multiplier_bound
    played: list[int] = []
    gaps: list[float] = []
    last_check, last_gap = _FIRST_CHECK, np.inf
    least = None
    for t in range(max_iterations):
        distance = np.abs(ideal - best).max(initial=0.0)
        asked = [
            _softmax(exponents, multiplier_bound),
            ideal,
            *(game.solved_near(best, fraction * distance) for fraction in _NEAR),
            *(multiple * best for multiple in _MULTIPLES),
        ]
        answers = game.answer(respond, np.stack(asked), t)
        if gap_tolerance is None:
            gap_tolerance = game.noise(num_patients)
        # The gradient's play averages its answers; the programme mixes all classifiers.
        played.append(answers[0])
        average = np.bincount(played, minlength=game.size) / len(played)
        mixture, ideal = game.solved()
        best = game.best_multipliers()
        chances = min((mixture, average), key=lambda q: game.gap(q, best))
        gap = game.gap(chances, best)
        gaps.append(gap)
        # Equal gaps, up to precision, go to the later iteration.
        if least is None or gap <= least[0] + _PRECISION:
            least = gap, t, chances, best
        if gap <= gap_tolerance and t >= _EARLIEST:
            break
        if t >= last_check * _CHECK_RATIO:
            if min(gaps) > last_gap * _HARDLY:
                rate *= _SHORTER
            last_check, last_gap = t, min(gaps)
        exponents = exponents + rate * game.violated[answers[0]]
    assert least is not None
    gap, iteration, chances, multipliers = least
    chances = np.pad(chances, (0, game.size - len(chances)))
    return Reduction(
        chances,
        np.array(game.places),
        chances @ np.array(game.selected),
        multipliers,
        float(gap),
        iteration,
        len(gaps),
        np.array(gaps),
    )


def check_game(
    max_iterations: int,
    gap_tolerance: float | None,
    learning_rate: float,
    multiplier_bound: float,
) -> None:
    """Checks that the settings of the game are in range.

    Raises:
      ValueError: If a setting is out of range.

    Example:
      >>> check_game(50, None, learning_rate=2.0, multiplier_bound=100.0)
      >>> check_game(50, None, learning_rate=0.0, multiplier_bound=100.0)
      Traceback (most recent call last):
        ...
      ValueError: learning_rate must be finite and above 0; got 0.0.
    """
    check_whole("max_iterations", max_iterations)
    rates = {"learning_rate": learning_rate, "multiplier_bound": multiplier_bound}
    for name, value in rates.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and above 0; got {value}.")
    if gap_tolerance is not None and not gap_tolerance >= 0:
        raise ValueError(f"gap_tolerance must be 0 or more; got {gap_tolerance}.")


class _Game:
    """The classifiers found so far, by their costs, decisions and violations."""

    def __init__(self, constraints: ParityConstraints, multiplier_bound: float):
        self.constraints = constraints
        self.multiplier_bound = multiplier_bound
        self.selected: list[np.ndarray] = []
        self.places: list[tuple[int, int]] = []
        self._costs: list[float] = []
        self.violated: list[np.ndarray] = []
        self._asked: list[np.ndarray] = []

    @property
    def size(self) -> int:
        return len(self.selected)

    def answer(self, respond: Respond, multipliers: np.ndarray, t: int) -> list[int]:
        """Asks the learner, and returns the best known classifier per multiplier."""
        self._asked.extend(multipliers)
        prices = cell_prices(self.constraints, multipliers)
        found = np.asarray(respond(prices), np.float64)
        if found.shape != prices.shape or not ((found >= 0) & (found <= 1)).all():
            raise ValueError(
                f"respond must give mean decisions in [0, 1] of shape {prices.shape}; "
                f"got shape {found.shape}, from {found.min()} to {found.max()}."
            )
        best = []
        for row, selected in enumerate(found):
            cost = float(expected_cost(self.constraints, selected))
            violated = violations(self.constraints, selected)
            value = cost + violated @ multipliers[row]
            known = self._values(multipliers[row])
            if len(known) and not value < known.min() - _PRECISION:
                best.append(int(known.argmin()))
                continue
            best.append(self.size)
            self.selected.append(selected)
            self.places.append((t, row))
            self._costs.append(cost)
            self.violated.append(violated)
        return best

    def gap(self, chances: np.ndarray, multipliers: np.ndarray) -> float:
        """Returns the duality gap of a mixture and multipliers."""
        chances = np.pad(chances, (0, self.size - len(chances)))
        values = self._values(multipliers)
        value = chances @ values
        worst = max(0.0, np.max(chances @ np.array(self.violated), initial=0.0))
        highest = chances @ np.array(self._costs) + self.multiplier_bound * worst
        return max(value - values.min(), highest - value)

    def noise(self, num_patients: int | None) -> float:
        """Returns half the standard error of the least cost found."""
        if num_patients is None:
            return 1e-4
        cheapest = int(np.argmin(self._costs))
        each = self.constraints.wrong
        squares = self.constraints._replace(wrong=each**2)
        second = float(expected_cost(squares, self.selected[cheapest]))
        variance = second - self._costs[cheapest] ** 2
        return 0.5 * float(np.sqrt(max(variance, 0.0) / num_patients))

    def best_multipliers(self) -> np.ndarray:
        """Returns the asked multipliers that maximise the lowest Lagrangian."""
        asked = np.array(self._asked)
        asked = asked[asked.sum(axis=1) <= self.multiplier_bound * (1 + _PRECISION)]
        return asked[self._values(asked).min(axis=-1).argmax()]

    def solved(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the best mixture of the classifiers found, and its multipliers."""
        violated = np.array(self.violated).T
        rows = np.pad(violated, ((0, 0), (0, 1)), constant_values=-1.0)
        found = optimize.linprog(
            np.append(self._costs, self.multiplier_bound),
            A_ub=rows,
            b_ub=np.zeros(len(rows)),
            A_eq=np.append(np.ones(self.size), 0.0)[None],
            b_eq=[1.0],
            bounds=(0, None),
            method="highs",
        )
        if not found.success:
            raise RuntimeError(f"the linear programme was not solved: {found.message}")
        chances = np.where(found.x[:-1] > _PRECISION, found.x[:-1], 0.0)
        return chances / chances.sum(), np.maximum(-found.ineqlin.marginals, 0.0)

    def solved_near(self, best: np.ndarray, reach: float) -> np.ndarray:
        """Returns the multipliers within a reach of the best that solve the programme.

        These multipliers maximise the lowest Lagrangian of the classifiers found.
        """
        if not self.size or not reach > 0:
            return best
        cuts = np.pad(-np.array(self.violated), ((0, 0), (0, 1)), constant_values=1.0)
        limit = np.append(np.ones(len(best)), 0.0)[None]
        near = np.stack([np.maximum(best - reach, 0.0), best + reach], axis=1)
        found = optimize.linprog(
            np.append(np.zeros(len(best)), -1.0),
            A_ub=np.concatenate([cuts, limit]),
            b_ub=np.append(self._costs, self.multiplier_bound),
            bounds=[*near, (None, None)],
            method="highs",
        )
        return found.x[:-1] if found.success else best

    def _values(self, multipliers: np.ndarray) -> np.ndarray:
        """Returns the Lagrangian of each classifier under multipliers, ``[..., H]``."""
        violated = np.reshape(self.violated, (self.size, multipliers.shape[-1]))
        return np.array(self._costs) + multipliers @ violated.T


def _softmax(exponents: np.ndarray, total: float) -> np.ndarray:
    """Returns multipliers that share a total with a slack term of exponent 0."""
    highest = np.max(exponents, initial=0.0)
    raised = np.exp(exponents - highest)
    return total * raised / (np.exp(-highest) + raised.sum())
