"""What ``fastcnn bench --kernels`` measures, as data: layers with peers and goals, and the axes of the charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fastcnn.benchmarking.kernels.layer import Layer

TRANSFORM_ERROR = 4e-6
"""What a large kernel may be off from float64, in units of the largest output: FFT with spectra in fp32 keeps it, forms
with 16-bit spectra, which a net's tolerance ``fp32`` allows, do not.
"""

DESKTOP = ("torch", "onnxruntime", "openvino")
MOBILE = ("ncnn", "mnn")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The largest ratio (our time / the fastest of these peers') that is good enough.

    Parameters
    ----------
    peers : tuple of str
    ratio : float

    Raises
    ------
    ValueError
        If no peer is named or the ratio is not positive.
    """

    peers: tuple[str, ...]
    ratio: float

    def __post_init__(self) -> None:
        if not self.peers or not self.ratio > 0:
            raise ValueError(f"a goal of {self.ratio} against {list(self.peers)}: name peers and a positive ratio")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer that is timed against peers.

    Attributes
    ----------
    layer : Layer
    peers : tuple of str
        All in one run, in turn; those that no goal names are only shown.
    goals : tuple of Goal
    max_error : float
        Largest error of ours against float64; in inference also the tolerance that it is compiled for.
    """

    layer: Layer
    peers: tuple[str, ...]
    goals: tuple[Goal, ...]
    max_error: float = TRANSFORM_ERROR


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Times of our own algorithms along one axis.

    Attributes
    ----------
    name : str
        The word for ``--rows``.
    title : str
    axis : {"kernel", "channels", "size", "batch"}
        Field of the layer that grows.
    label : str
        Of the axis.
    lines : mapping of int to tuple of Layer
        Kernel size to its layers, along the axis; a chart over kernel sizes has one line, under 0.
    """

    name: str
    title: str
    axis: str
    label: str
    lines: dict[int, tuple[Layer, ...]]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Of all lines."""
        return tuple(layer for line in self.lines.values() for layer in line)


def _large(kernel: int, batch: int, ratio: float) -> Case:
    """64 channels on a map of 56x56, as the stages of image nets have them."""
    mobile = kernel <= 7
    goals = [Goal(peers=DESKTOP, ratio=ratio)]
    if kernel == 5:
        goals.append(Goal(peers=MOBILE, ratio=0.6))
    return Case(
        layer=Layer(kernel=kernel, batch=batch), peers=DESKTOP + MOBILE if mobile else DESKTOP, goals=tuple(goals)
    )


_RATIOS = {5: 0.30, 7: 0.28, 11: 0.18, 15: 0.11, 31: 0.06}

LAYER_CASES: tuple[Case, ...] = (
    *(_large(kernel, batch, ratio) for batch in (1, 8) for kernel, ratio in _RATIOS.items()),
    Case(layer=Layer(kernel=31, channels=256, depthwise=True), peers=DESKTOP, goals=(Goal(peers=DESKTOP, ratio=0.5),)),
)
"""Inference of single layers."""

TRAINING_CASE = Case(layer=Layer(kernel=7, batch=16), peers=("torch",), goals=(Goal(peers=("torch",), ratio=0.5),))
"""Output, gradient of the input and gradient of the weight, once each."""

_CHART_KERNELS = (3, 5, 7)


def _lines(layers: Callable[[int], Iterable[Layer]]) -> dict[int, tuple[Layer, ...]]:
    return {kernel: tuple(layers(kernel)) for kernel in _CHART_KERNELS}


CHARTS: tuple[Chart, ...] = (
    Chart(
        name="by-kernel", title="64 channels, map 56x56, batch 1", axis="kernel", label="kernel size k",
        lines={0: tuple(Layer(kernel=k) for k in range(3, 32, 2))},
    ),
    Chart(
        name="depthwise", title="depthwise, 256 channels, map 56x56, batch 1", axis="kernel",
        label="kernel size k, depthwise",
        lines={0: tuple(Layer(kernel=k, channels=256, depthwise=True) for k in (7, 11, 15, 19, 23, 27, 31))},
    ),
    Chart(
        name="by-channels", title="map 56x56, batch 1", axis="channels", label="channels and filters",
        lines=_lines(lambda k: (Layer(kernel=k, channels=n) for n in (16, 32, 64, 128, 256, 512))),
    ),
    Chart(
        name="by-map", title="64 channels, batch 1", axis="size", label="rows and columns of the map",
        lines=_lines(lambda k: (Layer(kernel=k, size=n) for n in (7, 14, 28, 56, 112))),
    ),
    Chart(
        name="by-batch", title="64 channels, map 56x56", axis="batch", label="pictures",
        lines=_lines(lambda k: (Layer(kernel=k, batch=n) for n in (1, 2, 4, 8, 16))),
    ),
)  # fmt: skip

LAYERS, TRAINING = "layers", "training"
ROWS: tuple[str, ...] = (LAYERS, TRAINING, *(chart.name for chart in CHARTS))
"""The words for ``--rows``, in the order they are measured."""

CAP = "avx2"
"""The charts are drawn for the active instruction set and for this one."""


def chart_layers(rows: Iterable[str]) -> tuple[Layer, ...]:
    """Layers of these charts, each once: one measurement serves every chart that shows it."""
    wanted = set(rows)
    return tuple(dict.fromkeys(layer for chart in CHARTS if chart.name in wanted for layer in chart.layers))
