"""What the codes of a data set's files mean: one value under several spellings."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_RECORDED = "not recorded"
"""The level of whoever has none on record."""

_MISSING = frozenset({"-1", "nan", "none", "", "unknown", "unavailable", NOT_RECORDED})


@dataclass(frozen=True)
class Coding:
    """Where a value is found in a subject's file, and which level each code stands for.

    Releases of one data set write a value as a number, a float or a word, under one key
    or another. A value is a level if it is the level's number, its name, or one of its
    further spellings, whatever the case. −1, NaN, an empty text and ``unknown`` are not
    recorded.

    Attributes:
      keys: Under which it may lie; the first that a file has counts.
      levels: Names of codes 0, 1, 2, ...
      spellings: Further words and the code of each.

    Example:
      >>> from fairjax.data.coding import Coding
      >>> sex = Coding(("male", "gender"), ("female", "male"), {"f": 0, "m": 1})
      >>> sex.level(1.0), sex.level("Female"), sex.level("m"), sex.level(-1)
      ('male', 'female', 'male', 'not recorded')
    """

    keys: tuple[str, ...]
    levels: tuple[str, ...]
    spellings: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses codings that could not be read back.

        Raises:
          ValueError: No key, no level, repeated levels, or a spelling of no level.
        """
        names = [plain(level) for level in self.levels]
        if not self.keys or not names or len(set(names)) < len(names):
            raise ValueError(
                f"A coding has one key or more and levels that differ, not keys "
                f"{self.keys} and levels {self.levels}."
            )
        if NOT_RECORDED in names:
            raise ValueError(f"{NOT_RECORDED!r} is a level of every coding already.")
        beyond = {
            word: code
            for word, code in self.spellings.items()
            if not 0 <= code < len(names)
        }
        if beyond:
            raise ValueError(
                f"The spellings {beyond} have no level among {self.levels}."
            )

    def level(self, value: Any) -> str:
        """The level that a value of a file stands for.

        Args:
          value: A number or a text.

        Returns:
          One of ``levels``, or ``"not recorded"``.

        Raises:
          ValueError: A value that no level has.
        """
        word = plain(value)
        if word in _MISSING:
            return NOT_RECORDED
        spellings = {plain(name): code for name, code in self.spellings.items()}
        codes = {
            **{str(code): code for code in range(len(self.levels))},
            **spellings,
            **{plain(name): code for code, name in enumerate(self.levels)},
        }
        if word not in codes:
            raise ValueError(
                f"{value!r} is none of the codes 0 to {len(self.levels) - 1}, "
                f"of the levels {self.levels} or of {tuple(spellings)}"
            )
        return self.levels[codes[word]]


def plain(value: Any) -> str:
    """A value as a word: whole numbers without decimals, texts in lower case.

    Args:
      value: A number, a text or its bytes.

    Returns:
      The word, without white space around it. A text that spells a number is one.

    Example:
      >>> plain(1.0), plain(" White "), plain("2.0"), plain(0.5)
      ('1', 'white', '2', '0.5')
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, numbers.Real):
        word = str(value).strip().casefold()
        try:
            value = float(word)
        except ValueError:
            return word
    number = float(value)
    if math.isfinite(number) and number == int(number):
        return str(int(number))
    return str(number)


def age(value: Any) -> float:
    """An age in years; NaN where it is not recorded.

    Args:
      value: A number, or a text that spells one.

    Returns:
      Years, 0 or more, or NaN.

    Raises:
      ValueError: No number, or one below 0 other than −1, which stands for none.

    Example:
      >>> age("63.5"), age(-1)
      (63.5, nan)
    """
    word = plain(value)
    if word in _MISSING:
        return math.nan
    try:
        years = float(word)
    except ValueError:
        years = -math.inf
    if not 0 <= years < math.inf:
        raise ValueError(f"{value!r} is no age in years")
    return years
