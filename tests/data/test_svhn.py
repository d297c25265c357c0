"""SVHN's MATLAB files: against scipy, by hand, and damaged in every way."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from fastcnn.data import DataError, load_data
from fastcnn.data.matlab import read_matlab


def save(path: Path, zipped: bool = True, **arrays: Any) -> None:
    scipy.io.savemat(path, arrays, do_compression=zipped)


def digits(folder: Path, count: int = 7, *, zipped: bool = True, **replaced: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both parts in a folder, the same numbers in each; pictures (N, 32, 32, 3) and labels as in the files."""
    rng = np.random.default_rng(count)
    pictures = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.resize(np.array([1, 10, 5, 9], np.uint8), count)
    held = {"X": pictures.transpose(1, 2, 3, 0), "y": labels[:, None], **replaced}
    for part in ("train", "test"):
        save(folder / f"{part}_32x32.mat", zipped, **{key: value for key, value in held.items() if value is not None})
    return pictures, labels


@pytest.mark.parametrize("zipped", [True, False])
def test_pictures_and_labels(tmp_path: Path, zipped: bool) -> None:
    pictures, labels = digits(tmp_path, zipped=zipped)
    test = load_data(f"svhn:{tmp_path}")
    np.testing.assert_array_equal(test.images, pictures)
    assert np.asarray(test.images).flags.c_contiguous
    assert test.labels is not None
    assert test.labels.tolist() == [1, 0, 5, 9, 1, 0, 5]
    assert test.labels.tolist() == (labels % 10).tolist()
    assert test.classes == tuple("0123456789")
    assert test.num_classes == 10
    assert len(load_data(f"svhn:{tmp_path}", split="train")) == 7
    assert len(load_data(f"svhn:{tmp_path}", split="all")) == 14
    (tmp_path / "train_32x32.mat").unlink()
    assert len(load_data(f"svhn:{tmp_path}")) == 7


def test_labels_may_be_numbers_of_matlab(tmp_path: Path) -> None:
    """MATLAB's own numbers are doubles."""
    digits(tmp_path, 3, y=np.array([[10.0], [2.0], [7.0]]))
    found = load_data(f"svhn:{tmp_path}").labels
    assert found is not None
    assert found.tolist() == [0, 2, 7]


PICTURES = np.zeros((32, 32, 3, 2), np.uint8)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"X": None}, "has no array 'X': give the cropped digits"),
    ({"y": None}, "has no array 'y'"),
    ({"X": PICTURES.astype(np.float32)}, r"shape (32, 32, 3, 2) and float32; allowed is (32, 32, 3, N) of uint8"),
    ({"X": PICTURES[:, :, :, 0]}, "pictures of shape (32, 32, 3)"),
    ({"X": PICTURES[:16]}, "pictures of shape (16, 32, 3, 2)"),
    ({"y": np.array([[1], [2], [3]], np.uint8)}, "labels of shape (3, 1) for 2 pictures; allowed is (N, 1)"),
    ({"y": np.array([[1, 2]], np.uint8)}, "labels of shape (1, 2)"),
    ({"y": np.array([[0], [2]], np.uint8)}, "labels 0 to 2; SVHN has 1 to 10"),
    ({"y": np.array([[11], [2]], np.uint8)}, "labels 2 to 11"),
    ({"y": np.array([[1.5], [2.0]])}, "labels 1.5 to 2.0"),
    ({"y": np.array([[np.nan], [2.0]])}, "labels nan to nan"),
    ({"y": "text"}, "y is no array of real numbers"),
    ({"X": {"a": 1}}, "X is no array of real numbers"),
    ({"y": np.array([[1j], [2]])}, "y is no array of real numbers"),
    ({"X": PICTURES[..., :0], "y": np.zeros((0, 1), np.uint8)}, "holds no picture"),
]


@pytest.mark.parametrize(("replaced", "words"), BAD, ids=[words for _, words in BAD])
def test_what_is_not_svhn_is_named(tmp_path: Path, replaced: dict[str, Any], words: str) -> None:
    digits(tmp_path, 2, **replaced)
    with pytest.raises(DataError) as caught:
        load_data(f"svhn:{tmp_path}")
    assert words in str(caught.value)


