"""Ways to run a convolution on this host, best guess first.

The guesses are rules of thumb measured on AVX2 and AVX-512 machines; tuning replaces them by measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastcnn import _native
from fastcnn.engine.plan.slots import Candidate


@dataclass(frozen=True, kw_only=True)
class Target:
    """The machine a plan is for."""

    isa: str
    threads: int
    lanes: int
    l2_bytes: int
    weight_bytes: int | None = None
    """Memory that packed weights may take; None: as much as is fastest."""

    @property
    def configs(self) -> list[tuple[int, int]]:
        """(pixels, channel vectors) of the direct kernels; the last is for single pixels."""
        return _configs(self.isa)


@lru_cache
def _configs(isa: str) -> list[tuple[int, int]]:
    return [(int(tile), int(panel)) for tile, panel in _native.direct_configs(isa)]


@lru_cache
def _bf16_pays(isa: str) -> bool:
    return bool(_native.bf16_pays(isa))


@lru_cache
def _amx(isa: str) -> str:
    return str(_native.amx(isa))


def make_target(isa: str, threads: int, *, weight_bytes: int | None = None) -> Target:
    """Describe this host at that instruction set and thread count, with a limit for packed weights."""
    l2 = int(_native.host()["l2_bytes"]) or 512 * 1024
    return Target(isa=isa, threads=threads, lanes=int(_native.lanes(isa)), l2_bytes=l2, weight_bytes=weight_bytes)


def _blocks(channels: int, lanes: int) -> int:
    return -(-channels // lanes)


SUM_TERMS = 512
"""Products added in a row before the sum joins the total: a sum of sums rounds less than one long sum."""
SUM_TERMS_EXACT = 16
"""The same where the tolerance is "exact": such short sums, joined by compensated additions, take about two thirds more
time and leave little but the rounding of the activations."""


def direct_candidates(
    target: Target,
    *,
    batch: int,
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    out_map: tuple[int, int],
    exact: bool,
) -> list[Candidate]:
    """Direct kernels: register tiles, and threads splitting pixels or output channels."""
    pixels = out_map[0] * out_map[1]
    blocks = _blocks(out_channels, target.lanes)
    single = pixels == 1  # images are then the pixels
    count = batch if single else pixels
    wide = target.configs[-1]
    if single and batch <= 4:
        narrow = [c for c in target.configs if c[0] <= batch] if batch > 1 else [wide]
        tiles = sorted({wide, *narrow}, key=lambda c: (-min(c[0], batch), -c[1]))
    else:
        tiles = [c for c in target.configs if c[0] >= 4] or target.configs[:1]
        tiles = sorted(tiles, key=lambda c: (blocks % c[1] != 0, -c[0] * c[1]))[:2]
    weight_bytes = 4 * in_channels * out_channels * kernel[0] * kernel[1]
    per_pixel = 4 * in_channels * stride[0] * stride[1]
    few = pixels * max(batch, 1) < 24 * target.threads
    heavy = weight_bytes > 16 * per_pixel * pixels
    found = []
    for tile, panel in tiles:
        fit = max(4 * tile, int(target.l2_bytes / 4 / per_pixel))
        block = max(tile, min(fit, count) // tile * tile)
        splits = ["pixels", "panels"] if target.threads > 1 and blocks >= 2 * target.threads else ["pixels"]
        if single and batch < target.threads * tile and blocks >= target.threads:
            splits = ["panels"]
        elif (few or heavy) and len(splits) == 2:
            splits.reverse()
        for split in splits:
            attrs: dict[str, Any] = {
                "tile": tile,
                "panel": panel,
                "split": split,
                "pixel_block": block,
                "sum_terms": SUM_TERMS_EXACT if exact else SUM_TERMS,
                "compensated": int(exact),
            }
            found.append(Candidate(f"direct:{tile}x{panel}:{split}", "direct", attrs))
    # One tile with both splits says more than two tiles with one.
    found = sorted(found, key=lambda c: c.attrs["split"] != found[0].attrs["split"])
    if not exact and weight_bytes > UNPACK_FROM_BYTES and pixels * batch <= _UNPACK_MOST_PIXELS:
        best = next((c for c in found if c.attrs["split"] == "panels"), found[0])
        attrs = {**best.attrs, "split": "panels", "weights": "i16"}
        label = f"direct_i16:{best.attrs['tile']}x{best.attrs['panel']}"
        found.insert(0, Candidate(label, "direct", attrs, exact=False, why="weights read in 16 bits"))
    return found


UNPACK_FROM_BYTES = 1 << 20
"""Weights below this stay in cache from one inference to the next: halving their bytes gains nothing."""
_UNPACK_MOST_PIXELS = 64
"""With more pixels the products take longer than reading the weights."""


def bf16_candidates(
    target: Target,
    direct: list[Candidate],
    *,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    out_map: tuple[int, int],
) -> list[Candidate]:
    """Direct kernels with products in bf16, where the machine has them: the tiles and splits of ``direct``."""
    if not _bf16_pays(target.isa) or out_map == (1, 1):
        return []
    per_pixel = 2 * channels * min(kernel[0], stride[0]) * min(kernel[1], stride[1])
    found = []
    for candidate in direct:
        if not candidate.exact:
            continue
        tile = candidate.attrs["tile"]
        # The rounded input of a block stays in L2. Rows in full: a kernel's halo is rounded for every block.
        fit = max(2 * tile, target.l2_bytes // 3 // per_pixel)
        block = fit // out_map[1] * out_map[1] if fit >= out_map[1] else fit // tile * tile
        attrs = {**candidate.attrs, "weights": "bf16", "pixel_block": min(block, out_map[0] * out_map[1])}
        _, tile_name, split = candidate.label.split(":")
        found.append(
            Candidate(f"direct_bf16:{tile_name}:{split}", "direct", attrs, exact=False, why="products in bf16")
        )
    return found


@dataclass(frozen=True, kw_only=True)
class AmxLayer:
    """A convolution as the tile registers of AMX see it (native/runtime/steps/amx.cpp)."""

    batch: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    out_map: tuple[int, int]
    planar: bool

    @property
    def below(self) -> int:
        """Rows that an image has in the copy besides those of its output."""
        return (self.kernel[0] - 1) * self.dilation[0] // self.stride[0]

    @property
    def beside(self) -> int:
        """Pixels that a row has in the copy besides those of its output; of a picture, about."""
        return (self.kernel[1] - 1) * self.dilation[1] // self.stride[1]

    def row_numbers(self, lanes: int) -> int:
        """Numbers of the input in one row of the copy, for all phases of the stride."""
        reach = [(self.kernel[i] - 1) * self.dilation[i] + 1 for i in range(2)]
        phases = min(self.stride[0], reach[0])
        if self.planar:
            return phases * self.in_channels * (self.stride[1] * self.out_map[1] + reach[1])
        pairs = -(-self.in_channels // (2 * lanes))
        return phases * min(self.stride[1], reach[1]) * pairs * 2 * lanes * (self.out_map[1] + self.beside)

    def waste(self, images: int) -> float:
        """Pixels that are multiplied for each one that is kept, in blocks of so many images."""
        height, width = self.out_map
        return (width + self.beside) / width * (1 if images == 1 else (height + self.below) / height)


def amx_candidates(layer: AmxLayer, target: Target, *, relaxed: bool) -> list[Candidate]:
    """Products on the tile registers of AMX, where the machine has them: threads splitting rows or output channels.

    None where few pixels or channels leave most of a tile empty, or most of a block's pixels are none of the map's.
    """
    batch, (height, width) = layer.batch, layer.out_map
    if _amx(target.isa) != "native" or batch * height * width < _AMX_FEWEST_PIXELS or layer.out_channels < target.lanes:
        return []
    if (layer.planar and layer.dilation[1] != 1) or (not layer.planar and layer.in_channels < target.lanes):
        return []
    heavy = layer.out_channels * layer.kernel[0] * layer.kernel[1] > 2 * height * width
    splits = ["pixels"] if batch * height >= target.threads else []
    if target.threads > 1 and layer.out_channels >= 2 * target.lanes * target.threads:
        splits = ["panels", *splits] if heavy else [*splits, "panels"]
    row_numbers = layer.row_numbers(target.lanes)
    found = []
    for products in list(AMX_PARTS)[0 if relaxed else 1 :]:
        row_bytes = 2 * AMX_PARTS[products] * row_numbers
        blocks: list[tuple[str, int, int]] = []
        for share in (2, 6):  # of L2, for the rounded input of a block
            fit = target.l2_bytes // share // row_bytes
            for split in splits:
                rows = min(max(1, fit - layer.below), height)
                own = batch if split == "panels" else max(1, batch // target.threads)
                images = 1 if layer.planar else max(1, min(own, fit // (height + layer.below)))
                numbers = images * (rows + layer.below) * row_bytes // 2
                block = (split, rows, images)
                if layer.waste(images) <= _AMX_MOST_WASTE and numbers < _AMX_MOST_NUMBERS and block not in blocks:
                    blocks.append(block)
        for split, rows, images in blocks:
            attrs = {"split": split, "rows": rows, "images": images, "products": products}
            label = f"amx_{products}:{split}:{rows}x{images}"
            found.append(Candidate(label, "amx", attrs, exact=False, why=f"AMX, {_AMX_WHY[products]}"))
    return found


AMX_PARTS = {"bf16": 1, "bf16x3": 2, "bf16x6": 3}
"""Parts of a number for each kind of products."""
_AMX_WHY = {
    "bf16": "products in bf16",
    "bf16x3": "three products of bf16 for one of fp32",
    "bf16x6": "six products of bf16 for one of fp32",
}
_AMX_FEWEST_PIXELS = 8
_AMX_MOST_WASTE = 3.0
_AMX_MOST_NUMBERS = (1 << 29) - (1 << 20)
"""In the copy of a block, which native code counts in 32 bits."""


def amx_likely(layer: AmxLayer, target: Target) -> bool:
    """Whether AMX is the best guess where it is possible.

    Its tiles are mostly full, an input number is used often (splitting it takes about the time of its products for 64
    outputs), and a block of rows fits L2 without most of it being the rows between those of the output.
    """
    fit = target.l2_bytes // 2 // (4 * layer.row_numbers(target.lanes))
    if fit < 2 * layer.below + 1 or layer.waste(1) > _AMX_LIKELY_WASTE:
        return False
    if layer.planar:
        return layer.in_channels * layer.kernel[1] >= target.lanes
    uses = layer.out_channels * layer.kernel[0] * layer.kernel[1]
    return layer.in_channels >= 2 * target.lanes and uses >= 64


_AMX_LIKELY_WASTE = 1.5


def byte_tile_candidates(op: str, target: Target, out_shape: tuple[int, ...], weight_bytes: int) -> list[Candidate]:
    """Products of bytes on the tile registers of AMX, where the machine has them: threads splitting pixels or outputs.

    ``op`` is "int8_amx", or "sign_amx" for layers of signs, whose bits are made bytes. None where so few pixels leave
    most of a tile empty that reading the weights takes all the time.
    """
    batch, channels, height, width = out_shape
    pixels = batch * height * width
    if _amx(target.isa) != "native" or pixels < _AMX_FEWEST_PIXELS:
        return []
    splits = ["tiles"]
    if target.threads > 1 and channels >= 2 * target.lanes * target.threads:
        heavy = pixels < _BYTE_TILE_PIXELS * target.threads or weight_bytes > target.l2_bytes // 4
        splits = ["panels", "tiles"] if heavy else ["tiles", "panels"]
    return [Candidate(f"{op}:{split}", op, {"split": split}, why="AMX") for split in splits]


_BYTE_TILE_PIXELS = 32
"""Of two tiles."""
