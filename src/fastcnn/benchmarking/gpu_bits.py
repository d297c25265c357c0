"""Products and convolutions of signs on a GPU: ``python -m fastcnn.benchmarking.gpu_bits --out FILE``.

A product of two matrices of 8192 x 8192 signs by the kernels of bits, with packing and without, beside a kernel of one
thread for each output, as the BNN paper has it, and cuBLAS in float32 (TF32 off), TF32 and float16; and 3 x 3
convolutions beside cuDNN. Results are checked first: ours must be exact. All take turns in one process and are timed by
the GPU's own clock. Two goals are for the product, packing included: against the kernel of one thread for each output,
and against float32.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcnn._extras import require
from fastcnn.benchmarking.command import guarded, write_record
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.benchmarking.turns import spread
from fastcnn.cli.output import log, progress_bar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fastcnn.methods.lowprecision.gpu.products import Tile

SIZE = 8192
BITS, BITS_ALONE = "bits, packing included", "bits, packed before"
ONE_EACH, ONE_EACH_BITS = "one thread per output, float32", "one thread per output, bits"
LAYER = "bits, as a layer"
FLOAT32, TF32, FLOAT16 = "float32", "TF32", "float16"
JUDGED_ROWS = 16
"""Of a product, computed in float64 on the CPU; the rest must equal what cuBLAS says in float32, exact for signs."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A 3 x 3 convolution of so many channels, in and out, on square maps."""

    channels: int
    size: int
    batch: int


CELLS = (
    Cell(channels=64, size=56, batch=64),
    Cell(channels=128, size=28, batch=64),
    Cell(channels=256, size=14, batch=64),
    Cell(channels=512, size=7, batch=64),
    Cell(channels=256, size=14, batch=1),
)
GOALS = {ONE_EACH: 7.0, FLOAT32: 1.0}
"""Least time of each over that of the bits, packing included."""
Calls = dict[str, Callable[[], "Tensor"]]


def why_not() -> str:
    """Why nothing can be measured here; empty if it can."""
    torch = require("torch", extra="compress", purpose="measuring kernels on a GPU")
    from fastcnn.methods.lowprecision.gpu.rule import why_not_here

    if not torch.cuda.is_available():
        return f"there is no CUDA device that torch {torch.__version__} can use: this measures kernels on an NVIDIA GPU"
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return f"torch {torch.__version__} cannot set the precision of float32 products: 2.9 or newer can"
    return why_not_here(torch.device("cuda"))


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Let cuBLAS and cuDNN multiply float32 as ``ieee`` or ``tf32`` say, and cuDNN try its algorithms."""
    import torch

    cudnn: Any = torch.backends.cudnn
    matmul, conv = torch.backends.cuda.matmul, cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision, cudnn.benchmark
    matmul.fp32_precision, conv.fp32_precision, cudnn.benchmark = name, name, True
    try:
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision, cudnn.benchmark = before


def product_calls(size: int, device: torch.device) -> tuple[Calls, Tensor, Tensor]:
    """What multiplies two square matrices of signs, and both matrices."""
    import torch

    from fastcnn.methods.lowprecision.binary_ops import sign
    from fastcnn.methods.lowprecision.gpu import baseline
    from fastcnn.methods.lowprecision.gpu.products import pack

    torch.manual_seed(0)
    x, w = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    signs, columns = sign(x), sign(w).T.contiguous()
    halves = signs.half(), columns.half()
    words, weight = words_of(x, w)
    few, column_words = pack(x[:, :, None, None])[0, :, :, 0].contiguous(), weight[0]
    calls: Calls = {
        BITS: lambda: multiply_words(*words_of(x, w), size),
        BITS_ALONE: lambda: multiply_words(words, weight, size),
        ONE_EACH: lambda: baseline.multiply(signs, columns),
        ONE_EACH_BITS: lambda: baseline.multiply_words(few, column_words, size),
        FLOAT32: lambda: torch.mm(signs, columns),
        FLOAT16: lambda: torch.mm(*halves),
    }
    if device.type == "cuda":
        calls[TF32] = calls[FLOAT32]
    return calls, signs, columns


def words_of(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Both operands as the kernel takes them."""
    import torch

    from fastcnn.methods.lowprecision.gpu.products import lay_out, pack

    rows = pack(w[:, :, None, None])[0, :, :, 0].contiguous().view(torch.uint8)
    return pack(x[:, :, None, None]), lay_out(rows, planes=1, channels=w.shape[1], taps=1)


def multiply_words(x: Tensor, weight: Tensor, depth: int, tile: Tile | None = None) -> Tensor:
    """The product, (M, N) float32."""
    import torch

    from fastcnn.methods.lowprecision.gpu.products import convolve_words
    from fastcnn.methods.lowprecision.gpu.window import Window

    y = torch.empty((x.shape[1], weight.shape[2]), device=x.device)
    convolve_words(
        x, weight, y[:, :, None, None], None, None, size=(1, 1), channels=depth, signs=True, planes=(1,),
        window=Window(), tile=tile,
    )  # fmt: skip
    return y


