"""The measured points as curves, and what they say in a few numbers."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from fastcnn.benchmarking.kernels.cases import CHARTS, Chart
from fastcnn.benchmarking.kernels.records import AlgorithmTime, KernelsResult, Point

BEST = "best"
"""The curve that takes the fastest algorithm of every point."""
GROWTH = (7, 15, 31)
"""Kernel sizes whose times are compared."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Times of an algorithm along the axis of a chart; points without figures are left out.

    Attributes
    ----------
    name : str
        The algorithm, or ``best``.
    x : tuple of int
    times : tuple of AlgorithmTime
        As many.
    """

    name: str
    x: tuple[int, ...]
    times: tuple[AlgorithmTime, ...]

    @property
    def ms(self) -> tuple[float, ...]:
        """Milliseconds at every x."""
        return tuple(statistics.median(time.block_ms) for time in self.times)


def line_points(result: KernelsResult, chart: Chart, line: int, isa: str) -> list[tuple[int, Point]]:
    """Return (place on the axis, point) of one line of a chart, as far as it is measured."""
    found = [(getattr(layer, chart.axis), result.point(isa, layer.name)) for layer in chart.lines[line]]
    return [(x, point) for x, point in found if point is not None and point.algorithms]


def line_curves(result: KernelsResult, chart: Chart, line: int, isa: str) -> list[Curve]:
    """Return the curves of one line: direct, then the best, then every other algorithm that has figures."""
    points = line_points(result, chart, line, isa)
    names = list(dict.fromkeys(["direct", BEST, *(a.algorithm for _, point in points for a in point.algorithms)]))
    found = []
    for name in names:
        times = [(x, point.best if name == BEST else point.algorithm(name)) for x, point in points]
        good = [(x, time) for x, time in times if time is not None and time.block_ms]
        if good:
            found.append(Curve(name=name, x=tuple(x for x, _ in good), times=tuple(time for _, time in good)))
    return found


def exponent(curve: Curve) -> float | None:
    """Return p of the power law ms = a x^p that fits best (least squares of the logarithms); None for one point.

    Direct convolution has p = 2 along the kernel size, a transform of one size p = 0.
    """
    if len(curve.x) < 2:
        return None
    logs = [(math.log(x), math.log(ms)) for x, ms in zip(curve.x, curve.ms, strict=True)]
    middle_x, middle_y = (statistics.fmean(values) for values in zip(*logs, strict=True))
    spread = sum((x - middle_x) ** 2 for x, _ in logs)
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / spread


def growth(result: KernelsResult, isa: str, name: str) -> tuple[float, ...]:
    """Return how many times the ms of 7x7 that algorithm, or ``best``, takes for 15x15 and for 31x31.

    Direct convolution has (15 / 7)^2 = 4.6 and (31 / 7)^2 = 20 times the multiplications. Empty where one of the three
    is not measured.
    """
    curves = {curve.name: curve for curve in line_curves(result, CHARTS[0], 0, isa)}
    ms = dict(zip(curves[name].x, curves[name].ms, strict=True)) if name in curves else {}
    least, *more = GROWTH
    return tuple(ms[k] / ms[least] for k in more) if all(k in ms for k in GROWTH) else ()


def crossover(points: list[tuple[int, Point]]) -> int | None:
    """Return the least x from which on direct is never the best; None if it is the best at the last one."""
    found = None
    for x, point in reversed(points):
        if point.best is None or point.best.algorithm == "direct":
            break
        found = x
    return found


def growth_sentences(result: KernelsResult) -> list[str]:
    """Say how much more time the larger kernels take, for each instruction set that has the figures."""
    lines = []
    for isa in result.isas:
        direct, best = (growth(result, isa, name) for name in ("direct", BEST))
        if direct and best:
            times = [
                f"{name} {' and '.join(f'{x:.1f}' for x in found)}"
                for name, found in ((BEST, best), ("direct", direct))
            ]
            least, *more = (f"{k}x{k}" for k in GROWTH)
            lines.append(f"{isa}: {' and '.join(more)} take {', '.join(times)} times as long as {least}")
    return lines


def summary(result: KernelsResult) -> list[str]:
    """Say in sentences how time grows with the kernel, and from where on another algorithm than direct is the best."""
    lines = growth_sentences(result)
    for chart in CHARTS:
        for line in chart.lines:
            for isa in result.isas:
                points = line_points(result, chart, line, isa)
                if len(points) < 2:
                    continue
                lines.append(_sentence(result, chart, line, isa, points))
    return lines


def _sentence(result: KernelsResult, chart: Chart, line: int, isa: str, points: list[tuple[int, Point]]) -> str:
    by_name = {curve.name: curve for curve in line_curves(result, chart, line, isa)}
    grows = [
        f"{name} grows as its power {p:.2f}"
        for name in ("direct", BEST)
        if name in by_name and (p := exponent(by_name[name])) is not None
    ]
    start = crossover(points)
    overtaken = f"direct is overtaken from {start} on" if start is not None else "direct is the best at the end"
    kernel = f"{line}x{line} kernels, " if line else ""
    return f"{isa}, {kernel}along {chart.label}: {', '.join(grows)}; {overtaken}"
