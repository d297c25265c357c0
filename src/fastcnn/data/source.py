"""The DATA string: ``kind`` or ``kind:PLACE``, and the loader behind each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastcnn.data.cifar10 import load_cifar10
from fastcnn.data.dataset import DataError, Dataset
from fastcnn.data.digits import load_digits
from fastcnn.data.folder import load_folder
from fastcnn.data.mnist import load_mnist
from fastcnn.data.npz import load_npz
from fastcnn.data.svhn import load_svhn

Split = Literal["train", "test", "all"]

DATA_KINDS: dict[str, str] = {
    "digits": "digits",
    "mnist": "mnist:DIR",
    "fashion-mnist": "fashion-mnist:DIR",
    "cifar10": "cifar10:DIR",
    "svhn": "svhn:DIR",
    "folder": "folder:DIR (a sub-folder per class)",
    "npz": "npz:FILE (arrays x and y)",
}


def load_data(text: str, *, split: Split | None = None) -> Dataset:
    """Load what a DATA string names.

    Parameters
    ----------
    text : str
        ``digits``, ``mnist:DIR``, ``fashion-mnist:DIR``, ``cifar10:DIR``, ``svhn:DIR``, ``folder:DIR`` or
        ``npz:FILE``.
    split : {"train", "test", "all"}, optional
        None: the test part where the source has one, else every picture. A folder or npz without parts of its own is
        divided by position when asked for: every fifth picture is test, the rest train.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the string names no kind, the place is missing or its files are damaged.
    MissingExtraError
        If a library that the kind needs is not installed.
    """
    if split not in (None, "train", "test", "all"):
        raise DataError(f"split={split!r} is not allowed: choose 'train', 'test' or 'all'")
    kind, colon, place = text.partition(":")
    if kind not in DATA_KINDS:
        raise DataError(f"DATA {text!r} names no known kind {kind!r}: choose {', '.join(DATA_KINDS.values())}")
    if kind == "digits":
        if colon:
            raise DataError(f"DATA {text!r}: digits comes from scikit-learn and takes no place: write just 'digits'")
        return load_digits(split or "test")
    if not place:
        raise DataError(f"DATA {text!r} names no place: write {DATA_KINDS[kind]}")
    path = Path(place).expanduser()
    if not path.exists():
        raise DataError(f"DATA {text!r}: {path} does not exist: give the path of an existing {_thing(kind)}")
    if kind == "npz":
        return load_npz(path, split or "all", name=text)
    if kind == "folder":
        return load_folder(path, split or "all", name=text)
    if not path.is_dir():
        raise DataError(f"DATA {text!r}: {path} is a file: give the folder that holds the data files")
    if kind == "cifar10":
        return load_cifar10(path, split or "test", name=text)
    if kind == "svhn":
        return load_svhn(path, split or "test", name=text)
    return load_mnist(path, split or "test", name=text, fashion=kind == "fashion-mnist")


def _thing(kind: str) -> str:
    return "file" if kind == "npz" else "folder"
