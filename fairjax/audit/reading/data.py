"""Types of a table that was read, the input of every analysis."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32

from fairjax.groups import Grouping


class Finding(NamedTuple):
    """A finding on the data that readers of the report should know.

    Attributes:
        severity: ``"warning"`` if the finding may change the meaning of the results.
        code: A short name of the kind of finding, equal in every audit.
        message: The finding in a sentence.
        rows: Number of rows that the finding concerns; None if it does not concern
            rows.
    """

    severity: Literal["info", "warning"]
    code: str
    message: str
    rows: int | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A model's predictions.

    Attributes:
        name: Name of the model in the report.
        column: Column of the scores.
        scores: ``[n]`` in [0, 1].
        threshold: Scores at or above the threshold are selected; None if decisions
            were given.
        threshold_source: Origin of the threshold, in words.
        decisions: ``[n]``, the selected rows.
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
        sha256: Hash of the file's bytes; None for a DataFrame.
        rows_read: Number of rows of the table.
        rows_left_out: Reason -> number of rows that were read but are not audited.
        missing: Column of the outcome, a score or an attribute -> number of rows read
            without a value.
        outcome: Column of the outcome.
        positive: Value of the outcome that counts as 1.
        labels: ``[n]``, 0 or 1.
        models: The models; the first is the baseline.
        attributes: The attributes, in the order of the options.
        patients: ``[n]``, index of each row's patient; None if unknown.
        num_patients: Number of patients; None if unknown.
        findings: Findings on the data.
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
        """Returns which patients have rows with different categories of an attribute.

        Returns an empty array if patients are unknown.
        """
        if self.patients is None or self.num_patients is None:
            return np.zeros(0, bool)
        any_of = np.zeros(self.num_patients, np.int32)
        any_of[self.patients] = attribute.codes
        differs = any_of[self.patients] != attribute.codes
        changing = np.zeros(self.num_patients, bool)
        changing[self.patients[differs]] = True
        return changing
