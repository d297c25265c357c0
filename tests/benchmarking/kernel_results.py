"""Made-up measurements of ``bench --kernels``, for its tests."""

from __future__ import annotations

from collections.abc import Mapping

from fastcnn.benchmarking import EngineResult, NetResult
from fastcnn.benchmarking.kernels import AlgorithmTime, Goal, KernelsResult, Layer, LayerCell, Point

HOST = {"cpu": "A Processor"}


def engine(name: str, ratio: float | None = None, *, error: float | None = 1e-6, failure: str = "") -> EngineResult:
    """An engine at 2 ms, or ours at 2 ms times nothing in particular."""
    blocks = () if failure else (2.0, 2.0, 2.2)
    return EngineResult(engine=name, version="1", block_ms=blocks, error=error, ratio=ratio, failure=failure, calls=9)


def cell(
    *engines: EngineResult,
    goals: tuple[Goal, ...] = (Goal(peers=("torch", "openvino"), ratio=0.3),),
    failure: str = "",
    row: str = "layers",
) -> LayerCell:
    """A 5x5 layer; no result where no engine is given."""
    layer = Layer(kernel=5)
    net = NetResult(net=layer.name, shape=layer.shape, engines=engines) if engines else None
    return LayerCell(
        row=row, layer=layer, goals=goals, max_error=1e-4, result=net, failure=failure, commit="c0ffee", date="today",
        settings={"rounds": 3},
    )  # fmt: skip


def point(layer: Layer, times: Mapping[str, float], *, isa: str = "avx512", error: float = 1e-6) -> Point:
    """A point whose algorithms take these times; two rounds, the second a tenth slower."""
    algorithms = tuple(
        AlgorithmTime(algorithm=name, block_ms=(ms, 1.1 * ms), way=f"{name}:tiles:14", error=error)
        for name, ms in times.items()
    )
    return Point(
        layer=layer, isa=isa, algorithms=algorithms, failure="", commit="c0ffee", date="today", settings={"rounds": 2}
    )  # fmt: skip


def result(*points: Point, cells: tuple[LayerCell, ...] = ()) -> KernelsResult:
    """A result of a machine whose active instruction set is avx512."""
    return KernelsResult(isa="avx512", cells=cells, points=points, host=HOST)


def by_kernel(isa: str = "avx512") -> list[Point]:
    """Direct rises with the square of k from 0.09 ms; FFT is flat at 0.5 ms and overtakes it between 7 and 9."""
    return [point(Layer(kernel=k), {"direct": 0.01 * k * k, "fft:32": 0.5}, isa=isa) for k in range(3, 32, 2)]
