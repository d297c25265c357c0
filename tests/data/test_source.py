"""DATA strings: every kind on files made here, and a table of what is refused and in which words."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcnn.data import DataError, Dataset, Preprocess, load_data


def _idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


def _mnist(folder: Path) -> np.ndarray:
    pictures = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    for part in ("train", "t10k"):
        _idx(folder / f"{part}-images-idx3-ubyte.gz", pictures)
        _idx(folder / f"{part}-labels-idx1-ubyte.gz", np.array([2, 0, 9], np.uint8))
    return pictures


def test_mnist(tmp_path: Path) -> None:
    pictures = _mnist(tmp_path)
    test = load_data(f"mnist:{tmp_path}")
    np.testing.assert_array_equal(test.images[:, :, :, 0], pictures)
    assert test.labels is not None
    assert test.labels.tolist() == [2, 0, 9]
    assert len(load_data(f"mnist:{tmp_path}", split="all")) == 6
    assert load_data(f"fashion-mnist:{tmp_path}").classes[9] == "ankle boot"


def test_cifar_binary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    labels = np.array([3, 1, 9, 0], np.uint8)
    records = np.concatenate([labels[:, None], pictures.transpose(0, 3, 1, 2).reshape(4, -1)], axis=1)
    place = tmp_path / "cifar-10-batches-bin"
    place.mkdir()
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        records.tofile(place / f"{name}.bin")
    test = load_data(f"cifar10:{tmp_path}")
    np.testing.assert_array_equal(test.images, pictures)
    assert test.labels is not None
    assert test.labels.tolist() == [3, 1, 9, 0]
    assert len(load_data(f"cifar10:{tmp_path}", split="train")) == 20


def _jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def test_cifar_jpeg(tmp_path: Path) -> None:
    blobs = [_jpeg((200, 10, 10)), _jpeg((10, 10, 200))]
    offsets = np.array([0, len(blobs[0]), len(blobs[0]) + len(blobs[1])], np.int64)
    data = np.frombuffer(b"".join(blobs), np.uint8)
    np.savez(tmp_path / "cifar10_test_jpeg.npz", data=data, offsets=offsets, labels=np.array([0, 5], np.uint8))
    test = load_data(f"cifar10:{tmp_path}")
    assert test.images.shape == (2, 32, 32, 3)  # type: ignore[union-attr]
    np.testing.assert_allclose(np.asarray(test.images[0]).mean((0, 1)), (200, 10, 10), atol=3)
    bad = offsets.copy()
    bad[1] = 10**9
    np.savez(tmp_path / "cifar10_test_jpeg.npz", data=data, offsets=bad, labels=np.array([0, 5], np.uint8))
    with pytest.raises(DataError, match="offsets do not rise"):
        load_data(f"cifar10:{tmp_path}")


def test_folder_is_lazy_rgb_and_sorted(tmp_path: Path) -> None:
    for name, count in (("zebra", 1), ("ape", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("L", (20 + i, 30), 40).save(tmp_path / name / f"{i}.png")
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("ape", "zebra")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1]
    assert data.images[1].shape == (30, 21, 3)
    (tmp_path / "ape" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png is no readable picture"):
        load_data(f"folder:{tmp_path}").images[0]


def test_folder_with_parts(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        (tmp_path / part / "a").mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / part / "a" / f"{i}.png")
    assert len(load_data(f"folder:{tmp_path}", split="train")) == 3
    assert len(load_data(f"folder:{tmp_path}", split="test")) == 2


def test_zip_with_labels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("images/a.jpg", _jpeg((0, 0, 0), (40, 30)))
        archive.writestr("labels.csv", "file,class_index,name\nimages/a.jpg,7,spoon\n")
    data = load_data(f"folder:{tmp_path / 'p.zip'}")
    assert data.labels is not None
    assert data.labels.tolist() == [7]
    assert data.classes[7] == "spoon"
    assert data.images[0].shape == (30, 40, 3)


def test_npz_and_its_split(tmp_path: Path) -> None:
    x = np.arange(10 * 4 * 4, dtype=np.uint8).reshape(10, 4, 4)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(10))
    place = f"npz:{tmp_path / 'd.npz'}"
    assert len(load_data(place)) == 10
    test, train = load_data(place, split="test"), load_data(place, split="train")
    assert test.labels is not None
    assert train.labels is not None
    assert test.labels.tolist() == [0, 5]
    assert sorted([*test.labels.tolist(), *train.labels.tolist()]) == list(range(10))
    np.savez(tmp_path / "e.npz", x=np.zeros((2, 3, 4, 4), np.float32))
    prepared = load_data(f"npz:{tmp_path / 'e.npz'}")
    assert prepared.labels is None
    batch, labels = next(prepared.batches(Preprocess(), batch_size=2))
    assert labels is None
    assert batch.shape == (2, 3, 4, 4)


def test_digits_parts_are_disjoint_and_whole() -> None:
    train, test, whole = (load_data("digits", split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (1437, 360, 1797)
    assert int(np.asarray(whole.images).max()) == 255
    assert np.bincount(np.asarray(test.labels)).min() >= 25


def test_batches_cover_the_set_once_in_seeded_order() -> None:
    digits = load_data("digits")
    seen = np.concatenate([y for _, y in digits.batches(Preprocess(), batch_size=100) if y is not None])
    np.testing.assert_array_equal(seen, digits.labels)
    one, two = (
        [y.tolist() for _, y in digits.batches(Preprocess(), batch_size=7, shuffle_seed=3) if y is not None]
        for _ in range(2)
    )
    assert one == two
    assert sorted(label for batch in one for label in batch) == sorted(seen.tolist())
    assert one[0] != seen[:7].tolist()


def test_limit_keeps_a_sorted_set_balanced(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((100, 2, 2), np.uint8), y=np.repeat(np.arange(10), 10))
    labels = load_data(f"npz:{tmp_path / 'd.npz'}").limit(20).labels
    assert labels is not None
    assert np.bincount(labels).tolist() == [2] * 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no known kind ''"),
        ("cifar100:x", "names no known kind 'cifar100'"),
        ("digits:here", "takes no place"),
        ("mnist", "names no place: write mnist:DIR"),
        ("npz:", "names no place"),
        ("mnist:{tmp}/none", "does not exist"),
        ("mnist:{tmp}", "has neither t10k-images-idx3-ubyte.gz"),
        ("cifar10:{tmp}", "binary version"),
        ("cifar10:{tmp}/junk.npz", "is a file: give the folder"),
        ("folder:{tmp}/empty", "no picture"),
        ("folder:{tmp}/junk.npz", "not a readable zip"),
        ("npz:{tmp}/junk.npz", "cannot be read as .npz"),
        ("npz:{tmp}/pickle.npz", "without pickle"),
        ("npz:{tmp}/no_x.npz", "has no array 'x'"),
        ("npz:{tmp}/ints.npz", "dtype int64"),
        ("npz:{tmp}/nan.npz", "NaN"),
        ("npz:{tmp}/rank.npz", "shape (4,)"),
        ("npz:{tmp}/none.npz", "holds no picture"),
        ("npz:{tmp}/short.npz", "labels of shape (1,)"),
        ("npz:{tmp}/minus.npz", "label -1 is negative"),
        ("npz:{tmp}/floaty.npz", "y has dtype float64"),
    ],
)
def test_bad_data_strings(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.npz").write_bytes(b"junk")
    u8 = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "no_x.npz", a=u8)
    np.savez(tmp_path / "ints.npz", x=u8.astype(np.int64))
    np.savez(tmp_path / "nan.npz", x=np.full((1, 1, 2, 2), np.nan, np.float32))
    np.savez(tmp_path / "rank.npz", x=np.zeros(4, np.uint8))
    np.savez(tmp_path / "none.npz", x=u8[:0], y=np.zeros(0, np.int64))
    np.savez(tmp_path / "short.npz", x=u8, y=np.zeros(1, np.int64))
    np.savez(tmp_path / "minus.npz", x=u8, y=np.array([0, -1]))
    np.savez(tmp_path / "floaty.npz", x=u8, y=np.zeros(2))
    with pytest.raises(DataError) as caught:
        load_data(text.format(tmp=tmp_path))
    assert words in str(caught.value)


def test_pickled_cifar_is_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DataError, match="is a pickle, which can run code"):
        load_data(f"cifar10:{tmp_path}")


def test_wrong_split() -> None:
    with pytest.raises(DataError, match="split='dev'"):
        load_data("digits", split="dev")  # type: ignore[arg-type]


def test_a_label_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="label 2, but there are only 2 classes"):
        Dataset(name="d", images=np.zeros((1, 2, 2, 1), np.uint8), labels=np.array([2]), classes=("a", "b"))


def test_pictures_of_different_sizes_in_one_batch(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i in range(2):
        Image.new("RGB", (20 + i, 30)).save(tmp_path / "a" / f"{i}.png")
    data = load_data(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="different shapes"):
        next(data.batches(Preprocess(), batch_size=2))
    assert next(data.batches(Preprocess(short_side=16, crop=16), batch_size=2))[0].shape == (2, 3, 16, 16)
