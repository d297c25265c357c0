"""Convolution by transformed tiles: Winograd's forms and the FFT's, what they multiply, and which to try.

A form turns a tile of the input into some numbers, as many products over the channels follow, and a tile of the output
comes out (native/runtime/steps/tiles.cpp); FFT tiles can also be taken a row of their spectra at a time (fft_rows.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastcnn import _native
from fastcnn.engine.plan.candidates import UNPACK_FROM_BYTES, Target
from fastcnn.engine.plan.slots import Candidate, Draft

OPS = ("winograd", "fft", "fft_depthwise")
"""Native ops that are tile forms."""


@dataclass(frozen=True, kw_only=True)
class TileForm:
    """A form for one kernel.

    Attributes
    ----------
    down, across : int
        Rows and columns of an output tile.
    points : tuple of int
        Rows and columns of an input tile.
    products : int
        Real multiplications of a tile, for each pair of an input channel and a filter; where there is a stride, of all
        its phases.
    """

    down: int
    across: int
    points: tuple[int, int]
    products: int
    apart: tuple[int, int] = (1, 1)

    def tiles(self, batch: int, out_map: tuple[int, int]) -> int:
        """Tiles that cover the output, those at the edges whole."""
        own = (math.ceil(out_map[i] / self.apart[i]) for i in range(2))
        return batch * math.prod(
            d * math.ceil(n / m) for d, n, m in zip(self.apart, own, (self.down, self.across), strict=True)
        )

    def saving(self, kernel: tuple[int, int], out_map: tuple[int, int]) -> float:
        """Multiplications of the direct algorithm for one of this form."""
        return math.prod(out_map) * math.prod(kernel) / (self.tiles(1, out_map) * self.products)


def taps_of(kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a kernel's phases: the taps that lie a stride apart."""
    return -(-kernel[0] // stride[0]), -(-kernel[1] // stride[1])


def form_of(
    op: str,
    attrs: Mapping[str, Any],
    kernel: tuple[int, int],
    stride: Sequence[int] = (1, 1),
    dilation: Sequence[int] = (1, 1),
) -> TileForm:
    """The form that a candidate's attributes name; Winograd leaves an axis of one tap alone."""
    taps = taps_of(kernel, (stride[0], stride[1]))
    if op.startswith("fft"):
        tile = int(attrs["tile"])
        points = (tile, tile)
        products = 3 * (tile * tile // 2 - 2) + 4  # of a complex frequency three, of a real one one
    else:
        m = int(attrs["m"])
        points = (m + taps[0] - 1 if taps[0] > 1 else 1, m + taps[1] - 1 if taps[1] > 1 else 1)
        products = math.prod(points)
    down, across = (points[i] - taps[i] + 1 for i in range(2))
    return TileForm(
        down=down, across=across, points=points, products=products * math.prod(stride), apart=(dilation[0], dilation[1])
    )


WINOGRAD_TILES = {(3, 3): (6, 4, 2), (5, 5): (4, 2), (2, 2): (7, 5, 3)} | {
    shape: tiles for k, tiles in {3: (6, 4, 2), 5: (4, 2), 7: (4, 2)}.items() for shape in ((1, k), (k, 1))
}
"""Output tiles m of the forms there are kernels for, by the taps of a phase."""

_L3_SHARE_BYTES = 2 << 20
"""What one thread's tiles may take of L3."""
_LEAST_SAVING = 1.2
_MOST_STRIDE = 4
_MOST_DILATION = 64
_MOST_FFT = 4
"""Best guesses among the sizes, splits and chunks of FFT tiles that are tried."""
_MOST_OWN_ROWS = 5
"""Besides, of those that exchange nothing between cores; how fast that is differs most between machines."""
OWN_ROWS_FROM = 5
"""Rows or columns of a kernel from which on these are tried: below, Winograd wins."""


def has_few_forms(draft: Draft) -> bool:
    """Whether a step has no more candidates than direct, Winograd, AMX and the FFT of a small kernel give it."""
    weight = draft.weights.get("weight")
    return weight is None or len(weight.shape) != 4 or max(weight.shape[2:]) < OWN_ROWS_FROM


@lru_cache
def _group(isa: str) -> int:
    return int(_native.tile_group(isa))


@lru_cache
def _fft_sizes(isa: str) -> tuple[int, ...]:
    return tuple(int(size) for size in _native.fft_sizes(isa))


def tile_candidates(
    target: Target,
    *,
    batch: int,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    out_map: tuple[int, int],
    relaxed: bool,
) -> list[Candidate]:
    """Forms that save multiplications, best guess first, in every way that :func:`splits` names."""
    both = any(s > 1 and d > 1 for s, d in zip(stride, dilation, strict=True))
    if both or max(stride) > _MOST_STRIDE or max(dilation) > _MOST_DILATION:
        return []
    layer = _Layer(batch, in_channels, out_channels, kernel, stride, dilation, out_map)
    taps = taps_of(kernel, stride)
    winograd = [
        found
        for m in WINOGRAD_TILES.get(taps, ())
        for found in _ways(layer, target, "winograd", {"m": m}, f"winograd:{m}", relaxed or m == 2)
    ]
    fft = [
        found
        for size in _fft_sizes(target.isa)
        if size >= max(taps) and max(taps) > 1
        for found in _ways(layer, target, "fft", {"tile": size}, f"fft:{size}", True)
    ]
    # Each way with spectra in 16 bits stands beside its twin in 32, which the error budget may fall back on.
    in_16 = [pair for pair in fft if "weights" in pair[1].attrs]
    in_32 = sorted((pair for pair in fft if "weights" not in pair[1].attrs), key=lambda pair: pair[0])
    fft = [pair for pair in in_32 if pair[1].attrs["split"] != "own_rows"][:_MOST_FFT]
    fft += [pair for pair in in_32 if pair[1].attrs["split"] == "own_rows"][:_MOST_OWN_ROWS]
    kept = [{**candidate.attrs, "weights": "i16"} for _, candidate in fft]
    fft += [pair for pair in in_16 if pair[1].attrs in kept]
    return [candidate for _, candidate in sorted(winograd + fft, key=lambda pair: pair[0])]


def depthwise_candidates(
    target: Target,
    *,
    batch: int,
    channels: int,
    kernel: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    out_map: tuple[int, int],
) -> list[Candidate]:
    """Depthwise convolution by FFT, best guess first, where the transforms take no longer than the direct algorithm."""
    scored = []
    for size in _fft_sizes(target.isa):
        if size < max(kernel) or max(dilation) > _MOST_DILATION:
            continue
        form = form_of("fft_depthwise", {"tile": size}, kernel, dilation=dilation)
        tiles = form.tiles(batch, out_map)
        work = tiles * (8 * math.log2(size) + 12 + form.products / size**2) * size**2  # of vector operations
        saving = batch * math.prod(out_map) * math.prod(kernel) / work
        if saving < _LEAST_DEPTHWISE_SAVING:
            continue
        # Spectra of a block of channels are read once per tile, from further away the larger they are.
        cost = channels / target.lanes * (work / 2e9 + tiles * 4 * form.products * target.lanes / 40e9)
        why = f"FFT of {size}x{size} tiles: {form.saving(kernel, out_map):.1f}x fewer products"
        found = Candidate(f"fft_depthwise:{size}", "fft_depthwise", {"tile": size}, exact=False, why=why)
        scored.append((cost, found))
    return [candidate for _, candidate in sorted(scored, key=lambda pair: pair[0])[:_MOST_FFT]]


_LEAST_DEPTHWISE_SAVING = 0.7
"""Vector operations of the direct algorithm for one of the transforms': below, timing them is a waste of time."""


@dataclass(frozen=True)
class _Layer:
    batch: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    out_map: tuple[int, int]


def _ways(
    layer: _Layer, target: Target, op: str, which: dict[str, int], label: str, rounds_well: bool
) -> Iterator[tuple[float, Candidate]]:
    """Yield (seconds, about; candidate) for every split and chunk of a form, none if it hardly saves anything.

    ``rounds_well``: whether spectra in 16 bits are of any use: the transforms of large Winograd tiles multiply what is
    rounded off.
    """
    form = form_of(op, which, layer.kernel, layer.stride, layer.dilation)
    fold = math.prod(layer.stride)
    saving = form.saving(layer.kernel, layer.out_map)
    if saving < _LEAST_SAVING:
        return
    tiles = form.tiles(layer.batch, layer.out_map)
    pairs = layer.in_channels * layer.out_channels
    spectra_bytes = 4.0 * form.products * pairs
    tile_bytes = 4 * form.products * layer.in_channels
    macs = form.products * tiles * pairs
    passes = 2.0 if op == "winograd" else 4 * math.log2(form.points[0]) + 6  # of vector operations over a tile
    maps = layer.in_channels * fold + layer.out_channels
    transforms = tiles * maps / target.lanes * passes * math.prod(form.points)
    if op == "fft":
        why = f"FFT of {form.points[0]}x{form.points[1]} tiles: {saving:.1f}x fewer multiplications"
    else:
        taps = taps_of(layer.kernel, layer.stride)
        why = f"F({max(form.down, form.across)},{max(taps)}): {saving:.1f}x fewer multiplications"
    if fold > 1:
        why += f", in {fold} phases of its stride"
    for split in splits(op, target.threads):
        share = math.ceil(tiles / target.threads) if split in ("tiles", "own_rows") else tiles
        if split == "own_rows" and (2 * share < _group(target.isa) or max(layer.kernel) < OWN_ROWS_FROM):
            continue  # its products would hardly use a weight twice; or Winograd wins in any case
        for chunk in chunks_of(target, form, split, layer.in_channels, share, fold):
            chunks = math.ceil(share / chunk)
            workers = float(target.threads)
            if split == "rows":
                rows = form.points[0] // 2
                workers = rows / math.ceil(rows / target.threads)  # of whole rows
                # A row's spectra are read once a chunk, unless L2 still has them; those of all rows once a span.
                again = chunks if spectra_bytes / rows > target.l2_bytes else _spans(layer, form, tiles, chunk)
                own_spectra = again * spectra_bytes / workers
                far = own_spectra + 3 * _maps_bytes(layer, form, tiles) / target.threads  # written is twice read
            elif split == "own_rows":
                workers = tiles / share
                own_spectra = chunks * spectra_bytes
                # Nothing comes from another core, and half-made transforms are hardly out of L2 before they are read.
                near = _maps_bytes(layer, form, chunk) <= 4 * target.l2_bytes
                far = own_spectra / 2 + 3 * _maps_bytes(layer, form, share) / (4 if near else 1)
            else:
                own_spectra = spectra_bytes / (target.threads if split == "panels" else 1)
                # What does not stay in L2: spectra are read once per chunk, a chunk's tiles once per panel.
                tiles_fit = chunk * tile_bytes <= target.l2_bytes * 3 // 4
                far = own_spectra if own_spectra + chunk * tile_bytes <= target.l2_bytes else own_spectra * chunks
                if not tiles_fit:
                    far += own_spectra / spectra_bytes * layer.out_channels / 32 * chunk * tile_bytes * chunks
                if not tiles_fit and op == "fft":  # each is also written, which is twice as far, and products read
                    maps_bytes = 4.0 * form.products * (2 * layer.in_channels + 3 * layer.out_channels / fold)
                    far += tiles * maps_bytes / target.threads
            cost = (macs / 60e9 + transforms / 2e9) / workers + far / 20e9
            attrs = {**which, "chunk": chunk, "split": split}
            name = f"{label}:{split}:{chunk}"
            yield cost, Candidate(name, op, attrs, exact=False, why=why)
            once = chunks == 1 or split in ("rows", "own_rows")
            half = rounds_well and once and spectra_bytes > UNPACK_FROM_BYTES
            if half and (split != "tiles" or target.threads == 1):
                spared = own_spectra / (4 if split == "own_rows" else 2)  # of what counts as far above
                cost = (macs / 54e9 + transforms / 2e9) / workers + (far - spared) / 20e9
                name = f"{op}_i16:{next(iter(which.values()))}:{split}:{chunk}"
                attrs = {**attrs, "weights": "i16"}
                yield cost, Candidate(name, op, attrs, exact=False, why=why + ", spectra in 16 bits")


def splits(op: str, threads: int) -> tuple[str, ...]:
    """What threads can share out: tiles, panels of filters, or (of FFT tiles) rows of the spectra.

    By "own_rows" each takes tiles of its own through all rows.
    """
    found = ("tiles", "panels") if threads > 1 else ("tiles",)
    return (*found, "rows", "own_rows") if op == "fft" else found


def chunks_of(target: Target, form: TileForm, split: str, in_channels: int, share: int, phases: int = 1) -> list[int]:
    """Tiles to transform at once, whole groups of them.

    Parameters
    ----------
    target : Target
    form : TileForm
    split : str
        One of :func:`splits`.
    in_channels : int
    share : int
        Tiles of one thread, or of all where the split is not theirs.
    phases : int
        Of the stride.
    """
    group = _group(target.isa)
    most = -(-share // group) * group
    if split == "own_rows":
        return sorted({min(most, group), min(most, 2 * group)})
    if split == "rows":
        # Of one row of the spectra, what goes in and what comes out of the product with a panel. About what L2 holds:
        # the half of it that spills was measured to cost less than half-filled register tiles.
        row_bytes = 4 * 2 * form.products // phases // form.points[0] * (in_channels * phases + 2 * target.lanes)
        full = -(-target.l2_bytes // (row_bytes * group)) * group
        return sorted({min(most, full), min(most, max(group, full // 2 // group * group))})
    tile_bytes = 4 * form.products * in_channels
    near = max(2 * group, target.l2_bytes // 2 // tile_bytes // group * group)
    wide = max(9 * group, min(_L3_SHARE_BYTES, 4 * target.l2_bytes) // tile_bytes // group * group)
    return sorted({min(near, most), min(wide, most)})


def _maps_bytes(layer: _Layer, form: TileForm, tiles: int) -> float:
    """Bytes of the half-made transforms of so many tiles, in and out, in the "rows" split."""
    points = form.points[0] * form.points[1] * layer.in_channels * math.prod(layer.stride)
    return 4.0 * tiles * (points + form.points[0] * form.across * layer.out_channels)


_MOST_MAPS_BYTES = 8 << 20
"""What they may have, if a chunk does not need more; as native/runtime/steps/fft_rows.cpp has it."""


def _spans(layer: _Layer, form: TileForm, tiles: int, chunk: int) -> int:
    """Times that all rows are gone through, because the maps of all tiles would be too large."""
    fit = max(1, int(_MOST_MAPS_BYTES // _maps_bytes(layer, form, chunk)))
    return math.ceil(tiles / (fit * chunk))
