"""Harvard-FairVLMed: fundus images and clinical notes of glaucoma patients."""

import dataclasses
from pathlib import Path
from typing import Any

from fairjax._extra import extra
from fairjax.data._archives import Archive, Table, read_table
from fairjax.data._builder import ArchiveBuilder, ArchiveConfig

with extra("data", needed_by="reading the imaging data sets"):
    import tensorflow_datasets as tfds

_NO_NOTE = frozenset({"", "nan", "none"})


@dataclasses.dataclass(eq=False, kw_only=True)
class FairVLMedConfig(ArchiveConfig):
    """The note of FairVLMed to read, and its source.

    Attributes:
      note_keys: Possible keys of the note; the first present key is used.
      note_table: A CSV file in ``manual_dir`` with ``note_keys`` as columns; if empty,
        ``note_keys`` are keys of the subjects' files.

    Example:
      >>> from fairjax.data import FairVLMed, FairVLMedConfig
      >>> config = FairVLMedConfig(
      ...     name="own_summaries", note_keys=("summary",), note_table="own.csv"
      ... )
      >>> builder = FairVLMed(config=config, data_dir="/nowhere")
      >>> builder.info.full_name
      'fairvlmed/own_summaries/1.0.0'
    """

    note_keys: tuple[str, ...] = ("note",)
    note_table: str = ""


class FairVLMed(ArchiveBuilder):
    """Harvard-FairVLMed: fundus images and clinical notes of 10,000 subjects.

    The config ``original_notes`` (the default) reads the notes in the subjects' files;
    ``summaries`` reads summaries by GPT-4 in ``data_summary.csv``. A record has ``id``,
    ``image`` (the fundus, uint8 ``[H, W, 1]``), ``note``, ``label``, ``age``,
    ``attributes`` (codes of sex, race, ethnicity, language and marital status; the last
    code is "not recorded") and ``present``, the modalities of the subject. An absent
    note is an empty text, an absent image one black pixel;
    ``builder.info.metadata["absent"]`` counts absent modalities by split.

    Nothing is downloaded. The authors provide the files for non-commercial research.
    The files must lie in the ``manual_dir`` of ``tfds.download.DownloadConfig``.

    Raises:
      ValueError: While preparing, if a folder or file is not as described; the message
        names the path.

    References:
      Luo et al. (2024), "FairCLIP: Harnessing Fairness in Vision-Language Learning",
      CVPR.

    Example:
      >>> from fairjax.data import FairVLMed
      >>> builder = FairVLMed(data_dir="/nowhere")
      >>> builder.builder_config.name, builder.info.features["label"].names
      ('original_notes', ['no glaucoma', 'glaucoma'])
    """

    name = "fairvlmed"
    BUILDER_CONFIGS = (
        FairVLMedConfig(
            name="original_notes",
            description="Clinical notes as written, without names.",
        ),
        FairVLMedConfig(
            name="summaries",
            description="Summaries of the notes by GPT-4.",
            note_keys=("gpt4_summary", "note"),
            note_table="data_summary.csv",
        ),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Ask the authors for Harvard-FairVLMed10k and unpack it. manual_dir holds the folders
    Training, Validation and Test (or Testing), and data_summary.csv for the summaries.
    """
    PAGE = "https://github.com/Harvard-Ophthalmology-AI-Lab/FairCLIP"
    CITATION = """\
    @inproceedings{luo2024fairclip,
      title={FairCLIP: Harnessing Fairness in Vision-Language Learning},
      author={Luo, Yan and others},
      booktitle={Conference on Computer Vision and Pattern Recognition},
      year={2024}
    }"""

    def _table(self, manual: Path) -> Table:
        config = self._config
        path = manual / config.note_table
        if not config.note_table:
            return {}
        table = read_table(path, config.filename_column)
        if not table:
            raise ValueError(f"{path} must hold rows with the notes; got none.")
        columns = list(next(iter(table.values())))
        if not set(config.note_keys) & set(columns):
            raise ValueError(
                f"{path} must have a column "
                f"{' or '.join(map(repr, config.note_keys))}; got {columns}."
            )
        return table

    def _own_features(self) -> dict[str, Any]:
        return {"note": tfds.features.Text(doc="Empty where it is absent.")}

    def _own_values(self, archive: Archive) -> tuple[dict[str, Any], dict[str, bool]]:
        config = self._config
        if config.note_table:
            row = archive.row
            note = next((row[key] for key in config.note_keys if key in row), "")
        else:
            note = archive.scalar(config.note_keys, str)
        note = "" if note.strip().casefold() in _NO_NOTE else note
        return {"note": note}, {"note": bool(note)}
