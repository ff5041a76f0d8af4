"""What the audited data cannot tell, chosen by the facts of the audit."""

from fairjax.audit.formats import count, joined, level, plural
from fairjax.audit.schema import Document, DocumentLike


def limits(document: DocumentLike) -> list[str]:
    """The limits that apply to the document, one entry each.

    Example:
      >>> found = limits({"cohort": [], "gaps": [], "settings": {"confidence": 0.95},
      ...     "discovery": [], "comparison": [], "sensitivity": [],
      ...     "data": {"models": [], "attributes": [], "rows_used": 3,
      ...         "rows_read": 3, "rows_left_out": {}, "patients": None}})
      >>> found[2].split(",")[0]
      'No patient identifier was given'
    """
    document = Document.of(document)
    return [
        _TRUTH,
        _SAMPLE,
        *_rows(document),
        *_groups(document),
        *_thresholds(document),
        *_tests(document),
        _CAUSE,
        _MODEL,
        _DRIFT,
    ]


# What holds for every audit of a table of predictions.
_TRUTH = (
    "The outcome column is taken as the truth. Where diagnosis, coding or access to "
    "care differ between groups, error rates and calibration inherit the difference, "
    "and this table cannot show it."
)
_SAMPLE = (
    "The rows are the patients who came to be in this table. Patients who were never "
    "admitted, tested or scored are not in it, and may differ between groups."
)
_CAUSE = (
    "A difference between groups is described, not explained: nothing here says what "
    "causes it, nor what would remove it."
)
_MODEL = (
    "Intervals and tests hold the model fixed. They cover the sampling of patients, "
    "not another training run, tuning, or the choice of this data set."
)
_DRIFT = (
    "Calibration, rates and prevalence are those of this place and period. They drift "
    "as case mix and practice change, and are to be checked again where the model is "
    "used."
)


def _rows(document: Document) -> list[str]:
    data = document.data
    found = []
    if data.patients is None:
        found.append(
            "No patient identifier was given, so that rows were taken as independent "
            "patients. If patients have several rows, intervals are too narrow and "
            "p-values too small."
        )
    elif data.patients < data.rows_used:
        found.append(
            f"{plural(data.patients, 'patient')} "
            f"{'has' if data.patients == 1 else 'have'} "
            f"{plural(data.rows_used, 'row')}. Intervals and tests count "
            "patients; those at other thresholds than the audited one take a "
            "patient's rows to be as alike as at that one."
        )
    left_out = {k: n for k, n in data.rows_left_out.items() if n}
    if left_out:
        reasons = joined([f"{reason}: {count(n)}" for reason, n in left_out.items()])
        found.append(
            f"{count(sum(left_out.values()))} of {plural(data.rows_read, 'row')} "
            f"were left out ({reasons}). If that depends on the outcome or the group, "
            "the rest is not representative."
        )
    return found


def _groups(document: Document) -> list[str]:
    attributes = document.data.attributes
    cohort = document.cohort
    settings = document.settings
    broad = (
        "Groups are those recorded in the table. A broad or wrongly recorded group "
        "can hide differences within it."
    )
    found = [broad]
    few = [c for c in cohort if c.status == "insufficient"]
    if few:
        found.append(
            f"{plural(len(few), 'group')} with fewer than {settings['min_positives']} "
            f"positives or {settings['min_negatives']} negatives "
            f"{'is' if len(few) == 1 else 'are'} not judged on what needs them"
            f"{_as_copies(document)}. No estimate is not the same as no harm."
        )
    if any(c.status == "suppressed" for c in cohort):
        found.append(
            f"Groups and rates with counts below {settings['suppress_below']} are "
            "withheld, and with them others that sums would give them back by. That is "
            "no formal disclosure control."
        )
    missing = [
        a.name for a in attributes if not a.intersection and "missing" in a.levels
    ]
    if missing:
        found.append(
            f"Missing values of {joined(missing)} are a group of their own, which may "
            "mix patients of every other group."
        )
    binned = [a.name for a in attributes if a.binned]
    if binned:
        found.append(
            f"{joined(binned)} was cut into levels; other cuts give other gaps."
        )
    single = [a for a in attributes if not a.intersection]
    if len(single) > 1 and len(single) == len(attributes):
        found.append(
            "Intersections of attributes were not tabulated: equality over each "
            "attribute does not imply it over their combinations."
        )
    return found


def _as_copies(document: Document) -> str:
    patients = document.data.patients
    if patients is None or patients == document.data.rows_used:
        return ""
    return "; a patient's rows count as what they add, which may be one row's worth"


def _thresholds(document: Document) -> list[str]:
    models = document.data.models
    found = []
    if any(m.threshold is None for m in models):
        found.append(
            "Decisions were taken as given; how they follow from a score was not "
            "audited."
        )
    sources = " ".join(m.threshold_source for m in models)
    if "validation" in sources:
        found.append(
            "The threshold was chosen on other rows of the same table. Intervals do "
            "not cover the uncertainty of that choice."
        )
    if any(m.threshold is not None for m in models):
        found.append(
            "Rates and their gaps belong to the threshold used; another threshold "
            "gives others, as the section on threshold sensitivity shows."
            if document.sensitivity
            else "Rates and their gaps belong to the threshold used."
        )
    return found


def _tests(document: Document) -> list[str]:
    confidence = document.settings["confidence"]
    tests = sum(g.p is not None for g in document.gaps)
    found = []
    if tests > 1:
        correction = {
            "holm": "Holm's",
            "benjamini-hochberg": "Benjamini and Hochberg's",
        }.get(document.settings["correction"], document.settings["correction"])
        found.append(
            f"{tests} gaps were tested. Adjusted p-values use {correction} "
            f"correction; of the unadjusted ones about {level(1 - confidence)} "
            "look like a finding where there is none."
        )
    if document.gaps:
        found.append(
            "A gap that chance could produce is not evidence that groups are equal: "
            "the interval's upper end says what remains possible."
        )
    if document.discovery:
        found.append(
            "Intersections found by search are leads. Their size is exaggerated by "
            "the search, and wants confirming on other patients."
        )
    if document.comparison:
        found.append(
            "Models are compared on these rows by AUROC. Whether a gain matters to "
            "patients, and whether the margin is acceptable, is not a statistical "
            "question."
        )
    return found
