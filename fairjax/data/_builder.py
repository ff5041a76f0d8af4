"""The base class of the builders of both imaging data sets."""

import abc
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from fairjax._extra import extra
from fairjax.data._archives import Archive, Table, png, split_files
from fairjax.data.coding import NOT_RECORDED, Coding, age

with extra("data", needed_by="reading the imaging data sets"):
    import tensorflow_datasets as tfds

LICENSE = "CC BY-NC-ND 4.0: research that is not commercial; no clinical decisions."
BLACK = np.zeros((1, 1), np.uint8)

SEX = Coding(("male", "gender", "sex"), ("female", "male"))
RACE = Coding(
    ("race",),
    ("Asian", "Black", "White"),
    {"Black or African American": 1, "White or Caucasian": 2},
)
ETHNICITY = Coding(("hispanic", "ethnicity"), ("non-Hispanic", "Hispanic"))
LANGUAGE = Coding(("language",), ("English", "Spanish", "other"), {"others": 2})
MARITAL_STATUS = Coding(
    ("maritalstatus",),
    ("married or partnered", "single", "divorced", "widowed", "legally separated"),
    {"married": 0, "marriage or partnered": 0, "leg-sep": 4},
)
ATTRIBUTES: Mapping[str, Coding] = {
    "sex": SEX,
    "race": RACE,
    "ethnicity": ETHNICITY,
    "language": LANGUAGE,
    "marital_status": MARITAL_STATUS,
}
"""The attributes of both data sets, with the codes of the data sets' authors."""

NO_GLAUCOMA = Coding(("glaucoma",), ("no glaucoma", "glaucoma"))


@dataclasses.dataclass(eq=False, kw_only=True)
class ArchiveConfig(tfds.core.BuilderConfig):
    """The values to read from a subject's file, and their keys.

    Attributes:
      label: The coding of the outcome.
      attributes: Codings of sensitive attributes, by their names in a record.
      age_keys: Keys of the age in years; without keys ages are not recorded.
      image_key: Key of the fundus image.
      filename_column: Column of file names in tables beside the files.
    """

    label: Coding = NO_GLAUCOMA
    attributes: Mapping[str, Coding] = dataclasses.field(
        default_factory=lambda: dict(ATTRIBUTES)
    )
    age_keys: tuple[str, ...] = ("age",)
    image_key: str = "slo_fundus"
    filename_column: str = "filename"


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of records from one ``.npz`` file per subject, by folders of splits."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look beside the code for checksums of downloads, with a package that
    # TFDS does not install; these data sets have no checksums.
    code_path = None
    PAGE = ""
    CITATION = ""

    def __init__(self, *, file_format: str | None = "array_record", **kwargs: Any):
        """Makes a builder; see ``tfds.core.DatasetBuilder`` for the other arguments.

        Raises:
          ValueError: If the prepared files were made with other settings.
        """
        super().__init__(file_format=file_format, **kwargs)
        made = dict(self.info.metadata or {}).get("settings")
        if made != self._settings():
            raise ValueError(
                f"the config {self._config.name!r} must have the settings that prepared"
                f" {self.data_dir}, {made}; got others. Give the config another name."
            )

    @property
    def _config(self) -> Any:
        """The config, with the fields of its builder."""
        return self.builder_config

    def _settings(self) -> dict[str, Any]:
        # Converted as by JSON, to compare with the saved settings.
        fields = dataclasses.asdict(self._config)
        base = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        ours = {name: value for name, value in fields.items() if name not in base}
        return json.loads(json.dumps(ours))

    def _info(self) -> tfds.core.DatasetInfo:
        config = self._config
        features = {
            "id": tfds.features.Text(doc="Name of the subject's file."),
            "image": image_feature("Fundus image (scanning laser ophthalmoscopy)."),
            "label": tfds.features.ClassLabel(names=list(config.label.levels)),
            "age": tfds.features.Scalar(np.float32, doc="Years; NaN: not recorded."),
            "attributes": {
                name: tfds.features.ClassLabel(names=[*coding.levels, NOT_RECORDED])
                for name, coding in config.attributes.items()
            },
            **self._own_features(),
        }
        modalities = [name for name in ("image", "volume", "note") if name in features]
        features["present"] = dict.fromkeys(modalities, np.bool_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=(self.__doc__ or "").split("\n")[0],
            features=tfds.features.FeaturesDict(features),
            homepage=self.PAGE,
            citation=self.CITATION,
            license=LICENSE,
            metadata=tfds.core.MetadataDict(settings=self._settings(), absent={}),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        if self.info.file_format == tfds.core.FileFormat.PARQUET:
            raise ValueError(
                "file_format must be 'array_record'; got 'parquet', which loses rows."
            )
        folder = Path(dl_manager.manual_dir)
        files = split_files(self._folder(folder))
        table = self._table(folder)
        names = {path.stem for paths in files.values() for path in paths}
        if table and not names & table.keys():
            raise ValueError(
                f"the table in {folder} must name the subjects' files; got names such "
                f"as {next(iter(table))!r}, and none of the files."
            )
        return {
            split: self._generate_examples(split, paths, table)
            for split, paths in files.items()
        }

    def _generate_examples(
        self, split: str, files: list[Path], table: Table
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self._config
        absent: dict[str, int] = {}
        for path in files:
            with Archive(path, table.get(path.stem)) as archive:
                image = archive.pixels(config.image_key, 2)
                label = archive.scalar(config.label.keys, config.label.level)
                if label == NOT_RECORDED:
                    raise ValueError(f"{path} must have a label; got {label!r}.")
                years = archive.scalar(config.age_keys, age) if config.age_keys else -1
                example = {
                    "id": path.stem,
                    "image": png(BLACK if image is None else image),
                    "label": label,
                    "age": age(years),
                    "attributes": {
                        name: archive.scalar(coding.keys, coding.level)
                        for name, coding in config.attributes.items()
                    },
                    "present": {"image": image is not None},
                }
                own, present = self._own_values(archive)
            example |= own
            example["present"] |= present
            for name, there in example["present"].items():
                absent[name] = absent.get(name, 0) + (not there)
            yield path.stem, example
        counts = cast(tfds.core.MetadataDict, self.info.metadata)
        counts["absent"][split] = absent

    def _folder(self, manual: Path) -> Path:
        """Returns the folder that holds the splits' folders."""
        return manual

    @abc.abstractmethod
    def _table(self, manual: Path) -> Table:
        """Returns the rows of a table for values that are not in the files."""

    @abc.abstractmethod
    def _own_features(self) -> dict[str, Any]:
        """Returns the features that only this data set has."""

    @abc.abstractmethod
    def _own_values(self, archive: Archive) -> tuple[dict[str, Any], dict[str, bool]]:
        """Returns a subject's values of these features, and present modalities."""


def image_feature(doc: str | None = None) -> Any:
    """Returns the feature of a grey image of any size, stored as PNG."""
    return tfds.features.Image(shape=(None, None, 1), encoding_format="png", doc=doc)
