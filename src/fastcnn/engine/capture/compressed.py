"""The project's own ops: layers that methods compressed or gave another algorithm."""

from __future__ import annotations

from typing import Any

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


def _map(a: Arguments, lower: Lowering) -> str:
    """The input of a 2-d convolution, which has a batch axis as every value of the graph does."""
    x = a.value("x")
    if lower.rank(x) != 4:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    return x


def _flat(a: Arguments, lower: Lowering) -> str:
    """The input (N, I) of a fully connected layer."""
    x = a.value("x")
    if lower.rank(x) != 2:
        raise Unsupported(f"the input is not (N, I) but {lower.shape(x)}")
    return x


def _window(a: Arguments) -> dict[str, Any]:
    """How a 2-d convolution walks, in the graph's words."""
    padding = spread(a["padding"], 2) * 2 if len(a["padding"]) < 4 else [int(side) for side in a["padding"]]
    return {
        "stride": spread(a["stride"], 2),
        "padding": padding,
        "dilation": spread(a["dilation"], 2),
        "groups": int(a["groups"]),
    }


@lowers("fastcnn::codebook_conv2d")
def codebook_conv2d(lower: Lowering, a: Arguments) -> str:
    """Convolution whose weight is codebook[codes]."""
    x = _map(a, lower)
    return lower.emit(
        "codebook_conv2d",
        [x],
        params={"codebook": a.constant("codebook"), "codes": _codes(a), "bias": _bias(a)},
        attrs=_window(a),
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
    x = _map(a, lower)
    return lower.emit(
        "conv2d",
        [x],
        params={"weight": a.constant("weight"), "bias": _bias(a)},
        attrs=_window(a),
    )


def _rows(a: Arguments, lower: Lowering) -> str:
    """The input, which has a batch axis as every value of the graph does."""
    x = a.value("x")
    if lower.rank(x) < 2:
        raise Unsupported(f"the input has no batch axis (shape {lower.shape(x)})")
    return x


def _floats(constant: Constant) -> Constant:
    """Signs kept in one byte, as float32."""
    tensor = constant.tensor
    return constant if tensor.is_floating_point() else Constant(tensor.to(torch.float32), constant.key)


def _places(constant: Constant) -> Constant | None:
    """Permutations as int32; None where there are none."""
    tensor = constant.tensor
    if tensor.is_floating_point() or tensor.is_complex():
        raise Unsupported(f"permutations must be integers, got {tensor.dtype}")
    if tensor.numel() == 0:
        return None
    return constant if tensor.dtype == torch.int32 else Constant(tensor.to(torch.int32), constant.key)


@lowers("fastcnn::circulant_linear")
def circulant_linear(lower: Lowering, a: Arguments) -> str:
    """Fully connected layer of circulant matrices."""
    return lower.emit(
        "circulant_linear",
        [_rows(a, lower)],
        params={"vectors": a.constant("vectors"), "signs": _floats(a.constant("signs")), "bias": _bias(a)},
        attrs={"out_features": int(a["out_features"])},
    )


@lowers("fastcnn::block_circulant_linear")
def block_circulant_linear(lower: Lowering, a: Arguments) -> str:
    """Fully connected layer of circulant blocks."""
    return lower.emit(
        "block_circulant_linear",
        [_rows(a, lower)],
        params={"vectors": a.constant("vectors"), "bias": _bias(a)},
        attrs={"out_features": int(a["out_features"])},
    )


@lowers("fastcnn::block_circulant_conv2d")
def block_circulant_conv2d(lower: Lowering, a: Arguments) -> str:
    """Convolution of circulant blocks."""
    x = _map(a, lower)
    return lower.emit(
        "block_circulant_conv2d",
        [x],
        params={"vectors": a.constant("vectors"), "bias": _bias(a)},
        attrs={
            "out_features": int(a["out_channels"]),
            **_window(a),
        },
    )


@lowers("fastcnn::fastfood_linear")
def fastfood_linear(lower: Lowering, a: Arguments) -> str:
    """Diagonals, a permutation and Walsh-Hadamard transforms."""
    params = {role: a.constant(role) for role in ("scale", "gauss", "signs")}
    return lower.emit(
        "fastfood_linear",
        [_rows(a, lower)],
        params={**params, "permutation": _places(a.constant("permutation")), "bias": _bias(a)},
        attrs={"out_features": int(a["out_features"])},
    )


@lowers("fastcnn::acdc_linear")
def acdc_linear(lower: Lowering, a: Arguments) -> str:
    """Diagonals and cosine transforms."""
    return lower.emit(
        "acdc_linear",
        [_rows(a, lower)],
        params={
            "a": a.constant("a"),
            "d": a.constant("d"),
            "beta": None if a.get("beta") is None else a.constant("beta"),
            "permutations": _places(a.constant("permutations")),
        },
        attrs={"relu": bool(a["relu"]), "out_features": int(a["out_features"])},
    )


@lowers("fastcnn::tt_linear")
def tt_linear(lower: Lowering, a: Arguments) -> str:
    """Fully connected layer whose matrix is a tensor train."""
    cores = a["cores"]
    if not all(isinstance(core, Constant) for core in cores):
        raise Unsupported("cores are computed from the input")
    return lower.emit(
        "tt_linear",
        [_rows(a, lower)],
        params={**{f"core{k}": core for k, core in enumerate(cores)}, "bias": _bias(a)},
        attrs={"in_features": int(a["in_features"]), "out_features": int(a["out_features"])},
    )


def _optional(a: Arguments, *roles: str) -> dict[str, Constant | None]:
    return {role: None if a.get(role) is None else a.constant(role) for role in roles}


@lowers("fastcnn::sign")
def sign(lower: Lowering, a: Arguments) -> str:
    """+1 and -1."""
    return lower.emit("sign", [a.value("x")])


@lowers("fastcnn::quantize")
def quantize(lower: Lowering, a: Arguments) -> str:
    """Levels that few bits count."""
    levels = {key: int(a[key]) for key in ("zero", "low", "high")}
    return lower.emit("quantize", [a.value("x")], attrs={"factor": a["factor"], "step": a["step"], **levels})


def _levels(a: Arguments) -> dict[str, Any]:
    return {"factor": float(a["factor"]), "zero": int(a["zero"])}


@lowers("fastcnn::int8_conv2d")
def int8_conv2d(lower: Lowering, a: Arguments) -> str:
    """Convolution of bytes."""
    x = _map(a, lower)
    return lower.emit(
        "int8_conv2d",
        [x],
        params={"weight": a.constant("weight"), "scale": a.constant("scale"), **_optional(a, "bias")},
        attrs={**_window(a), **_levels(a)},
    )


@lowers("fastcnn::int8_linear")
def int8_linear(lower: Lowering, a: Arguments) -> str:
    """Fully connected layer of bytes."""
    x = _flat(a, lower)
    return lower.emit(
        "int8_linear",
        [x],
        params={"weight": a.constant("weight"), "scale": a.constant("scale"), **_optional(a, "bias")},
        attrs=_levels(a),
    )


@lowers("fastcnn::binary_conv2d")
def binary_conv2d(lower: Lowering, a: Arguments) -> str:
    """Convolution with weights of one bit."""
    x = _map(a, lower)
    return lower.emit(
        "binary_conv2d",
        [x],
        params={"bits": a.constant("bits"), **_optional(a, "scale", "bias")},
        attrs={
            "in_channels": lower.shape(x)[1],
            "kernel_size": spread(a["kernel_size"], 2),
            **_window(a),
            "planes": [int(factor) for factor in a["planes"]],
            "binarize": bool(a["binarize"]),
            "pad_value": int(a["pad_value"]),
        },
    )


@lowers("fastcnn::binary_linear")
def binary_linear(lower: Lowering, a: Arguments) -> str:
    """Fully connected layer with weights of one bit."""
    x = _flat(a, lower)
    return lower.emit(
        "binary_linear",
        [x],
        params={"bits": a.constant("bits"), **_optional(a, "scale", "bias")},
        attrs={
            "in_features": lower.shape(x)[1],
            "planes": [int(factor) for factor in a["planes"]],
            "binarize": bool(a["binarize"]),
        },
    )