def convolution_calls(cell: Cell, device: torch.device) -> tuple[Calls, Tensor, Tensor]:
    """What convolves a map of signs, and map and weight, padded by +1 beforehand: cuDNN has no such padding."""
    import torch
    from torch.nn import functional as F

    from fastcnn.methods.lowprecision.binary_ops import binary_conv2d, pack_signs, sign
    from fastcnn.methods.lowprecision.gpu.products import convolve_words, lay_out, pack
    from fastcnn.methods.lowprecision.gpu.window import Window

    torch.manual_seed(0)
    x = torch.randn(cell.batch, cell.channels, cell.size, cell.size, device=device)
    weight = sign(torch.randn(cell.channels, cell.channels, 3, 3, device=device))
    bits = pack_signs(weight)
    signs = F.pad(sign(x), (1, 1, 1, 1), value=1.0)
    half: dict[str, Any] = {"dtype": torch.float16, "memory_format": torch.channels_last}
    halves, half_weight = signs.to(**half), weight.to(**half)
    words, laid_out = pack(x), lay_out(bits, planes=1, channels=cell.channels, taps=9)
    window = Window(kernel_size=(3, 3), padding=(1, 1, 1, 1))

    def alone() -> Tensor:
        y = torch.empty_like(x)
        convolve_words(
            words, laid_out, y, None, None, size=(cell.size, cell.size), channels=cell.channels, signs=True,
            planes=(1,), window=window,
        )  # fmt: skip
        return y

    calls: Calls = {
        LAYER: lambda: binary_conv2d(x, bits, None, None, [3, 3], [1, 1], [1, 1], [1, 1], 1, [1], True, 1),
        BITS_ALONE: alone,
        FLOAT32: lambda: F.conv2d(signs, weight),
        FLOAT16: lambda: F.conv2d(halves, half_weight),
    }
    if device.type == "cuda":
        calls[TF32] = calls[FLOAT32]
    return calls, signs, weight


def check_product(calls: Calls, signs: Tensor, columns: Tensor) -> None:
    """EngineFailedError if one of them is wrong in a place."""
    import torch

    rows = torch.linspace(0, len(signs) - 1, min(JUDGED_ROWS, len(signs)), device=signs.device).long()
    exact = signs[rows].double().cpu() @ columns.double().cpu()
    whole: Tensor | None = None
    for label in (FLOAT32, *calls):
        with precision("tf32" if label == TF32 else "ieee"):
            found = calls[label]().float()
        if not torch.equal(found[rows].double().cpu(), exact):
            raise EngineFailedError(f"{label}: the product of signs is wrong")
        whole = found if whole is None else whole
        if not torch.equal(found, whole):
            raise EngineFailedError(f"{label}: the product of signs is not what cuBLAS says")


def check_convolution(cell: Cell, calls: Calls, signs: Tensor, weight: Tensor) -> dict[str, float]:
    """Largest error of each in the first and last picture; EngineFailedError if ours is not 0.

    cuDNN may transform float32, so that its sums of signs need not be exact.
    """
    import torch
    from torch.nn import functional as F

    ends = [0, -1]
    exact = F.conv2d(signs[ends].double().cpu(), weight.double().cpu())
    errors = {}
    for label, call in calls.items():
        with precision("tf32" if label == TF32 else "ieee"):
            errors[label] = float((call()[ends].double().cpu() - exact).abs().max())
    if wrong := [label for label in (LAYER, BITS_ALONE) if errors[label] != 0]:
        raise EngineFailedError(f"{wrong[0]}: the convolution {cell} is wrong by {errors[wrong[0]]}")
    whole = torch.equal(calls[LAYER](), calls[BITS_ALONE]())
    if not whole:
        raise EngineFailedError(f"{LAYER}: the convolution {cell} changes when it is packed before")
    return errors


def time_ms(call: Callable[[], Tensor], seconds: float, device: torch.device) -> float:
    """Milliseconds of a call, many of them one after the other, after one that is not counted."""
    import torch

    def run(count: int) -> float:
        if device.type != "cuda":
            start = time.perf_counter()
            for _ in range(count):
                call()
            return 1e3 * (time.perf_counter() - start) / count
        event: Any = torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / count

    call()
    guess = max(run(1), 1e-3)
    return run(max(1, min(10_000, round(1e3 * seconds / guess))))


