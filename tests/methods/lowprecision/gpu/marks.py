"""What the tests of bits on a GPU need."""

from __future__ import annotations

import sys

import pytest
import torch

needs_triton = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux; there its absence is an error")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
SECONDS = 600
"""For a process of the interpreter or the compiler, beside other work."""