def test_places_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no test_32x32\.mat: give the folder of SVHN's cropped digits"):
        load_data(f"svhn:{tmp_path}")
    with pytest.raises(DataError, match="names no place: write svhn:DIR"):
        load_data("svhn")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="is a file: give the folder"):
        load_data(f"svhn:{tmp_path / 'file'}")


ARRAYS = {
    "bytes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "small": np.array([[1]], np.int8),
    "wide": np.array([[-(2**40), 2**40]], np.int64),
    "real": np.linspace(0, 1, 6).reshape(3, 2),
    "single": np.ones((1, 5), np.float32),
    "none": np.zeros((0, 4), np.uint16),
    "a_name_longer_than_four_letters": np.array([[7]], np.uint32),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays_are_those_that_scipy_reads(tmp_path: Path, zipped: bool) -> None:
    others = {"text": "words", "cell": np.array(["a", 1], dtype=object), "structure": {"field": 1.0}}
    save(tmp_path / "a.mat", zipped, **others, **ARRAYS)
    found = read_matlab(tmp_path / "a.mat", tuple(ARRAYS))
    theirs = scipy.io.loadmat(tmp_path / "a.mat")
    assert set(found) == set(ARRAYS)
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        np.testing.assert_array_equal(array, theirs[name])
        assert array.dtype == ARRAYS[name].dtype
    assert list(read_matlab(tmp_path / "a.mat", ["wide"])) == ["wide"]
    assert read_matlab(tmp_path / "a.mat", ["absent"]) == {}


def test_files_of_machines_that_count_from_the_other_end(tmp_path: Path) -> None:
    """By hand from the format's description: (2, 3) of int16, name and one short element."""

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, len(body)) + body + b"\0" * (-len(body) % 8)

    short = struct.pack(">HH", 1, 1) + b"v\0\0\0"
    values = np.array([[1, 2, 3], [-4, 5, 600]], ">i2")
    array = element(6, struct.pack(">II", 10, 0)) + element(5, struct.pack(">ii", 2, 3)) + short
    array += element(3, values.tobytes(order="F"))
    file = b"by hand".ljust(124) + struct.pack(">H", 0x0100) + b"MI" + element(14, array)
    (tmp_path / "b.mat").write_bytes(file)
    found = read_matlab(tmp_path / "b.mat", ["v"])["v"]
    np.testing.assert_array_equal(found, values)
    assert found.dtype.isnative
    assert sys.byteorder == "big" or scipy.io.loadmat(io.BytesIO(file))["v"].tolist() == found.tolist()


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "test_32x32.mat"
    for content, words in (
        (b"", "does not begin as MATLAB files do"),
        (b"x" * 500, "does not begin as MATLAB files do"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF" * 9, "of version 2: save it with -v7 or older"),
        (b"".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 3, 8) + b"12345678", "an element has kind 3"),
        (b"".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, 8) + b"12345678", "does not inflate"),
        (b"".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, 1 << 30), "an element of 1073741824 bytes is cut off"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is damaged or no MATLAB 5 file") as caught:
            load_data(f"svhn:{tmp_path}")
        assert words in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_is_named_and_nothing_else_happens(tmp_path: Path, zipped: bool) -> None:
    """Bytes changed and files cut off at random: what was saved, or a DataError."""
    digits(tmp_path, 2, zipped=zipped)
    path = tmp_path / "test_32x32.mat"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(100, 400, rng.integers(1, 4)):
            damaged[int(place)] = rng.integers(0, 256)
        if rng.random() < 0.3:
            damaged = damaged[: int(rng.integers(0, len(damaged)))]
        path.write_bytes(damaged)
        try:
            assert np.asarray(load_data(f"svhn:{tmp_path}").images).shape == (2, 32, 32, 3)
        except DataError:
            refused += 1
    assert refused > 100
