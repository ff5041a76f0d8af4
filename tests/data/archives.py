"""Small archives of the schema of FairVision and FairVLMed, for tests to spoil."""

import numpy as np

SPLITS = {"Training": 4, "Validation": 2, "Test": 3}


def images(subject):
    """A subject's fundus and volume, of no size that another axis has."""
    rng = np.random.default_rng(subject)
    fundus = rng.integers(0, 256, (9, 7), np.uint8)
    return fundus, rng.integers(0, 256, (12, 6, 5), np.uint8)


def person(subject):
    """Codes as the releases have them: floats, integers, and −1 for unknown."""
    return {
        "age": np.float64(50.5 + subject),
        "male": np.float64(subject % 2),
        "race": np.int64(subject % 3),
        "hispanic": np.int64(-1 if subject == 0 else subject % 2),
        "language": np.int64(subject % 3),
        "maritalstatus": np.int64(subject % 5),
    }


def write(folder, arrays, splits=SPLITS):
    """One file a subject, numbered over the splits in their order."""
    subject = 0
    for split, number in splits.items():
        (folder / split).mkdir(parents=True)
        for _ in range(number):
            path = folder / split / f"data_{subject:05d}.npz"
            np.savez(path, **arrays(subject))
            subject += 1
    return folder


def fairvision(subject):
    fundus, volume = images(subject)
    own = {"slo_fundus": fundus, "oct_bscans": volume, "glaucoma": subject % 2}
    return own | person(subject)


def fairvlmed(subject):
    people = person(subject)
    people["gender"] = people.pop("male")
    people["ethnicity"] = people.pop("hispanic")
    note = "" if subject == 1 else f"Patient {subject}: pressure 21 mmHg, naïve."
    own = {"slo_fundus": images(subject)[0], "glaucoma": subject % 2, "note": note}
    return own | people
