"""Records of a program, as native/capi/program.h draws them: little-endian, one after the other."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

ALIGN = 64
"""Bytes: where weights begin, so that a loader may map them as they lie in the file."""

_SPACES = {"arena": 0, "input": 1, "output": 2, "band": 3}
_KEYS = {"space", "index", "offset", "dims", "blocked", "border", "nchw", "image", "rows", "element"}


class Records:
    """Grows by one value at a time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def number(self, form: str, *values: float) -> None:
        self._parts.append(struct.pack(f"<{form}", *values))

    def text(self, value: str) -> None:
        data = value.encode()
        if len(data) > 0xFFFF or any(byte < 0x20 or byte == 0x7F for byte in data):
            raise ValueError(f"the name {value[:40]!r} is too long or holds control characters: a program cannot")
        self._parts.append(struct.pack("<H", len(data)) + data)

    def list(self, values: Sequence[int]) -> None:
        self._parts.append(struct.pack(f"<I{len(values)}q", len(values), *values))

    def tensor(self, slot: Mapping[str, Any]) -> None:
        """One of :meth:`fastcnn.engine.plan.slots.Slot.to_native`."""
        if slot.keys() != _KEYS:
            raise ValueError(f"a program cannot hold tensors with {sorted(slot.keys() ^ _KEYS)}")
        layout = {"float": int(slot["blocked"]), "signs": 2, "bytes": 3}[slot["element"]]
        self.number("BBIq", _SPACES[slot["space"]], layout, slot["index"], slot["offset"])
        self.number("4I4Iq", *slot["border"], *slot["nchw"], slot["rows"] or slot["image"])
        self.list(slot["dims"])

    def attribute(self, key: str, value: Any) -> None:
        """The three kinds that native steps take."""
        self.text(key)
        if isinstance(value, str):
            self.number("B", 2)
            self.text(value)
        elif isinstance(value, (list, tuple)):
            self.number("B", 1)
            self.list([int(v) for v in value])
        else:
            self.number("Bd", 0, float(value))

    def data(self) -> bytes:
        return b"".join(self._parts)


class Weights:
    """Arrays of a program, each at a multiple of 64 bytes; equal ones are stored once."""

    def __init__(self) -> None:
        self._arrays: list[tuple[int, Floats]] = []
        self._known: dict[tuple[int, int], list[tuple[int, Floats]]] = {}
        self.bytes = 0

    def add(self, array: Any) -> tuple[tuple[int, ...], int, int]:
        """Return shape, offset in the weights and CRC-32."""
        floats: Floats = np.ascontiguousarray(array, np.float32)
        view = floats.reshape(-1).view(np.uint8)
        crc = zlib.crc32(view.data)
        known = self._known.setdefault((floats.size, crc), [])
        for offset, other in known:
            if np.array_equal(view, other.reshape(-1).view(np.uint8)):
                return floats.shape, offset, crc
        offset = self.bytes
        self.bytes = padded(offset + floats.nbytes)
        self._arrays.append((offset, floats))
        known.append((offset, floats))
        return floats.shape, offset, crc

    def chunks(self) -> Iterable[bytes | memoryview]:
        """What to write, in order; the last array is padded too."""
        for _, array in self._arrays:
            yield array.reshape(-1).view(np.uint8).data
            yield bytes(padded(array.nbytes) - array.nbytes)


def padded(size: int) -> int:
    """The next multiple of 64 bytes."""
    return -(-size // ALIGN) * ALIGN
