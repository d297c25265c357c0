"""Child process of the tests: every case and layer by Triton's interpreter, outputs in a file.

``TRITON_INTERPRET=1 python -m tests.methods.lowprecision.gpu.interpreted FILE``: triton reads the variable when it is
imported, so that it cannot be set in the process that tests.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from fastcnn.methods.lowprecision.binary_ops import pack_signs
from fastcnn.methods.lowprecision.gpu import watch
from tests.methods.lowprecision.gpu.cases import CASES, computed, rows_and_words
from tests.methods.lowprecision.gpu.layers import LAYERS, packed


def check_ops() -> None:
    """Shapes and strides are those that the ops promise; both ways in which maps lie in memory."""
    x, weight = torch.randn(2, 32, 5, 4), torch.randn(6, 32, 3, 3)
    for given in (x, x.to(memory_format=torch.channels_last)):
        arguments = (given, pack_signs(weight), None, None, [3, 3], [1, 1], [1, 1], [1, 1], 1, [1], True, 0)
        torch.library.opcheck(torch.ops.fastcnn.binary_conv2d, arguments)
    flat = (torch.randn(3, 70), pack_signs(torch.randn(5, 70)), None, None, [1], True)
    torch.library.opcheck(torch.ops.fastcnn.binary_linear, flat)


def main(out: str) -> int:
    """Save outputs by case and layer, with what ran them, and words by channels."""
    found: dict[str, Any] = {}
    for case in CASES:
        with watch() as choices:
            y = computed(case, "cpu")
        found[str(case)] = (y, [(choice.kernel, choice.why) for choice in choices])
    for name in LAYERS:
        layer, x = packed(name)
        with watch() as choices:
            y = layer(x)
        found[name] = (y, [(choice.kernel, choice.why) for choice in choices])
    found["words"] = rows_and_words()
    check_ops()
    torch.save(found, out)
    return 0


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1]))
