"""The project's own ops: layers that methods compressed or gave another algorithm."""

from __future__ import annotations

import torch

from fastcnn.engine.capture.lowering import Lowering
from fastcnn.engine.capture.registry import Arguments, Constant, Unsupported, lowers, spread


def _codes(a: Arguments) -> Constant:
    """Codes in the smallest unsigned type that counts the codebook."""
    codes, entries = a.constant("codes"), a.constant("codebook").tensor.numel()
    tensor = codes.tensor
    if tensor.is_floating_point() or tensor.is_complex():
        raise Unsupported(f"codes must be integers, got {tensor.dtype}")
    wide = tensor.to(torch.int64)
    if wide.numel() and (int(wide.min()) < 0 or int(wide.max()) >= entries):
        raise Unsupported(f"codes must lie in 0..{entries - 1}")
    wanted = torch.uint8 if entries <= 1 << 8 else torch.uint16
    return codes if tensor.dtype == wanted else Constant(wide.to(wanted), codes.key)


def _bias(a: Arguments) -> Constant | None:
    return None if a.get("bias") is None else a.constant("bias")


@lowers("fastcnn::codebook_conv2d")
def codebook_conv2d(lower: Lowering, a: Arguments) -> str:
    """Convolution whose weight is codebook[codes]."""
    x = a.value("x")
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    return lower.emit(
        "codebook_conv2d",
        [x],
        params={"codebook": a.constant("codebook"), "codes": _codes(a), "bias": _bias(a)},
        attrs={
            "stride": spread(a["stride"], 2),
            "padding": spread(a["padding"], 2) * 2,
            "dilation": spread(a["dilation"], 2),
            "groups": int(a["groups"]),
        },
    )


@lowers("fastcnn::codebook_linear")
def codebook_linear(lower: Lowering, a: Arguments) -> str:
    """Fully connected layer whose weight is codebook[codes]."""
    return lower.emit(
        "codebook_linear",
        [a.value("x")],
        params={"codebook": a.constant("codebook"), "codes": _codes(a), "bias": _bias(a)},
    )


@lowers("fastcnn::fft_conv2d", "fastcnn::winograd_conv2d")
def transform_conv2d(lower: Lowering, a: Arguments) -> str:
    """Convolution by FFT or Winograd: a plain one with the same weight, as the planner chooses algorithms itself."""
    x = a.value("x")
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    return lower.emit(
        "conv2d",
        [x],
        params={"weight": a.constant("weight"), "bias": _bias(a)},
        attrs={
            "stride": spread(a["stride"], 2),
            "padding": spread(a["padding"], 2) * 2,
            "dilation": spread(a["dilation"], 2),
            "groups": int(a["groups"]),
        },
    )
