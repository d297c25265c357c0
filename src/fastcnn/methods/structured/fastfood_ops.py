"""``torch.ops.fastcnn.fastfood_linear``: fake kernel, autograd rule, reference path.

For every one of B blocks, with H the orthonormal Walsh-Hadamard transform, P a permutation and D diagonal,

    y = D1 c,     c = H D2 b,     b = P H D3 x

and with the gradient G of y:

    grad D1 = sum G c          q = H D1 G
    grad D2 = sum q b          u = H P^T D2 q
    grad D3 = sum u x          grad x = sum over the blocks of D3 u

Sums run over the rows of the batch. The backward pass makes b and c anew. Halves are computed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.structured.hadamard import hadamard_op
from fastcnn.methods.transforms.convolution.spectra import compute_dtype


def _places(permutation: Tensor) -> Tensor:
    """Permutations (B, N) of the blocks as one of all their B * N numbers."""
    blocks, n = permutation.shape
    first = torch.arange(blocks, device=permutation.device) * n
    return (permutation.to(torch.int64) + first[:, None]).flatten()


def _permute(x: Tensor, places: Tensor) -> Tensor:
    """Number j of the last two axes, taken together, becomes the one at ``places[j]``."""
    return torch.unflatten(x.flatten(-2).index_select(-1, places), -1, x.shape[-2:])


def _padded(x: Tensor, n: int) -> Tensor:
    """(..., I) -> (..., 1, N): zeros behind, and an axis for the blocks."""
    return F.pad(x, (0, n - x.shape[-1])).unsqueeze(-2)


def _halfway(x: Tensor, gauss: Tensor, signs: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return b and c, (..., B, N) each, of x (..., 1, N)."""
    b = _permute(hadamard_op(x * signs), places)
    return b, hadamard_op(b * gauss)


@torch.library.custom_op("fastcnn::fastfood_linear", mutates_args=())
def fastfood_linear(
    x: Tensor, scale: Tensor, gauss: Tensor, signs: Tensor, permutation: Tensor, bias: Tensor | None, out_features: int
) -> Tensor:
    """Map x (..., I) to (..., out_features); D1, D2, D3 and P are (B, N), P int32, bias (out_features,)."""
    dtype = compute_dtype(x.dtype)
    padded = _padded(x.to(dtype), scale.shape[-1])
    _, c = _halfway(padded, gauss.to(dtype), signs.to(dtype), _places(permutation))
    y = (c * scale.to(dtype)).flatten(-2)[..., :out_features]
    if bias is not None:
        y = y + bias.to(dtype)
    return y.to(x.dtype).contiguous()


@fastfood_linear.register_fake
def _(
    x: Tensor, scale: Tensor, gauss: Tensor, signs: Tensor, permutation: Tensor, bias: Tensor | None, out_features: int
) -> Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, gauss, signs, permutation, bias, _ = inputs
    ctx.save_for_backward(x, scale, gauss, signs, permutation)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, gauss, signs, permutation = ctx.saved_tensors
    need_x, need_scale, need_gauss, need_signs, _, need_bias, _ = ctx.needs_input_grad
    kept, dtype = x.dtype, compute_dtype(x.dtype)
    scale, gauss, signs = scale.to(dtype), gauss.to(dtype), signs.to(dtype)
    blocks, n = scale.shape
    places = _places(permutation)
    padded = _padded(x.to(dtype), n)
    outer = grad.to(dtype)
    g = torch.unflatten(F.pad(outer, (0, blocks * n - outer.shape[-1])), -1, (blocks, n))
    b, c = _halfway(padded, gauss, signs, places)
    q = hadamard_op(g * scale)
    u = hadamard_op(_permute(q * gauss, torch.argsort(places)))
    grad_x = (u * signs).sum(-2)[..., : x.shape[-1]] if need_x else None
    return (
        None if grad_x is None else grad_x.to(kept),
        (g * c).sum_to_size(blocks, n).to(kept) if need_scale else None,
        (q * b).sum_to_size(blocks, n).to(kept) if need_gauss else None,
        (u * padded).sum_to_size(blocks, n).to(kept) if need_signs else None,
        None,
        outer.sum_to_size(outer.shape[-1]).to(kept) if ctx.has_bias and need_bias else None,
        None,
    )


fastfood_linear.register_autograd(_backward, setup_context=_setup)
