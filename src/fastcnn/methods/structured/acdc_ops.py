"""``torch.ops.fastcnn.acdc_linear``: fake kernel, autograd rule, reference path.

One layer, in row form, with C the orthonormal DCT-II:

    y = ((x * a) C * d + beta) C^-1

and with the gradient G of y:

    z = G C                  grad beta = sum z         grad d = sum z * (x * a) C
    q = (z * d) C^-1         grad a = sum q * x        grad x = q * a

Sums run over the rows of the batch. Between the layers of a cascade stand a ReLU, if any, and a permutation. The
backward pass makes the inputs of the layers anew. Halves are computed in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastcnn.methods.structured.dct import dct_op
from fastcnn.methods.transforms.convolution.spectra import compute_dtype


def _cascade(
    x: Tensor, a: Tensor, d: Tensor, beta: Tensor | None, permutations: Tensor, relu: bool
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Run x (..., N) through all layers; return the layers' inputs, their (input * a) C, and the last output."""
    inputs, spectra = [], []
    for k in range(a.shape[0]):
        if k:
            x = F.relu(x) if relu else x
            x = x.index_select(-1, permutations[k - 1])
        inputs.append(x)
        spectra.append(dct_op(x * a[k], False))
        middle = spectra[k] * d[k]
        x = dct_op(middle if beta is None else middle + beta[k], True)
    return inputs, spectra, x


def _padded(x: Tensor, n: int) -> Tensor:
    return F.pad(x, (0, n - x.shape[-1]))


@torch.library.custom_op("fastcnn::acdc_linear", mutates_args=())
def acdc_linear(
    x: Tensor, a: Tensor, d: Tensor, beta: Tensor | None, permutations: Tensor, relu: bool, out_features: int
) -> Tensor:
    """Map x (..., I) to (..., out_features); a, d and beta are (K, N), permutations (K - 1, N) int32."""
    dtype = compute_dtype(x.dtype)
    _, _, y = _cascade(
        _padded(x.to(dtype), a.shape[-1]),
        a.to(dtype),
        d.to(dtype),
        None if beta is None else beta.to(dtype),
        permutations,
        relu,
    )
    return y[..., :out_features].to(x.dtype).contiguous()


@acdc_linear.register_fake
def _(
    x: Tensor, a: Tensor, d: Tensor, beta: Tensor | None, permutations: Tensor, relu: bool, out_features: int
) -> Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, a, d, beta, permutations, relu, _ = inputs
    ctx.save_for_backward(x, a, d, beta, permutations)
    ctx.relu = relu


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, a, d, beta, permutations = ctx.saved_tensors
    need_x, need_a, need_d, need_beta, *_ = ctx.needs_input_grad
    kept, dtype = x.dtype, compute_dtype(x.dtype)
    n = a.shape[-1]
    a, d, beta = a.to(dtype), d.to(dtype), None if beta is None else beta.to(dtype)
    inputs, spectra, _ = _cascade(_padded(x.to(dtype), n), a, d, beta, permutations, ctx.relu)
    g = _padded(grad.to(dtype), n)
    grads_a: list[Tensor] = []
    grads_d: list[Tensor] = []
    grads_beta: list[Tensor] = []
    for k in reversed(range(a.shape[0])):
        z = dct_op(g, False)
        q = dct_op(z * d[k], True)
        grads_beta.insert(0, z.sum_to_size(n))
        grads_d.insert(0, (z * spectra[k]).sum_to_size(n))
        grads_a.insert(0, (q * inputs[k]).sum_to_size(n))
        g = q * a[k]
        if k:
            # A number that the ReLU let through is positive behind the permutation as well.
            g = g * (inputs[k] > 0) if ctx.relu else g
            g = g.index_select(-1, torch.argsort(permutations[k - 1]))
    return (
        g[..., : x.shape[-1]].to(kept) if need_x else None,
        torch.stack(grads_a).to(kept) if need_a else None,
        torch.stack(grads_d).to(kept) if need_d else None,
        torch.stack(grads_beta).to(kept) if beta is not None and need_beta else None,
        None,
        None,
        None,
    )


acdc_linear.register_autograd(_backward, setup_context=_setup)
