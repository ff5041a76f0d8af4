"""Harvard-FairVision: fundus images and OCT volumes of three eye diseases."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fairjax._extra import extra
from fairjax.data._archives import Archive, Table, png, read_table, subfolder
from fairjax.data._builder import (
    BLACK,
    NO_GLAUCOMA,
    ArchiveBuilder,
    ArchiveConfig,
    image_feature,
)
from fairjax.data.coding import Coding

with extra("data", needed_by="reading the imaging data sets"):
    import tensorflow_datasets as tfds

AMD_STAGE = Coding(
    # The files' description gives AMD's condition the key of diabetic retinopathy; the
    # authors' code reads another key.
    ("amd_condition", "dr_subtype"),
    ("no AMD", "early", "intermediate", "late"),
    {
        "not.in.icd.table": 0,
        "no.amd.diagnosis": 0,
        "early.dry": 1,
        "intermediate.dry": 2,
        "advanced.atrophic.dry.with.subfoveal.involvement": 3,
        "advanced.atrophic.dry.without.subfoveal.involvement": 3,
        "wet.amd.active.choroidal.neovascularization": 3,
        "wet.amd.inactive.choroidal.neovascularization": 3,
        "wet.amd.inactive.scar": 3,
    },
)
"""Stages of age-related macular degeneration, as published."""

THREATENING_DR = Coding(
    ("dr_subtype",),
    ("not vision-threatening", "vision-threatening"),
    {
        "not.in.icd.table": 0,
        "no.dr.diagnosis": 0,
        "mild.npdr": 0,
        "moderate.npdr": 0,
        "severe.npdr": 1,
        "pdr": 1,
    },
)
"""Vision-threatening diabetic retinopathy, as published."""

# The folder of each disease, which names its config and its table.
_DISEASES = (
    ("Glaucoma", NO_GLAUCOMA, "Glaucoma, or none."),
    ("AMD", AMD_STAGE, "Stage of age-related macular degeneration."),
    ("DR", THREATENING_DR, "Vision-threatening diabetic retinopathy, or none."),
)


@dataclasses.dataclass(eq=False, kw_only=True)
class FairVisionConfig(ArchiveConfig):
    """One disease of FairVision, and the values to read.

    Attributes:
      folder: The disease's folder, in any case.
      num_slices: Number of slices of the volume to keep, the middles of equal parts.
      volume_key: Key of the volume.
      table: An optional CSV file beside the diseases' folders, for values that are not
        in the subjects' files.

    Example:
      >>> from fairjax.data import FairVision, FairVisionConfig
      >>> config = FairVisionConfig(
      ...     name="few_slices", folder="Glaucoma", num_slices=3
      ... )
      >>> builder = FairVision(config=config, data_dir="/nowhere")
      >>> builder.info.features["volume"].shape
      (3, None, None, 1)
    """

    folder: str
    num_slices: int = 10
    volume_key: str = "oct_bscans"
    table: str = ""


class FairVision(ArchiveBuilder):
    """Harvard-FairVision: 10,000 subjects each of glaucoma, AMD and DR.

    The configs are ``glaucoma`` (the default), ``amd`` and ``dr``. A record has ``id``,
    ``image`` (the fundus, uint8 ``[H, W, 1]``), ``volume`` (slices of the OCT,
    ``[num_slices, H, W, 1]``), ``label``, ``age``, ``attributes`` (codes of sex, race,
    ethnicity, language and marital status; the last code is "not recorded") and
    ``present``, the modalities of the subject. Absent modalities are one black pixel;
    ``builder.info.metadata["absent"]`` counts absent modalities by split.

    Nothing is downloaded. The authors provide the files for non-commercial research.
    The files must lie in the ``manual_dir`` of ``tfds.download.DownloadConfig``.

    Raises:
      ValueError: While preparing, if a folder or file is not as described; the message
        names the path.

    References:
      Luo et al. (2023), "FairVision: Equitable Deep Learning for Eye Disease Screening
      via Fair Identity Scaling", arXiv:2310.02492.

    Example:
      >>> from fairjax.data import FairVision
      >>> builder = FairVision(config="amd", data_dir="/nowhere")
      >>> builder.info.features["label"].names
      ['no AMD', 'early', 'intermediate', 'late']
      >>> builder.info.features["attributes"]["sex"].names
      ['female', 'male', 'not recorded']
    """

    name = "fairvision"
    BUILDER_CONFIGS = tuple(
        FairVisionConfig(
            name=folder.lower(),
            description=description,
            folder=folder,
            label=label,
            table=f"data_summary_{folder.lower()}.csv",
        )
        for folder, label, description in _DISEASES
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Ask the authors for Harvard-FairVision30k and unpack it. manual_dir holds the
    folders AMD, DR and Glaucoma, each with Training, Validation and Test (or train, val
    and test).
    """
    PAGE = "https://github.com/Harvard-Ophthalmology-AI-Lab/FairVision"
    CITATION = """\
    @article{luo2023fairvision,
      title={FairVision: Equitable Deep Learning for Eye Disease Screening via Fair
             Identity Scaling},
      author={Luo, Yan and others},
      journal={arXiv:2310.02492},
      year={2023}
    }"""

    def _folder(self, manual: Path) -> Path:
        return subfolder(manual, self._config.folder)

    def _table(self, manual: Path) -> Table:
        config = self._config
        if not config.table:
            return {}
        return read_table(manual / config.table, config.filename_column)

    def _own_features(self) -> dict[str, Any]:
        number = self._config.num_slices
        return {"volume": tfds.features.Sequence(image_feature(), length=number)}

    def _own_values(self, archive: Archive) -> tuple[dict[str, Any], dict[str, bool]]:
        number = self._config.num_slices
        volume = archive.pixels(self._config.volume_key, 3)
        if volume is None:
            slices = [BLACK] * number
        elif len(volume) < number:
            raise ValueError(
                f"{archive.path}: the volume must have num_slices={number} slices or "
                f"more; got {len(volume)}. Lower num_slices."
            )
        else:
            middles = (2 * np.arange(number) + 1) * len(volume) // (2 * number)
            slices = volume[middles]
        return {"volume": [png(one) for one in slices]}, {"volume": volume is not None}
