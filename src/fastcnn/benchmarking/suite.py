"""Named sets of nets to time: well-known structures with random, settled weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastcnn._extras import MissingExtraError, require
from fastcnn.benchmarking.settle import settle

_FIVE = {
    "vgg16": ("pytorchcv.models.vgg", "vgg16"),
    "resnet18": ("pytorchcv.models.resnet", "resnet18"),
    "resnet50": ("pytorchcv.models.resnet", "resnet50"),
    "mobilenetv2": ("pytorchcv.models.mobilenetv2", "mobilenetv2_w1"),
    "alexnet": ("pytorchcv.models.alexnet", "alexnet"),
}
SUITES: dict[str, dict[str, tuple[str, str]]] = {"foundation": _FIVE, "exact": _FIVE}
"""Suite to its nets; ``exact`` is measured under several conditions (:mod:`fastcnn.benchmarking.rows`)."""


def suite_models(name: str, shape: tuple[int, ...], *, only: str | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (name, settled nn.Module) one at a time, so that only one is in memory.

    Raises
    ------
    ValueError
        If there is no such suite, or no such net in it.
    MissingExtraError
        If pytorchcv is not installed.
    """
    if name not in SUITES:
        raise ValueError(f"suite={name!r} is unknown: choose from {sorted(SUITES)}")
    if only is not None and only not in SUITES[name]:
        raise ValueError(f"net={only!r} is not in suite {name!r}: choose from {sorted(SUITES[name])}")
    require("torch", extra="compress", purpose=f"suite {name}")
    for net, (module, function) in SUITES[name].items():
        if only in (None, net):
            model = _zoo(module, function)()
            try:
                settled = settle(model, shape)
            except RuntimeError as error:
                raise ValueError(
                    f"shape={shape} does not go through {net}: these nets want 224x224 ({error})"
                ) from error
            yield net, settled


def _zoo(module: str, function: str) -> Any:
    try:
        return getattr(require(module, extra="bench", purpose="the net zoo"), function)
    except MissingExtraError as error:
        # It is no part of an extra: its own requirements ask for a torchvision that does not fit a CPU torch.
        raise MissingExtraError(
            "the net zoo needs pytorchcv, which is not installed: "
            "run  python3 -m pip install --no-deps pytorchcv==0.0.74"
        ) from error
