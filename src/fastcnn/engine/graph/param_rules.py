"""Rules across parameters and attributes: what the arrays of one node must satisfy together.

Each rule gets (node, arrays by role) with ranks, dtypes and attribute types already checked, and raises GraphError.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastcnn.engine.graph.graph import Array, GraphError, Node
from fastcnn.engine.graph.schema import MAX_CODEBOOK

Arrays = Mapping[str, Array]


def _bias(arrays: Arrays, expected: int) -> None:
    if "bias" in arrays and arrays["bias"].shape != (expected,):
        raise GraphError(f"bias must have {expected} entries, one per output, got {arrays['bias'].shape[0]}")


def _groups(node: Node, channels: int, what: str) -> None:
    if channels % node.attrs["groups"]:
        raise GraphError(f"groups={node.attrs['groups']} does not divide {channels} {what}")


def conv(node: Node, arrays: Arrays) -> None:
    """Groups divide the outputs; one bias per output."""
    out_channels = arrays["weight"].shape[0]
    _groups(node, out_channels, "output channels")
    _bias(arrays, out_channels)


def conv_transpose2d(node: Node, arrays: Arrays) -> None:
    """Groups divide the inputs; one bias per output; output padding smaller than stride or dilation (torch's rule)."""
    weight = arrays["weight"]
    _groups(node, weight.shape[0], "input channels")
    _bias(arrays, weight.shape[1] * node.attrs["groups"])
    for extra, stride, dilation in zip(
        node.attrs["output_padding"], node.attrs["stride"], node.attrs["dilation"], strict=True
    ):
        if extra >= max(stride, dilation):
            raise GraphError(f"output_padding={extra} must be smaller than stride={stride} or dilation={dilation}")


def linear(node: Node, arrays: Arrays) -> None:
    """One bias per output."""
    _bias(arrays, arrays["weight"].shape[0])


def _codebook(arrays: Arrays) -> None:
    codebook, codes = arrays["codebook"], arrays["codes"]
    if codebook.size > MAX_CODEBOOK:
        raise GraphError(f"codebook has {codebook.size} entries; at most {MAX_CODEBOOK} are allowed")
    if codebook[0] != 0:
        raise GraphError(f"codebook[0] must be exactly 0 (code 0 means a pruned weight), got {codebook[0]}")
    if int(np.max(codes)) >= codebook.size:
        raise GraphError(f"codes reach {int(np.max(codes))}, the codebook has {codebook.size} entries")


def codebook_conv2d(node: Node, arrays: Arrays) -> None:
    """As conv, and every code inside the codebook, whose entry 0 is 0."""
    out_channels = arrays["codes"].shape[0]
    _groups(node, out_channels, "output channels")
    _bias(arrays, out_channels)
    _codebook(arrays)


def codebook_linear(node: Node, arrays: Arrays) -> None:
    """As linear, and every code inside the codebook, whose entry 0 is 0."""
    _bias(arrays, arrays["codes"].shape[0])
    _codebook(arrays)


def _equal_lengths(arrays: Arrays) -> None:
    lengths = {role: array.shape[0] for role, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise GraphError(f"parameters must have one entry per channel each, got {lengths}")


def batch_norm(node: Node, arrays: Arrays) -> None:
    """Four vectors of one length, and a positive variance plus eps."""
    _equal_lengths(arrays)
    if float(np.min(arrays["running_var"])) + float(node.attrs["eps"]) <= 0:
        raise GraphError("running_var + eps must be positive")


def group_norm(node: Node, arrays: Arrays) -> None:
    """Weight and bias of one length, which the groups divide."""
    _equal_lengths(arrays)
    for role, array in arrays.items():
        _groups(node, array.shape[0], f"channels of {role}")


def scale_shift(node: Node, arrays: Arrays) -> None:
    """Two vectors of one length."""
    _equal_lengths(arrays)


def pool(node: Node, arrays: Arrays) -> None:
    """Padding at most half the window's reach, so that no window lies in padding alone (torch's rule)."""
    attrs = node.attrs
    spatial = len(attrs["kernel_size"])
    dilation = attrs.get("dilation", [1] * spatial)
    for i, pad in enumerate(attrs["padding"]):
        reach = dilation[i % spatial] * (attrs["kernel_size"][i % spatial] - 1) + 1
        if pad > reach // 2:
            raise GraphError(f"padding={attrs['padding']} must be at most half the window's reach ({reach})")


def max_unpool2d(node: Node, arrays: Arrays) -> None:
    """As a pool; and windows that do not overlap, so that no place is written twice."""
    pool(node, arrays)
    kernel, stride = node.attrs["kernel_size"], node.attrs["stride"]
    if any(s < k for s, k in zip(stride, kernel, strict=True)):
        raise GraphError(f"stride={stride} must be at least kernel_size={kernel}: overlapping windows have no inverse")


def resize(node: Node, arrays: Arrays) -> None:
    """Exactly one of size and scale."""
    if (node.attrs["size"] is None) == (node.attrs["scale"] is None):
        raise GraphError(f"give size or scale, not both: size={node.attrs['size']}, scale={node.attrs['scale']}")
