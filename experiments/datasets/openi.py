"""Indiana University's chest radiograph reports: the indication for the picture."""

import gzip
import re
import tarfile
from collections.abc import Mapping
from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd

from experiments.datasets.files import verified_bytes
from experiments.datasets.modalities import Text
from experiments.datasets.multimodal import MultimodalTable, validate_multimodal
from experiments.datasets.table import NOT_RECORDED, ClinicalTable, bands

_REPORTS = "torchxrayvision/data/NLMCXR_reports.tgz"
_PICTURES = "torchxrayvision/data/nlmcxr_dicom_metadata.csv.gz"
# Main terms that say that the lungs were not or could not be described.
_UNGRADED = {"no indexing", "technical quality of image unsatisfactory"}
_WORD = re.compile(r"[a-z]+|[0-9]+")
_FEMALE = {"female", "woman", "girl", "lady", "she", "her", "f"}
_MALE = {"male", "man", "boy", "gentleman", "he", "his", "m"}
_AFTER = "written after the picture was read: tells the label"
_DROPPED = {
    "FINDINGS": _AFTER,
    "IMPRESSION": _AFTER,
    "MeSH": "the label is made of it",
    "COMPARISON": "names earlier pictures, most of them blackened",
    "parentImage": "figures computed from the picture",
    "Patient's Sex": "empty in every row",
    "every other DICOM field": "describes the device or the picture, not the patient",
}


def openi() -> MultimodalTable:
    """Returns radiograph reports with an abnormal finding to predict beforehand.

    The indication, a few words by the person who requested the picture, and the age are
    known before the picture is read. The report's findings and impression are not known
    then, and are never used.

    - "static": age in years, from the dates of birth and of the study in the
      pictures' metadata.
    - "indication": the words of the indication; absent in 2 %.

    The metadata do not record sex. The attribute is the sex that the indication
    mentions ("female", "gentleman", "his"); 7 of 10 indications mention none. So the
    attribute partly describes the writing, and a model that reads the words can see it.
    Ages in the indication were blackened ("XXXX-year-old").

    Each study has its own patient number, so a person with two studies counts as two
    patients and cannot be identified.

    Returns:
        3,752 studies with a known age and a description of the lungs.

    Raises:
        ModuleNotFoundError: If torchxrayvision is not installed.
        ValueError: If a file is not the pinned one.

    References:
        Demner-Fushman et al. 2016, "Preparing a collection of radiology examinations
        for distribution and retrieval".
    """
    reports = parse_reports(verified_bytes(_REPORTS))
    return build(reports, parse_ages(verified_bytes(_PICTURES)))


def parse_reports(archive: bytes) -> pd.DataFrame:
    """Reads a gzipped tar archive of report files.

    Args:
        archive: The archive's bytes, with an XML file for each report.

    Returns:
        A row for each report, sorted by `study`: `study` (the identifier), `indication`
        (the text, empty if there is none), `terms` (a tuple of lower-case main terms)
        and `images` (a tuple of identifiers).
    """
    rows = []
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as files:
        for member in files:
            file = files.extractfile(member)
            if file is None or not member.name.endswith(".xml"):
                continue
            root = ET.parse(file).getroot()
            study = root.find("uId")
            if study is None:
                raise ValueError(f"a report must have a uId; {member.name} has no uId")
            indication = root.findtext(".//AbstractText[@Label='INDICATION']")
            rows.append(
                {
                    "study": study.attrib["id"],
                    "indication": (indication or "").strip(),
                    "terms": tuple(
                        (term.text or "").strip().lower()
                        for term in root.iterfind(".//MeSH/major")
                    ),
                    "images": tuple(
                        image.attrib["id"] for image in root.iterfind("parentImage")
                    ),
                }
            )
    if not rows:
        raise ValueError("the archive must contain a report; got none")
    return pd.DataFrame(rows).sort_values("study", ignore_index=True)


def parse_ages(table: bytes) -> Mapping[str, float]:
    """Reads each picture's age of the patient, in years, from the DICOM metadata.

    Args:
        table: A gzipped CSV with `imageid`, `Study Date` and `Patient's Birth Date`,
            the dates as YYYYMMDD.

    Returns:
        Image identifier -> age; NaN where a date cannot be read.
    """
    columns = ["imageid", "Study Date", "Patient's Birth Date"]
    frame = pd.read_csv(BytesIO(gzip.decompress(table)), usecols=columns, dtype=str)
    studied, born = (
        pd.to_datetime(frame[column], format="%Y%m%d", errors="coerce")
        for column in columns[1:]
    )
    years = (studied - born).dt.days / 365.25
    return dict(zip(frame["imageid"], years, strict=True))


def build(reports: pd.DataFrame, ages: Mapping[str, float]) -> MultimodalTable:
    """Returns the data of parsed reports and ages.

    Args:
        reports: As `parse_reports` returns them.
        ages: As `parse_ages` returns them.

    Returns:
        The validated data, as `openi` describes them.
    """
    # All pictures of a study give the same age.
    age = pd.Series(
        [
            next((ages[image] for image in images if image in ages), np.nan)
            for images in reports["images"]
        ],
        dtype=np.float64,
    )
    findings = pd.Series([set(terms) - _UNGRADED for terms in reports["terms"]])
    ungraded = ~findings.map(bool)
    usable = ~ungraded & age.notna()
    texts = reports.loc[usable, "indication"].astype(str)
    words = tuple(tuple(_WORD.findall(text.lower())) for text in texts)
    years = age[usable].reset_index(drop=True)
    sex = pd.Categorical([_sex(one) for one in words], ["female", "male", NOT_RECORDED])
    age_group = bands(years, (0, 40, 65), ("<40", "40-64", ">=65"))
    written = np.array([bool(one) for one in words], dtype=np.bool_)
    return validate_multimodal(
        MultimodalTable(
            table=ClinicalTable(
                name="openi",
                title="Chest radiograph reports, Indiana University",
                features=pd.DataFrame({"age": years}),
                label=(findings[usable] != {"normal"}).to_numpy(dtype=np.int8),
                outcome="an abnormal finding in the report",
                attributes=pd.DataFrame({"sex": sex, "age": age_group}),
                patient_ids=reports["study"][usable].to_numpy(),
                dropped=_DROPPED,
                excluded={
                    "neither normal nor a finding": int(ungraded.sum()),
                    "no picture, and so no age": int((~ungraded & age.isna()).sum()),
                },
                citation=(
                    "Demner-Fushman et al., JAMIA 23:304-310, 2016; Indiana University "
                    "and the National Library of Medicine; as shipped by the "
                    "torchxrayvision package (Cohen)"
                ),
                licence=(
                    "CC BY-NC-ND 4.0 (the reports, as each of them says); Apache-2.0 "
                    "(the torchxrayvision package); installed, never copied"
                ),
            ),
            modalities={"indication": Text(words)},
            present=np.stack([np.ones(len(words), np.bool_), written], axis=1),
            weights=np.ones(len(words), np.float32),
        )
    )


def _sex(words: tuple[str, ...]) -> str:
    """Returns the sex that the words mention; not recorded if none or both."""
    female, male = not _FEMALE.isdisjoint(words), not _MALE.isdisjoint(words)
    if female == male:
        return NOT_RECORDED
    return "female" if female else "male"
