"""Meanings of the codes in a data set's files: one value in several spellings."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_RECORDED = "not recorded"
"""The category of subjects without a recorded value."""

_MISSING = frozenset({"-1", "nan", "none", "", "unknown", "unavailable", NOT_RECORDED})


@dataclass(frozen=True)
class Coding:
    """The keys of a value in a subject's file, and the category of each code.

    Releases of a data set store a value as an integer, a float or a word, under
    different keys. A value stands for a category if the value equals the category's
    number, name or a further spelling, in any case. −1, NaN, an empty text and
    ``unknown`` mean that the value is not recorded.

    Attributes:
      keys: Possible keys; the first key that a file has is used.
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
        """Checks that the coding is unambiguous.

        Raises:
          ValueError: If there is no key or no level, levels repeat or include
            ``"not recorded"``, or a spelling's code has no level.
        """
        names = [plain(level) for level in self.levels]
        if not self.keys or not names or len(set(names)) < len(names):
            raise ValueError(
                "a coding must have keys and different levels; got the keys "
                f"{self.keys} and levels {self.levels}."
            )
        if NOT_RECORDED in names:
            raise ValueError(f"levels must not include {NOT_RECORDED!r}; got {names}.")
        beyond = {
            word: code
            for word, code in self.spellings.items()
            if not 0 <= code < len(names)
        }
        if beyond:
            raise ValueError(
                f"spellings must have codes of the levels {self.levels}; got {beyond}."
            )

    def level(self, value: Any) -> str:
        """Returns the category of a value in a file.

        Args:
          value: A number or a text.

        Returns:
          One of ``levels``, or ``"not recorded"``.

        Raises:
          ValueError: If the value stands for no category.
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
                f"the value must be a code from 0 to {len(self.levels) - 1}, or one of "
                f"{(*self.levels, *spellings)}; got {value!r}"
            )
        return self.levels[codes[word]]


def plain(value: Any) -> str:
    """Converts a value to a word: integers without decimals, texts in lower case.

    Args:
      value: A number, a text or its bytes.

    Returns:
      The word, without surrounding white space. A text that spells a number is treated
      as the number.

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
    """Returns an age in years; NaN for an age that is not recorded.

    Args:
      value: A number, or a text that spells a number.

    Returns:
      Years, 0 or more, or NaN.

    Raises:
      ValueError: If the value is not a number, or is below 0 other than −1, which means
        not recorded.

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
        raise ValueError(f"an age must be years, 0 or more; got {value!r}")
    return years
