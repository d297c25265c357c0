"""Damaged programs whose checksums fit: what only the checks of fields can catch."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

HEADER = 64
INTERESTING = (0, 1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 255, 1 << 15, 1 << 20, (1 << 30) - 1, 1 << 30, (1 << 31) - 1,
               1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 63) - 1)  # fmt: skip


def repaired(data: bytes | bytearray) -> bytes:
    """The same with the checksum of header and records put right."""
    fixed = bytearray(data)
    if len(fixed) >= HEADER:
        (records,) = struct.unpack_from("<Q", fixed, 24)
        end = min(len(fixed), HEADER + min(records, len(fixed)))
        crc = zlib.crc32(bytes(fixed[HEADER:end]), zlib.crc32(bytes(fixed[16:HEADER])))
        struct.pack_into("<I", fixed, 12, crc)
    return bytes(fixed)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes somewhere in header or records, checksum repaired."""
    changed = bytearray(data)
    (records,) = struct.unpack_from("<Q", data, 24)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(16, HEADER)) if rng.random() < 0.02 else HEADER + int(rng.integers(0, records))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            changed[at] = int(rng.integers(0, 256))
        elif kind == 1:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2 and at + 4 <= HEADER + records:
            (value,) = struct.unpack_from("<I", changed, at)
            struct.pack_into("<I", changed, at, (value + int(rng.integers(-3, 4))) & 0xFFFFFFFF)
        elif kind == 3 and at + 8 <= HEADER + records:
            (value,) = struct.unpack_from("<Q", changed, at)
            struct.pack_into("<Q", changed, at, (value + int(rng.integers(-20, 21))) & 0xFFFFFFFFFFFFFFFF)
        elif kind == 4 and at + 8 <= HEADER + records:
            value = INTERESTING[int(rng.integers(0, len(INTERESTING)))]
            form, most = ("<I", 0xFFFFFFFF) if rng.random() < 0.5 else ("<Q", 0xFFFFFFFFFFFFFFFF)
            struct.pack_into(form, changed, at, min(value, most))
        elif kind == 5 and at + 8 <= HEADER + records:
            numbers = (math.nan, math.inf, -math.inf, -1.0, 0.5, 1e300, float(int(rng.integers(0, 100))))
            struct.pack_into("<d", changed, at, numbers[int(rng.integers(0, len(numbers)))])
    return repaired(changed)


def values_of(data: bytes) -> list[tuple[int, str]]:
    """Offset and form of every number of the records: walks them as the loader does."""
    found: list[tuple[int, str]] = []
    at = HEADER

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", data, at)
        if form != "B":
            found.append((at, form))
        at += struct.calcsize(f"<{form}")
        return int(value) if form != "d" else 0

    def text() -> None:
        nonlocal at
        (length,) = struct.unpack_from("<H", data, at)
        at += 2 + length

    def integers() -> None:
        for _ in range(number("I")):
            number("q")

    def tensor() -> None:
        for form in "BBIq" + "I" * 8 + "q":
            number(form)
        integers()

    text()
    text()
    for form in "IIQdd":
        number(form)
    for _ in range(2):
        for _ in range(number("I")):
            text()
            integers()
    for _ in range(number("I")):
        text()
        for _ in range(number("I") + 1):
            tensor()
        for _ in range(number("I")):
            text()
            kind = number("B")
            number("d") if kind == 0 else integers() if kind == 1 else text()
        for _ in range(number("I")):
            text()
            integers()
            number("Q")
            number("I")
    if struct.unpack_from("<I", data, 8)[0] >= 2:
        for _ in range(number("I")):
            for _ in range(3):
                number("I")
    assert at == HEADER + struct.unpack_from("<Q", data, 24)[0]
    return found


def shifted(data: bytes, at: int, form: str, rng: np.random.Generator) -> bytes:
    """One number of the records changed a little, a lot, or to one that is none."""
    changed = bytearray(data)
    (value,) = struct.unpack_from(f"<{form}", data, at)
    if form == "d":
        choices = [value + 1, value - 1, -value, value * 2, value + 0.5, math.nan, math.inf, -math.inf, 1e300, 0.0]
        struct.pack_into("<d", changed, at, choices[int(rng.integers(0, len(choices)))])
    else:
        size = struct.calcsize(f"<{form}")
        choices = [value + 1, value - 1, value + 16, value * 2, -value, int(rng.choice(INTERESTING)), value + 64]
        wrapped = choices[int(rng.integers(0, len(choices)))] & ((1 << 8 * size) - 1)
        changed[at : at + size] = wrapped.to_bytes(size, "little")
    return repaired(changed)
