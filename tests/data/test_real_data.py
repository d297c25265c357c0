"""The published data sets, as they lie in the shared data folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fastcnn.data import PRESETS, load_data

pytestmark = pytest.mark.data


def test_mnist_is_the_original(data_dir: Path) -> None:
    test = load_data(f"mnist:{data_dir / 'mnist'}")
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    assert images.shape == (10000, 28, 28, 1)
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    raw = b"\x00\x00\x08\x03" + np.array(images.shape[:3], ">u4").tobytes() + images.tobytes()
    assert hashlib.md5(raw, usedforsecurity=False).hexdigest() == "2646ac647ad5339dbf082846283269ea"


def test_cifar10_decodes_to_the_known_pixels(data_dir: Path) -> None:
    test = load_data(f"cifar10:{data_dir / 'cifar10'}")
    digest = hashlib.sha256(np.ascontiguousarray(test.images).tobytes()).hexdigest()
    assert digest == "5a6aa8185204d80b65d3dfb540696dadd5f10d185ded226a96665d3e0fc6259f"
    assert np.bincount(np.asarray(test.labels)).tolist() == [1000] * 10


def test_imagenet_sample(data_dir: Path) -> None:
    data = load_data(f"folder:{data_dir / 'imagenet' / 'imagenet_sample_200.zip'}")
    assert len(data) == 200
    assert np.asarray(data.labels).tolist() == list(range(0, 1000, 5))
    assert data.classes[0] == "tench"
    x, y = next(data.limit(4).batches(PRESETS["imagenet"], batch_size=4))
    assert x.shape == (4, 3, 224, 224)
    assert y is not None
    assert np.isfinite(x).all()