def time_in_turns(
    title: str, calls: Calls, *, device: torch.device, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds by label, one for each round, in an order drawn anew in each."""
    times: dict[str, list[float]] = {label: [] for label in calls}
    turns = random.Random(0)
    with progress_bar(title, rounds * len(calls)) as advance:
        for _ in range(rounds):
            for label in turns.sample(sorted(calls), len(calls)):
                with precision("tf32" if label == TF32 else "ieee"):
                    times[label].append(time_ms(calls[label], seconds, device))
                advance(note=label)
    return times


def measure_product(size: int, device: torch.device, *, rounds: int, seconds: float, sweep: bool) -> dict[str, Any]:
    """Check and time the product; with ``sweep`` other tiles of its kernel too."""
    calls, signs, columns = product_calls(size, device)
    check_product(calls, signs, columns)
    times = partial(time_in_turns, device=device, rounds=rounds, seconds=seconds)
    found: dict[str, Any] = {"size": size, "ms": times("product", calls)}
    if sweep:
        words = words_of(signs, columns.T)
        tiles: Calls = {str(tile): partial(multiply_words, *words, size, tile) for tile in tiles_to_try()}
        exact = calls[FLOAT32]()
        for label, call in tiles.items():
            if not call().equal(exact):
                raise EngineFailedError(f"{label}: the product of signs is wrong")
        found["tiles_ms"] = times("tiles", tiles)
    return found


def tiles_to_try() -> list[Tile]:
    """Shapes of a thread's part and of the threads."""
    from fastcnn.methods.lowprecision.gpu.products import Tile

    parts, threads = ((8, 8), (8, 4), (4, 8), (4, 4)), ((16, 16), (8, 32), (8, 16), (32, 8))
    return [Tile(rm=rm, rn=rn, tm=tm, tn=tn) for rm, rn in parts for tm, tn in threads]


def measure_convolution(cell: Cell, device: torch.device, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Check and time one cell."""
    calls, signs, weight = convolution_calls(cell, device)
    errors = check_convolution(cell, calls, signs, weight)
    times = time_in_turns(f"{cell.channels} channels", calls, device=device, rounds=rounds, seconds=seconds)
    return {"channels": cell.channels, "size": cell.size, "batch": cell.batch, "errors": errors, "ms": times}


def gates(times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Each goal of the product: medians over the rounds of (the other's time / ours), and whether they are enough."""
    rows = []
    for label, goal in GOALS.items():
        gains = [other / ours for other, ours in zip(times[label], times[BITS], strict=True)]
        gain = statistics.median(gains)
        # Not slower is no goal: faster is.
        met = gain > goal if goal == 1.0 else gain >= goal
        rows.append({"over": label, "gain": gain, "gains": gains, "min_gain": goal, "met": met})
    return rows


def table(record: Mapping[str, Any]) -> str:
    """The record in lines for people."""
    lines = [f"{record['gpu']['name']}: a product of {record['product']['size']} x {record['product']['size']} signs"]
    lines += _lines(record["product"]["ms"], BITS)
    for gate in record["gates"]:
        least = f"more than {gate['min_gain']:g}" if gate["min_gain"] == 1 else f"at least {gate['min_gain']:g}"
        lines.append(
            f"  {gate['gain']:.1f}x over {gate['over']}, of rounds {spread(gate['gains'])}, goal {least}"
            + ("" if gate["met"] else "  MISSED")
        )
    tiles = {tile: statistics.median(times) for tile, times in record["product"].get("tiles_ms", {}).items()}
    lines += [f"  {tiles[tile]:9.3f} ms  {tile}" for tile in sorted(tiles, key=lambda tile: tiles[tile])]
    for found in record["convolutions"]:
        side = found["size"]
        lines.append(f"3 x 3, {found['channels']} channels, {side} x {side}, batch {found['batch']}")
        lines += _lines(found["ms"], LAYER, found["errors"])
    return "\n".join(lines)


def _lines(times: Mapping[str, Sequence[float]], ours: str, errors: Mapping[str, float] | None = None) -> list[str]:
    base = statistics.median(times[ours])
    lines = []
    for label, found in times.items():
        middle = statistics.median(found)
        error = "" if errors is None else f"  error {errors[label]:.1e}"
        lines.append(f"  {middle:9.3f} ms  {middle / base:7.2f}x  {label} ({spread(found)}){error}")
    return lines


def gpu_facts() -> dict[str, Any]:
    """What the record says of the GPU."""
    import torch

    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "processors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the goals hold, 1 if not, 2 on bad input or without a GPU, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.benchmarking.gpu_bits", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each block")
    parser.add_argument("--sweep", action="store_true", help="time other tiles of the product's kernel too")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not 0 < options.seconds < 1e4:
        log("error: --rounds must be at least 1, --seconds above 0")
        return 2
    return guarded(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    if wrong := why_not():
        log(f"error: {wrong}")
        return 2
    import torch
    import triton

    cudnn: Any = torch.backends.cudnn
    options.out.parent.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda", torch.cuda.current_device())
    timing = {"rounds": options.rounds, "seconds": options.seconds}
    product = measure_product(SIZE, device, **timing, sweep=options.sweep)
    found: dict[str, Any] = {
        "settings": timing,
        "versions": {
            "torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda,
            "cudnn": cudnn.version(),
        },
        "gpu": gpu_facts(),
        "gates": gates(product["ms"]),
        "product": product,
        "convolutions": [measure_convolution(cell, device, **timing) for cell in CELLS],
    }  # fmt: skip
    met = all(gate["met"] for gate in found["gates"])
    write_record(options.out, {"passed": met, **found})
    print(table(found))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
