"""What reading a table yields, and every analysis starts from."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32

from fairjax.groups import Grouping


class Finding(NamedTuple):
    """Something about the data that a reader of the report should know.

    Attributes:
        severity: ``"warning"`` where it may change what the results mean.
        code: A short name of the kind of finding, the same in every audit.
        message: In a sentence.
        rows: How many rows it is about; None if it is not about rows.
    """

    severity: Literal["info", "warning"]
    code: str
    message: str
    rows: int | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A model's predictions.

    Attributes:
        name: What the report calls it.
        column: The column of its scores.
        scores: ``[n]`` in [0, 1].
        threshold: Scores at or above it are flagged; None if decisions were given.
        threshold_source: Where it comes from, in words.
        decisions: ``[n]``, which rows are flagged.
    """

    name: str
    column: str
    scores: Float64[np.ndarray, " n"]
    threshold: float | None
    threshold_source: str
    decisions: Bool[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class AuditData:
    """The rows to audit.

    Attributes:
        source: The file's name without its folder, or ``"DataFrame"``.
        sha256: Of the file's bytes; None for a DataFrame.
        rows_read: Rows of the table.
        rows_left_out: Reason -> rows that were read and are not audited.
        missing: Column -> rows read that lack its value; of the outcome, the scores and
            the attributes.
        outcome: The outcome's column.
        positive: Its value that counts as 1.
        labels: ``[n]``, 0 or 1.
        models: The models; the first is the baseline.
        attributes: The attributes, in the order that they were named.
        patients: ``[n]``, whose row it is, 0 and up; None if not known.
        num_patients: How many patients there are; None if not known.
        findings: What a reader of the report should know of the data.
    """

    source: str
    sha256: str | None
    rows_read: int
    rows_left_out: dict[str, int]
    missing: dict[str, int]
    outcome: str
    positive: str
    labels: Int8[np.ndarray, " n"]
    models: tuple[Model, ...]
    attributes: tuple[Grouping, ...]
    patients: Int32[np.ndarray, " n"] | None
    num_patients: int | None
    findings: tuple[Finding, ...]

    def varying(self, attribute: Grouping) -> Bool[np.ndarray, " patients"]:
        """Which patients have rows with different levels; none without patients."""
        if self.patients is None or self.num_patients is None:
            return np.zeros(0, bool)
        any_of = np.zeros(self.num_patients, np.int32)
        any_of[self.patients] = attribute.codes
        differs = any_of[self.patients] != attribute.codes
        changing = np.zeros(self.num_patients, bool)
        changing[self.patients[differs]] = True
        return changing
