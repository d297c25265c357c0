"""Child process of the tests: what launches on a GPU would compile to, without one; JSON on stdout.

``python -m tests.methods.lowprecision.gpu.compiled``: everything happens as on a GPU up to the launch, by a driver that
only names its compute capability, on tensors that lie on the CPU. For each capability and kernel: how often each
variant counts bits, waits at a barrier, multiplies and adds in one, and uses local memory.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from fastcnn.methods.lowprecision.gpu import baseline
from fastcnn.methods.lowprecision.gpu.products import INTERPRETED
from tests.methods.lowprecision.gpu.cases import Case, computed

CAPABILITIES = (80, 90)
COUNTED = {"popc": "popc.b32", "barriers": "bar.sync", "fused": "fma.rn", "local": ".local", "shared": ".shared"}
CASES = (
    Case(shape=(2, 64, 8, 8), outputs=256, kernel=(3, 3), padding=(1, 1, 1, 1), tile=(8, 8, 16, 16)),
    Case(
        shape=(2, 64, 8, 8), outputs=64, kernel=(3, 3), padding=(1, 1, 1, 1), pad_value=0, tile=(4, 4, 16, 16),
        last=True,
    ),
    Case(shape=(2, 64, 8, 8), outputs=64, kernel=(3, 3), levels=3, dtype="float16", tile=(4, 4, 16, 16)),
    Case(shape=(64, 512, 1, 1), outputs=256, linear=True, scaled=False, tile=(8, 8, 16, 16)),
    Case(shape=(1, 512, 1, 1), outputs=256, linear=True, planes=(1, 2), dtype="bfloat16", tile=(1, 1, 1, 256)),
)  # fmt: skip


class Driver:
    """As much of a driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def main() -> int:
    """Compile every case; print {capability: {kernel: [counts]}}."""
    assert not INTERPRETED
    run = JITFunction.run
    found: dict[str, dict[str, list[dict[str, int]]]] = {}
    kinds: dict[str, list[dict[str, int]]] = {}

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        text = kernel.asm["ptx"].split(".section")[0]
        counts = {name: text.count(word) for name, word in COUNTED.items()}
        kinds.setdefault(self.__name__, []).append({**counts, "cubin": len(kernel.asm["cubin"])})
        return kernel

    JITFunction.run = compile_only
    for capability in CAPABILITIES:
        triton.runtime.driver.set_active(Driver(capability))
        kinds = {}
        for case in CASES:
            computed(case, "cpu")
        x = torch.zeros(32, 64)
        baseline.multiply(x, x.T.contiguous())
        baseline.multiply_words(torch.zeros(32, 2, dtype=torch.int32), torch.zeros(2, 32, dtype=torch.int32), 64)
        found[str(capability)] = kinds
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
