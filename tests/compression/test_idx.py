"""The IDX reader: what it reads, and every lie a file can tell."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from fastcnn.data.idx import read_idx


def idx(array: np.ndarray, kind: int) -> bytes:
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    ("kind", "dtype"), [(8, "u1"), (9, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_type_comes_back_in_native_order(tmp_path: Path, kind: int, dtype: str, packed: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    raw = idx(array, kind)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(raw, mtime=0) if packed else raw)
    got = read_idx(path)
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    assert np.array_equal(got, array)
    assert got.flags.writeable


GOOD = idx(np.arange(6, dtype="u1").reshape(2, 3), 8)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "must begin with two zero bytes"),
        (b"\x89PNG....", "must begin with two zero bytes"),
        (b"\0\0\x0a\x01\0\0\0\0", "element type 0x0a is unknown"),
        (b"\0\0\x08\0", "rank 0 does not fit"),
        (b"\0\0\x08\xff\0\0", "rank 255 does not fit a file of 6 bytes"),
        (GOOD[:-1], r"shape \(2, 3\) of uint8 needs 18 bytes, the file has 17"),
        (GOOD + b"x", "needs 18 bytes, the file has 19"),
        (b"\0\0\x0e\x03" + b"\xff" * 12, "needs"),
        (gzip.compress(GOOD, mtime=0)[:-9], "damaged gzip"),
        (b"\x1f\x8b" + b"\0" * 20, "damaged gzip"),
    ],
)
def test_lies_are_named(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_idx(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD, mtime=0)
    for raw in (GOOD, packed):
        for length in range(len(raw)):
            (tmp_path / "cut").write_bytes(raw[:length])
            with pytest.raises(ValueError, match="cut"):
                read_idx(tmp_path / "cut")


def test_a_missing_file_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")


@pytest.mark.data
def test_mnist_is_the_original(data_dir: Path) -> None:
    sums = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    for stem, digest in sums.items():
        array = read_idx(data_dir / "mnist" / f"{stem}.gz")
        assert hashlib.md5(idx(array, 8)).hexdigest() == digest
