"""Where values live while a plan is made: storages, views of them, and the border their readers need."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from fastcnn.engine.graph.schema import Shape

Nchw = tuple[int, int, int, int]


def as_nchw(dims: Shape) -> Nchw:
    """Batch, channels, rows, columns of a value of rank 2 to 4; other ranks are one long row."""
    if len(dims) == 4:
        return dims[0], dims[1], dims[2], dims[3]
    if len(dims) == 3:
        return dims[0], dims[1], 1, dims[2]
    if len(dims) == 2:
        return dims[0], dims[1], 1, 1
    count = 1
    for extent in dims:
        count *= extent
    return 1, 1, 1, count


Element = Literal["float", "signs", "bytes"]


def words_of(element: Element, channels: int) -> int:
    """Words of a pixel, where they are not floats."""
    if element == "signs":
        return -(-channels // 32)
    return 1 if channels <= 4 else -(-channels // 16) * 4


@dataclass(eq=False)
class Storage:
    """Memory of one map.

    Blocked storages are channel-blocked with a zero border; plain ones are row-major, with a border for planar stems
    only. Those whose ``element`` is "signs" or "bytes" are blocked ones of one block, whose lanes are words of 32 or 4
    channels. A storage with a ``parent`` is a range of its channels (concatenation and slicing without copies);
    ``channel`` is then a multiple of the vector width. In the space "band" there is room for ``rows`` rows of one image
    only, and no border above and below (see :mod:`fastcnn.engine.plan.bands`).
    """

    nchw: Nchw
    blocked: bool
    lanes: int
    space: str = "arena"
    index: int = 0
    parent: Storage | None = None
    channel: int = 0
    rows: int = 0
    element: Element = "float"
    _border: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    first: int | None = None
    last: int = -1
    offset: int = 0

    @property
    def root(self) -> Storage:
        return self if self.parent is None else self.parent.root

    @property
    def border(self) -> list[int]:
        """Top, left, bottom, right; shared by all views of a storage."""
        return self.root._border

    def need_border(self, border: list[int]) -> None:
        """Widen the border to at least this."""
        self.root._border = [max(a, b) for a, b in zip(self.root._border, border, strict=True)]

    def touch(self, step: int) -> None:
        """Extend the lifetime to that step."""
        root = self.root
        root.first = step if root.first is None else root.first
        root.last = max(root.last, step)

    def plane(self) -> int:
        """Floats of one channel block (or plane)."""
        _, _, h, w = self.root.nchw
        top, left, bottom, right = self.border
        return (top + h + bottom) * (left + w + right) * (self.lanes if self.blocked else 1)

    def image(self) -> int:
        """Floats of one image of the root."""
        channels = self.root.nchw[1]
        blocks = 1 if self.element != "float" else -(-channels // self.lanes) if self.blocked else channels
        return self.plane() * blocks

    def row_floats(self) -> int:
        """Floats of one row of all channels."""
        _, channels, _, w = self.root.nchw
        lanes = self.lanes if self.element != "float" else -(-channels // self.lanes) * self.lanes
        return (self.border[1] + w + self.border[3]) * lanes

    def floats(self) -> int:
        return self.root.nchw[0] * self.image()

    def start(self) -> int:
        """Offset of the first float, in the memory the root lives in."""
        if self.parent is None:
            return self.offset
        return self.parent.start() + self.channel // self.lanes * self.plane()


@dataclass(eq=False)
class Slot:
    """A value in a storage: the same memory may stand for ``(N, C, 1, 1)`` and ``(N, C)``."""

    storage: Storage
    dims: Shape
    nchw: Nchw

    def to_native(self) -> dict[str, Any]:
        s = self.storage
        return {
            "space": s.root.space,
            "index": s.root.index,
            "offset": s.start(),
            "dims": list(self.dims),
            "blocked": s.blocked,
            "border": [0, s.border[1], 0, s.border[3]] if s.space == "band" else list(s.border),
            "nchw": list(self.nchw),
            "image": s.image() if s.space != "band" and (s.blocked or any(s.border)) else 0,
            "rows": s.rows,
            "element": s.element,
        }


@dataclass(eq=False)
class Draft:
    """A step before it is final.

    ``candidates`` are alternative (op, attributes) pairs, best guess first; attributes common to all stand in
    ``attrs``. Steps with one candidate have nothing to choose.
    """

    name: str
    source: str
    op: str
    inputs: list[Slot]
    out: Slot
    attrs: dict[str, Any]
    weights: dict[str, Any]
    candidates: list[Candidate]
    macs: int = 0
    zero_border: bool = True
    note: str = ""


LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}(:[a-z0-9_]{1,32}){0,7}")
"""What a candidate may be called, as a file's reader checks it."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a step. ``label`` names it in plans, caches and files; ``exact`` says no algebra is reordered.

    A step that runs in one way only needs no label.

    Raises
    ------
    ValueError
        If the label does not match ``LABEL``: a file that held it could not be read.
    """

    label: str
    op: str
    attrs: dict[str, Any]
    exact: bool = True
    why: str = ""

    def __post_init__(self) -> None:
        if self.label and not LABEL.fullmatch(self.label):
            raise ValueError(f"label {self.label!r} must match {LABEL.pattern}")
