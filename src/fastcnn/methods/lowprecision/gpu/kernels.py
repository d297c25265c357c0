"""Triton kernels of bits: packing, laying weights out, and sums of products by counting.

Words have 32 bits, the lowest first. Signs: a bit is 1 for -1, so that the products of a word's K signs come to
K - 2 popc(x ^ w). Levels 0 ... 2^k - 1 are k planes of bits in {0, 1}; times signs, the products come to the sum of
2^j (popc(x_j) - 2 popc(x_j & w)). Bits past the last channel of a group are 0 in both operands and count for nothing. A
weight has planes of signs times whole factors, whose sums add up.

Layouts, in words: inputs (planes, N, groups words, H W) with strides that the caller chooses; weights (planes, kh kw
words, O), so that neighbouring threads read neighbouring outputs; outputs by their strides.

A thread has RM positions times RN outputs. Tiles have an axis for each and one over the T threads, (RM, RN, T): in this
form no sum leaves its thread and there is no barrier. Operands come through L1. Counting takes the time: its rate is an
eighth of that of float32 products.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

WORD = tl.constexpr(32)


@triton.jit
def popcount(x, NATIVE: tl.constexpr):
    """Bits that are 1 in each int32; by shifts and masks where there is no such instruction, as in the interpreter."""
    if NATIVE:
        return libdevice.popc(x)
    v = x.to(tl.uint32, bitcast=True)
    v = v - ((v >> 1) & 0x55555555)
    v = (v & 0x33333333) + ((v >> 2) & 0x33333333)
    v = (v + (v >> 4)) & 0x0F0F0F0F
    v = v + (v >> 8)
    v = v + (v >> 16)
    return (v & 63).to(tl.int32)


@triton.jit
def pack(
    x,
    words,
    count,
    area,
    width,
    channels,
    wide,
    x_n,
    x_c,
    x_h,
    x_w,
    w_plane,
    w_n,
    w_word,
    w_pixel,
    SIGNS: tl.constexpr,
    PLANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Bits of a map (N, C, H, W): a program makes one word of each of BLOCK pixels.

    Grid: blocks of the count = N H W pixels times ``wide`` words of a group; groups of so many channels.
    """
    word_of_group = tl.program_id(0) % wide
    pixel = tl.program_id(0) // wide * BLOCK + tl.arange(0, BLOCK)
    n, place = pixel // area, pixel % area
    bit = tl.arange(0, WORD)
    channel = word_of_group * WORD + bit
    source = n.to(tl.int64) * x_n + (place // width).to(tl.int64) * x_h + (place % width).to(tl.int64) * x_w
    column = (tl.program_id(1) * channels + channel).to(tl.int64) * x_c
    there = (channel < channels)[:, None] & (pixel < count)[None, :]
    value = tl.load(x + column[:, None] + source[None, :], mask=there, other=0.0)
    if x.dtype.element_ty != tl.float64:
        # Exact; Triton's interpreter need not know how to compare bfloat16.
        value = value.to(tl.float32)
    word = tl.program_id(1) * wide + word_of_group
    target = words + n * w_n + word * w_word + place * w_pixel
    if SIGNS:
        # Not value < 0: NaN counts as -1, as in the op `sign`.
        found = tl.where(value >= 0.0, 0, 1) << bit[:, None]
        tl.store(target, tl.sum(found, axis=0), mask=pixel < count)
    else:
        level = tl.where(value == value, value, 0.0).to(tl.int32)
        for plane in tl.static_range(PLANES):
            found = ((level >> plane) & 1) << bit[:, None]
            tl.store(target + plane * w_plane, tl.sum(found, axis=0), mask=pixel < count)


@triton.jit
def lay_out(
    rows,
    words,
    outputs,
    channels,
    wide,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """From rows of bits in the order (channel, tap), as files have them, to words of channels for each tap.

    Grid: taps times words; blocks of outputs; planes. ``wide`` is a row's length in words.
    """
    output = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = output < outputs
    per_tap = tl.num_programs(0) // TAPS
    tap, word = tl.program_id(0) // per_tap, tl.program_id(0) % per_tap
    row = rows + (tl.program_id(2) * outputs + output) * wide
    bit = tl.arange(0, WORD)
    channel = word * WORD + bit
    place = channel * TAPS + tap
    inside = (channel < channels)[:, None] & there[None, :]
    found = tl.load(row[None, :] + (place // WORD)[:, None], mask=inside, other=0)
    found = ((found >> (place % WORD)[:, None]) & 1) << bit[:, None]
    target = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * outputs + output
    tl.store(words + target, tl.sum(found, axis=0), mask=there)


@triton.jit
def convolve(
    x,
    w,
    y,
    scale,
    bias,
    positions,
    outputs,
    channels,
    words,
    height,
    width,
    out_area,
    out_width,
    top,
    left,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    x_plane,
    x_n,
    x_word,
    x_pixel,
    y_n,
    y_c,
    y_pixel,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SIGNS: tl.constexpr,
    PLANES: tl.constexpr,
    FACTORS: tl.constexpr,
    PADDED: tl.constexpr,
    PAD: tl.constexpr,
    UNROLL: tl.constexpr,
    RM: tl.constexpr,
    RN: tl.constexpr,
    TM: tl.constexpr,
    TN: tl.constexpr,
    ALONG_OUTPUTS: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Sums of products under a window, times scale, plus bias; a linear layer is a window of 1 x 1 on maps of 1 x 1.

    Grid: blocks of the N H' W' positions; blocks of a group's outputs; groups. Neighbouring threads take neighbouring
    outputs, or else positions: whichever lie side by side in y.

    Parameters
    ----------
    channels, words, outputs
        Of one group.
    PADDED, PAD
        Whether a window may stick out of the map, and the value there: 0, or for signs +1 or -1.
    PLANES, FACTORS
        Planes of the inputs, and what each plane of the weight's signs is multiplied by.
    RM, RN, TM, TN
        Positions and outputs of a thread, and threads along each.
    """
    group = tl.program_id(2)
    thread = tl.arange(0, TM * TN)
    if ALONG_OUTPUTS:
        along_m, along_n = thread // TN, thread % TN
    else:
        along_m, along_n = thread % TM, thread // TM
    m = tl.program_id(0) * (RM * TM) + tl.arange(0, RM)[:, None] * TM + along_m[None, :]
    n = tl.program_id(1) * (RN * TN) + tl.arange(0, RN)[:, None] * TN + along_n[None, :]
    # Threads past the end repeat the last one's work, which is not stored.
    at_m, at_n = tl.minimum(m, positions - 1), tl.minimum(n, outputs - 1)
    picture, place = at_m // out_area, at_m % out_area
    row, column = (place // out_width) * stride_h - top, (place % out_width) * stride_w - left
    all_outputs = outputs * tl.num_programs(2)
    plane_of_w = KH * KW * words * all_outputs
    x_at = picture * x_n + group * words * x_word
    w_at = at_n + group * outputs
    counted = tl.zeros((RM, RN, TM * TN), tl.int32)
    # Of each position: the sum that the products would have if all signs of the weight were +1.
    full = tl.zeros((RM, TM * TN), tl.int32)
    last = channels - (words - 1) * WORD
    for tap in range(KH * KW):
        h, v = row + (tap // KW) * dilation_h, column + (tap % KW) * dilation_w
        inside = (h >= 0) & (h < height) & (v >= 0) & (v < width)
        if SIGNS:
            if PADDED and PAD == 0:
                full += tl.where(inside, channels, 0)
                seen = tl.where(inside, -1, 0)
            else:
                full += channels
        x_tap = x + x_at + (h * width + v) * x_pixel
        w_tap = w + w_at + tap * words * all_outputs
        for first in range(0, words, UNROLL):
            for u in tl.static_range(UNROLL):
                word = first + u
                around = 0
                if SIGNS and PAD == -1:
                    around = tl.where((word == words - 1) & (last < WORD), (1 << (last % WORD)) - 1, -1)
                for j in tl.static_range(PLANES):
                    if PADDED:
                        bits = tl.load(x_tap + word * x_word + j * x_plane, mask=inside, other=around)
                    else:
                        bits = tl.load(x_tap + word * x_word + j * x_plane)
                    if not SIGNS:
                        full += popcount(bits, NATIVE) << j
                    for i in tl.static_range(len(FACTORS)):
                        signs = tl.load(w_tap + word * all_outputs + i * plane_of_w)
                        if SIGNS:
                            both = bits[:, None, :] ^ signs[None, :, :]
                            if PADDED and PAD == 0:
                                both = both & seen[:, None, :]
                        else:
                            both = bits[:, None, :] & signs[None, :, :]
                        counted += popcount(both, NATIVE) * (FACTORS[i] << j)
    factors = 0
    for i in tl.static_range(len(FACTORS)):
        factors += FACTORS[i]
    total = full[:, None, :] * factors - 2 * counted
    # Each step is rounded to y's type, as the reference does; halves are multiplied and added in float32.
    of_y = y.dtype.element_ty
    wide = tl.float64 if of_y == tl.float64 else tl.float32
    value = total.to(wide).to(of_y)
    if scale is not None:
        value = (value.to(wide) * tl.load(scale + w_at).to(wide)[None, :, :]).to(of_y)
    if bias is not None:
        value = (value.to(wide) + tl.load(bias + w_at).to(wide)[None, :, :]).to(of_y)
    target = (picture * y_n + place * y_pixel)[:, None, :] + (w_at * y_c)[None, :, :]
    tl.store(y + target, value, mask=(m < positions)[:, None, :] & (n < outputs)[None, :, :])
