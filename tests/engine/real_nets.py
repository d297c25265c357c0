"""The pictures of the real-net tests, and the three ways to run them: ours, torch in float32, torch in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcnn.data import load_data
from fastcnn.data.transforms import centre_crop, resize_short_side

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
FP32_LIMIT, EXACT_LIMIT = 1e-4, 2e-6
"""Largest net error allowed at the tolerances "fp32" and "exact"."""
FLOAT64_BATCH = 10
"""Torch's float64 convolutions work on matrices that outgrow the caches at larger batches: half the speed at 250."""


def cifar(data_dir: Path, every: int = 1) -> np.ndarray:
    """CIFAR-10's test pictures, normalised: (10000 / every, 3, 32, 32)."""
    images = np.asarray(load_data(f"cifar10:{data_dir / 'cifar10'}").images)[::every]
    return np.ascontiguousarray(((images / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def photographs(data_dir: Path, size: int, *, caffe: bool) -> np.ndarray:
    """The 200 photographs, (200, 3, size, size); ``caffe``: mean subtracted from 0..255, else mean and std of 0..1."""
    data = load_data(f"folder:{data_dir / 'imagenet' / 'imagenet_sample_200.zip'}")
    pictures = []
    for index in range(len(data)):
        picture = centre_crop(resize_short_side(data.images[index], 256), (size, size)).astype(np.float32)
        pictures.append(picture - np.float32([123, 117, 104]) if caffe else (picture / np.float32(255) - MEAN) / STD)
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2), np.float32)


PHOTOGRAPHS: dict[str, Callable[[Path], np.ndarray]] = {
    "imagenet_mobilenet_v2": lambda data_dir: photographs(data_dir, 224, caffe=False),
    "imagenet_squeezenet1_0_dc": lambda data_dir: photographs(data_dir, 227, caffe=True),
}
"""Net to its pictures."""


def run_torch(model: torch.nn.Module, x: np.ndarray, batch: int, dtype: torch.dtype) -> np.ndarray:
    """Outputs of the model in ``dtype``; the model is float32 again afterwards."""
    model = model.to(dtype)
    with torch.inference_mode():
        parts = [model(torch.from_numpy(x[i : i + batch]).to(dtype)).numpy() for i in range(0, len(x), batch)]
    model.float()
    return np.concatenate(parts)


def run_float64(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """The judge: the same net and pictures in float64."""
    return run_torch(model, x, FLOAT64_BATCH, torch.float64)


def run_ours(net: Any, x: np.ndarray, batch: int) -> np.ndarray:
    """Outputs of a compiled net, ``batch`` pictures a call."""
    return np.concatenate([net(x[i : i + batch]) for i in range(0, len(x), batch)])


def worst(y: np.ndarray, y64: np.ndarray) -> float:
    """Per picture max|y - y64| / max|y64|; the worst picture. NaN, which no limit admits, if an output is NaN."""
    return float((np.abs(y - y64).max(axis=1) / np.abs(y64).max(axis=1)).max())
