r"""Pre-processing: features that tell less of the group a patient belongs to."""

import dataclasses
import warnings
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from fairjax._extra import extra
from fairjax.keys import as_key
from fairjax.mitigation._sensitive import Groups, check_not_among
from fairjax.mitigation.distances import distribution_distances
from fairjax.mitigation.quantile_repair import (
    GroupQuantiles,
    Scale,
    Ties,
    check_repair,
    group_quantiles,
    repair,
)
from fairjax.types import check_choice, check_whole

with extra("mitigation", needed_by="mitigation"):
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data

# Half of what float64 holds.
_LARGEST = float(np.finfo(np.float64).max) / 2
Unseen = Literal["error", "together", "keep"]


@dataclasses.dataclass(eq=False, repr=False)
class DisparateImpactRemover(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Moves the groups' distributions of each feature together: Feldman's repair.

    Each value is moved towards the one that has its rank in a distribution common to
    all groups (:func:`fairjax.mitigation.quantile_repair.repair`), a share
    ``repair_level`` of the way, so that a model can tell less of the group from any
    one feature. Within a group the order of patients is kept. A feature of many values
    ends with the same distribution in every group.

    Of a feature of few values that cannot be, unless patients who are alike are parted
    by chance: all who share a value move together. A binary feature is left as it is,
    or becomes constant in some groups, which may part them more than before;
    ``ties="random"`` makes it alike. See :meth:`report`.

    What it does *not* do: it never sees labels, so that the disparate impact of labels
    stays as it was; only what a model makes of the features changes. It treats
    features one by one: several together may still tell the group. :meth:`report`
    says how far apart the groups' distributions are, before and after.

    It differs from the implementation in BlackBoxAuditing, which AIF360 calls, in
    that it

    - learns from one table and repairs another, where theirs repairs the table at hand,
      patients of the test set moving each other's values;
    - takes quantiles over patients and interpolates between them; theirs takes them
      over a group's distinct values, as many as the group has that has fewest, and
      gives all patients of a quantile one value;
    - has a rule for groups that it has not seen, for missing values (they stay
      missing) and for values outside the learnt range (they take its ends);
    - moves values, by default, along the feature's own scale (geometric repair).
      ``scale="rank"`` moves them along the distinct values, as theirs does; theirs
      gives observed values only, which here ``discrete`` asks for;
    - takes groups as they are given; theirs puts a numeric attribute into bins first.

    On groups of one size without ties, all features discrete and ``scale="rank"``, the
    two agree exactly.

    Args:
      repair_level: :math:`\lambda` in [0, 1]; 0 changes nothing. It is read when a
        table is transformed, and may be set anew without another fit.
      scale: ``"value"`` or ``"rank"``; they are the same at ``repair_level=1``.
      ties: ``"middle"``: equal values of a group stay equal, so that a binary feature
        is changed for all or for none of its patients. ``"random"``: they are spread
        over the values that their ranks have, which makes distributions of discrete
        features equal at the price of chance. The draw depends on the key and on who
        the patient is, by ``patients`` or else by the row's features, so that it does
        not matter who else is in the table. Rows with the same features share a draw
        unless ``patients`` tell them apart.
      discrete: Features that are given values observed in training only: their
        positions or names; ``"auto"`` for those of whole numbers alone.
      num_quantiles: The most quantiles that are kept of each group; no more than the
        largest group has patients.
      unseen: A group that fitting did not see, or saw no value of a feature in:
        ``"error"``, or ranked among all groups ``"together"``, or ``"keep"``: left as
        it is.
      key: Of random ties.

    Attributes:
      group_names_: Names of the groups.
      quantiles_: What was learnt, a
        :class:`~fairjax.mitigation.quantile_repair.GroupQuantiles`.
      n_features_in_: Number of features.
      feature_names_in_: Their names, if they had any.

    References:
      Feldman, Friedler, Moeller, Scheidegger and Venkatasubramanian, *Certifying and
      Removing Disparate Impact*, KDD 2015.

    Example:
      >>> import numpy as np
      >>> from fairjax.mitigation import DisparateImpactRemover
      >>> x = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])[:, None]
      >>> groups = ["A"] * 4 + ["B"] * 4
      >>> remover = DisparateImpactRemover(discrete=[])
      >>> remover.fit_transform(x, sensitive_features=groups).ravel()
      array([1., 2., 3., 4., 1., 2., 3., 4.])
    """

    repair_level: float | int = 1.0
    _: dataclasses.KW_ONLY
    scale: Scale = "value"
    ties: Ties = "middle"
    discrete: Literal["auto"] | Any = "auto"
    num_quantiles: int = 1000
    unseen: Unseen = "error"
    key: Any = 0

    def fit(
        self, X: Any, y: Any = None, *, sensitive_features: Any = None
    ) -> "DisparateImpactRemover":
        """Learn the groups' distributions, and the one common to them.

        Args:
          X: ``[n, d]``, numbers; NaN is a missing value.
          y: Not used.
          sensitive_features: ``[n]`` or ``[n, attributes]``, an array, a mapping, a
            series or a data frame; each observed combination is a group.

        Returns:
          Itself.

        Raises:
          ValueError: A setting out of range; features that are no numbers, or so large
            that differences of two overflow; sensitive features that are missing, of
            other length, or among the features.
        """
        del y
        self._check()
        values = self._numbers(X)
        groups, codes = Groups.read(sensitive_features, rows=len(values))
        check_not_among(X, groups)
        self._groups = groups
        self.group_names_ = groups.names
        largest = int(np.bincount(codes).max())
        with jax.enable_x64(True):
            learnt = group_quantiles(
                jnp.asarray(values),
                jnp.asarray(codes),
                num_groups=len(groups.names),
                num_quantiles=max(2, min(self.num_quantiles, largest)),
                discrete=jnp.asarray(self._discrete(values)),
            )
        self.quantiles_ = GroupQuantiles(*map(np.asarray, learnt))
        return self

    def transform(
        self, X: Any, *, sensitive_features: Any = None, patients: Any = None
    ) -> np.ndarray | pd.DataFrame:
        """The repaired features.

        Args:
          X: ``[n, d]``, of the columns seen at fit.
          sensitive_features: As at fit.
          patients: ``[n]``, numbers or texts that identify patients, for
            ``ties="random"``; see the class.

        Returns:
          ``[n, d]``; as a data frame after ``set_output(transform="pandas")``.

        Raises:
          ValueError: As :meth:`fit`; other columns; with ``unseen="error"``, a group
            that fitting did not see, or a value of a feature that fitting saw no value
            of in that group.
        """
        check_is_fitted(self)
        self._check()
        values = self._numbers(X, reset=False)
        read = self._groups.known if self.unseen == "error" else self._groups.codes
        codes = read(sensitive_features, rows=len(values))
        new = np.where(codes < 0, len(self.group_names_), codes)
        drawn = self._drawn_by(values, patients) if self.ties == "random" else None
        repaired = self._repaired(values, new, drawn)
        # To a feature that fitting saw no value of in a group, the group is new.
        unlearnt = np.isnan(self.quantiles_.knots[new, 0]) & ~np.isnan(values)
        if unlearnt.any() and self.unseen == "error":
            row, column = np.argwhere(unlearnt)[0]
            names = np.asarray(self.get_feature_names_out())
            raise ValueError(
                f"{unlearnt.sum()} values are of features that had no value in their "
                f"group at fit, such as {names[column]!r} of "
                f"{self.group_names_[codes[row]]!r}: fit on a table that has some, or "
                "set unseen to 'together' or 'keep'."
            )
        if unlearnt.any() and self.unseen == "together":
            every = np.full_like(new, len(self.group_names_))
            together = self._repaired(values, every, drawn)
            repaired = np.where(unlearnt, together, repaired)
        if self.unseen == "keep":
            repaired = np.where((codes < 0)[:, None], values, repaired)
        return repaired

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        patients: Any = None,
    ) -> np.ndarray | pd.DataFrame:
        """The repaired features of the table learnt from; see :meth:`fit`."""
        fitted = self.fit(X, y, sensitive_features=sensitive_features)
        return fitted.transform(
            X, sensitive_features=sensitive_features, patients=patients
        )

    def report(
        self, X: Any, *, sensitive_features: Any = None, patients: Any = None
    ) -> pd.DataFrame:
        """How far apart the groups' distributions are, before and after repair.

        These are distances of features. The disparate impact of labels is not among
        them, since no repair of features moves it.

        Args:
          X: ``[n, d]``, of the columns seen at fit; rows held out tell more than those
            learnt from.
          sensitive_features: As at fit.
          patients: As :meth:`transform`.

        Returns:
          A row a feature: the largest Kolmogorov-Smirnov and Wasserstein distance of
          two groups, as ``distances.distribution_distances`` has them, the
          second of them in standard deviations of the table at hand.

        Raises:
          ValueError: As :meth:`transform`.
        """
        repaired = np.asarray(
            self.transform(X, sensitive_features=sensitive_features, patients=patients),
            np.float64,
        )
        values = self._numbers(X, reset=False)
        rows, codes = Groups.read(sensitive_features, rows=len(values))
        # [before and after, two distances, d]
        distances = np.array(
            [
                distribution_distances(table, codes, num_groups=len(rows.names))
                for table in (values, repaired)
            ]
        )
        names = ("kolmogorov_smirnov", "wasserstein")
        columns = [f"{name}_{when}" for name in names for when in ("before", "after")]
        table = distances.swapaxes(0, 1).reshape(4, -1).T
        return pd.DataFrame(table, self.get_feature_names_out(), columns)

    def __sklearn_tags__(self) -> Any:
        """Missing values are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _numbers(self, X: Any, *, reset: bool = True) -> np.ndarray:
        names = pd.Index(getattr(X, "columns", ()))
        if not names.is_unique:
            twice = names[names.duplicated()].unique().tolist()
            raise ValueError(f"several features are named {twice}: rename them.")
        try:
            found = validate_data(
                self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=reset
            )
        except (TypeError, ValueError) as error:
            named = isinstance(X, pd.DataFrame) and isinstance(error, TypeError)
            if not named and "could not convert" not in str(error):
                raise
            table = pd.DataFrame(X)
            words = [name for name in table.columns if not _is_numeric(table[name])]
            if not words:
                raise
            raise ValueError(
                f"the features {words} are no numbers: encode them or leave them out."
            ) from error
        values = np.asarray(found)
        if (np.abs(values) > _LARGEST).any():
            raise ValueError(
                f"features lie within {_LARGEST:.3g}, so that differences of two do "
                "not overflow: give them in another unit."
            )
        return values

    def _repaired(self, values: np.ndarray, codes: np.ndarray, drawn: Any) -> Any:
        with jax.enable_x64(True):
            repaired = repair(
                jnp.asarray(values),
                jnp.asarray(codes),
                jax.tree.map(jnp.asarray, self.quantiles_),
                level=self.repair_level,
                scale=self.scale,
                ties=self.ties,
                key=as_key(self.key) if self.ties == "random" else None,
                patients=drawn,
            )
            return np.array(repaired)

    def _drawn_by(self, values: np.ndarray, patients: Any) -> jax.Array:
        """``[n, 2]``, the words that identify each row's patient, or its features."""
        if patients is None:
            # Adding zero makes −0 the 0 that it equals.
            table = pd.DataFrame(values + 0.0)
            same = int(table.duplicated().sum())
            if same:
                warnings.warn(
                    f"{same} rows repeat another row's features, and share its random "
                    "draw: give patients, which tell them apart.",
                    stacklevel=3,
                )
        else:
            table = pd.DataFrame({"patient": np.asarray(patients)})
            if len(table) != len(values):
                raise ValueError(
                    f"there are patients of {len(table)} rows; X has {len(values)}."
                )
        words = pd.util.hash_pandas_object(table, index=False).to_numpy(np.uint64)
        halves = words[:, None] >> np.array([0, 32], np.uint64)
        return jnp.asarray(halves.astype(np.uint32))

    def _check(self) -> None:
        check_repair(self.repair_level, self.scale, self.ties)
        check_whole("num_quantiles", self.num_quantiles, 2)
        check_choice("unseen", self.unseen, *get_args(Unseen))

    def _discrete(self, values: np.ndarray) -> np.ndarray:
        if self.discrete is None or isinstance(self.discrete, str):
            if self.discrete != "auto":
                raise ValueError(
                    "discrete is 'auto', or the positions or names of features, not "
                    f"{self.discrete!r}."
                )
            whole = np.isnan(values) | (values == np.round(values))
            return whole.all(axis=0)
        positions = range(values.shape[1])
        names = list(getattr(self, "feature_names_in_", positions))
        chosen = np.zeros(len(names), bool)
        for feature in self.discrete:
            mask = isinstance(feature, bool | np.bool_)
            if mask or (feature not in names and feature not in positions):
                raise ValueError(
                    f"discrete names no feature: {feature!r}; it lists positions or "
                    "names."
                )
            chosen[names.index(feature) if feature in names else feature] = True
        return chosen


def _is_numeric(column: pd.Series) -> bool:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return False
    try:
        np.asarray(column, np.float64)
    except (TypeError, ValueError):
        return False
    return True
