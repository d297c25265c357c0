"""Digits: train a small net, compress it by Deep Compression, reload it without torch, and compare."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from fastcnn.benchmarking import benchmark
from fastcnn.cli.compile import compile_model
from fastcnn.cli.demo.without_torch import run_without_torch
from fastcnn.cli.output import log
from fastcnn.data import Dataset, Preprocess, load_data

_EPOCHS = 30
_MAX_DROP_POINTS = 2.0


class DigitsNet(nn.Module):
    """Three 3x3 convolutions and two linear layers for 8x8 pictures, 155,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(256, 384), nn.ReLU(), nn.Linear(384, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (N, 10) of pictures (N, 1, 8, 8)."""
        y: torch.Tensor = self.classifier(self.features(x))
        return y


@dataclass(frozen=True, kw_only=True)
class DigitsResult:
    """Everything the digits part found; milliseconds are for one picture."""

    threads: int
    pictures: int
    accuracy_before: float
    accuracy_compiled: float
    accuracy_after: float
    torch_ms: float
    dense_ms: float
    dense_error: float
    small_ms: float
    dense_bytes: int
    file_bytes: int
    theory_bytes: int
    labels_equal: bool
    torch_loaded: bool
    file: str

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than the fp32 weights."""
        return self.dense_bytes / self.file_bytes

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "ratio": self.ratio}

    def missed(self) -> list[str]:
        """What did not come out as promised."""
        lines = []
        if not self.labels_equal:
            lines.append("digits: the reloaded net's labels differ from torch's")
        if self.torch_loaded:
            lines.append("digits: torch was loaded in the process that should not have it")
        if self.accuracy_before - self.accuracy_after > _MAX_DROP_POINTS:
            lines.append(f"digits: accuracy fell by more than {_MAX_DROP_POINTS} points")
        return lines

    def table(self) -> Table:
        """Before, after and theory."""
        table = Table(
            title=f"scikit-learn digits, {self.pictures} test pictures, threads: {self.threads}, batch 1",
            caption="bytes: fp32 weights before, whole file after; "
            "theory: bytes predicted from nonzeros, codebooks and entropies; "
            f"file: {self.ratio:.1f} times smaller; "
            f"same labels as torch: {'yes' if self.labels_equal else 'NO'}; "
            f"error of the dense net against float64: {self.dense_error:.1e}",
        )
        table.add_column("")
        for column in ("before, torch", "before, fastcnn", "after, fastcnn without torch", "theory"):
            table.add_column(column, justify="right")
        before, after = f"{self.accuracy_before:.2f} %", f"{self.accuracy_after:.2f} %"
        table.add_row("accuracy", before, f"{self.accuracy_compiled:.2f} %", after, "")
        table.add_row("ms", f"{self.torch_ms:.4f}", f"{self.dense_ms:.4f}", f"{self.small_ms:.4f}", "")
        table.add_row("bytes", f"{self.dense_bytes:,}", "", f"{self.file_bytes:,}", f"{self.theory_bytes:,}")
        return table


def digits_demo(
    folder: Path,
    *,
    threads: int | None,
    epochs: int = _EPOCHS,
    recipe: Any = "deep-compression",
    rounds: int = 2,
    seconds: float = 1.0,
) -> DigitsResult:
    """Carry the digits part out; files go to ``folder``.

    Parameters
    ----------
    folder : Path
    threads : int, optional
    epochs : int
        Of the first training.
    recipe : str or Recipe
    rounds, seconds : number
        Timed blocks before compression, and their length.
    """
    from fastcnn.artifact import load_graph, predict_file_bytes
    from fastcnn.compression.run_recipe import run_recipe
    from fastcnn.data.loader import Batches, accuracy_of

    settings = Preprocess()
    test = load_data("digits", split="test")
    loader = Batches(load_data("digits", split="train"), settings, batch_size=64)
    evaluate = accuracy_of(test, settings)
    with _one_thread():
        dense = _train(loader, epochs)
        torch.save(dense.state_dict(), folder / "digits.pt")
        log("compressing by the recipe")
        result = run_recipe(dense, recipe, loader, evaluate)
    small = result.model.eval()
    file = folder / "digits.fcnn"
    compiled = compile_model(small, (1, 1, 8, 8), threads=threads, strict=True)
    compiled.save(file)
    used = int(compiled.threads)
    saved = load_graph(file)

    log("reloading in a process that cannot import torch")
    pictures = _all(test, settings)
    with torch.inference_mode():
        wanted = small(torch.from_numpy(pictures)).numpy()
    outputs, facts = run_without_torch(file, pictures, threads=used, seconds=seconds)
    log("timing the net before compression, torch and fastcnn in turn")
    timed = benchmark(
        {"digits": dense}, (1, 1, 8, 8), against=["torch"], threads=used, rounds=rounds, seconds=seconds, warmup_s=0.3
    ).net("digits")
    ours, theirs = timed.engine("fastcnn"), timed.engine("torch")
    for engine in (ours, theirs):
        if engine.failure:
            raise RuntimeError(engine.failure)
    labels = outputs.argmax(axis=1)
    compiled_labels = compile_model(dense, (1, 1, 8, 8), threads=used, strict=True)(pictures).argmax(axis=1)
    return DigitsResult(
        threads=used,
        pictures=len(test),
        accuracy_before=float(result.metric_before or 0.0),
        accuracy_compiled=float((compiled_labels == test.labels).mean() * 100),
        accuracy_after=float((labels == test.labels).mean() * 100),
        torch_ms=float(theirs.median_ms or 0.0),
        dense_ms=float(ours.median_ms or 0.0),
        dense_error=float("nan" if ours.error is None else ours.error),
        small_ms=float(facts["ms"]),
        dense_bytes=4 * sum(p.numel() for p in dense.parameters()),
        file_bytes=file.stat().st_size,
        theory_bytes=predict_file_bytes(saved.graph, plan_hint=saved.plan_hint, meta=saved.meta),
        labels_equal=bool((labels == wanted.argmax(axis=1)).all()),
        torch_loaded=bool(facts["modules_of_torch"]),
        file=str(file),
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Train with one thread: batches this small gain nothing from more, and the result is the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(loader: Any, epochs: int) -> nn.Module:
    from fastcnn.compression.finetune import finetune

    torch.manual_seed(0)
    model = DigitsNet()
    finetune(model, loader, epochs=epochs, lr=2e-3, schedule="cosine", description="training")
    return model.eval()


def _all(dataset: Dataset, settings: Preprocess) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.concatenate([x for x, _ in dataset.batches(settings, batch_size=256)])
