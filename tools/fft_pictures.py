"""Draw the pictures of docs/concepts/fft.md: ``python tools/fft_pictures.py``.

What they show is computed by the transforms they explain: the order of the inputs, and which outputs wrap-around
spoils. ``--check`` changes nothing and exits 1 if a picture differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fastcnn.methods.transforms.fft import irfft, rfft
from fastcnn.methods.transforms.fft.radix2 import bit_reversal

sys.path.insert(0, str(Path(__file__).parent))  # tests load this file by its path
from pictures import FOLDER, box, line, picture, text, write_or_check

SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def butterflies() -> str:
    """Three passes of radix 2 over eight values."""
    n, passes = 8, 3
    columns, row = [110, 270, 430, 610], 34

    def y(position: int) -> int:
        return 62 + row * position

    parts = [text(columns[0] - 18, 28, "bit-reversed", "end small"), text(columns[-1] + 18, 28, "in order", "small")]
    for position, index in enumerate(bit_reversal(n).tolist()):
        parts.append(text(columns[0] - 18, y(position) + 5, f"x[{index}]", "end code"))
        parts.append(text(columns[-1] + 18, y(position) + 5, f"X[{position}]", "code"))
    for number in range(passes):
        half, left, right = 1 << number, columns[number], columns[number + 1]
        parts.append(text((left + right) / 2, 28, f"pass {number + 1}: blocks of {2 * half}", "middle small"))
        for upper in range(n):
            if upper & half:
                continue
            lower, exponent = upper + half, upper % half * (n // (2 * half))
            kind = "path" if number == passes - 1 and upper == 1 else "line"
            for start in (upper, lower):
                parts.extend(line(left, y(start), right, y(end), kind) for end in (upper, lower))
            parts.append(text(left + 7, y(lower) + 15, f"w{SUPERSCRIPT[exponent]}", "small code"))
            parts.append(text(right - 16, y(lower) + 14, "−", "small code"))
    parts.extend(f'<circle cx="{x}" cy="{y(k)}" r="3" class="dot"/>' for x in columns for k in range(n))
    bottom = y(n - 1) + 42
    parts.append(
        text(columns[0] - 90, bottom, "One butterfly: the lower value is multiplied by w, then both are added")
    )
    parts.append(
        text(columns[0] - 90, bottom + 20, "(upper output) and subtracted (lower output, −). w = exp(−2πi / 8).")
    )
    parts.append(text(columns[0] - 90, bottom + 44, "Blue: X[1] = E[1] + w O[1] and X[5] = E[1] − w O[1]."))
    return picture(720, bottom + 58, "Butterflies of a transform of eight values", parts)


def spoilt_outputs(values: int, taps: int) -> list[bool]:
    """Which outputs of a cyclic correlation as long as its input differ from the linear one."""
    rng = np.random.default_rng(0)
    signal, kernel = rng.standard_normal(values), rng.standard_normal(taps)
    cyclic = irfft(rfft(signal) * rfft(kernel, values).conj(), values)
    linear = np.correlate(np.pad(signal, (0, taps - 1)), kernel, "valid")
    return [bool(wrong) for wrong in np.abs(cyclic - linear) > 1e-9]


def wrap_around() -> str:
    """A kernel of four taps over twelve values, cyclically: three outputs are wrong."""
    values, taps, size, left = 12, 4, 36, 110

    def cells(y: float, first: int, kinds: list[str], labels: list[object]) -> list[str]:
        found = []
        for number, (kind, label) in enumerate(zip(kinds, labels, strict=True)):
            x = left + size * (first + number)
            found += [box(x, y, size, 28, kind), text(x + size / 2, y + 19, label, "middle code")]
        return found

    spoilt = spoilt_outputs(values, taps)
    good, bad = 3, values - taps + 2
    parts = [text(left - 14, 43, "input", "end"), *cells(24, 0, ["cell"] * values, list(range(values)))]
    parts += cells(24, values, ["ghost"] * (taps - 1), list(range(taps - 1)))
    parts.append(text(left + size * (values + (taps - 1) / 2), 14, "the beginning again", "middle small"))
    parts.append(text(left - 14, 91, "kernel at", "end"))
    for at, kind in ((good, "good"), (bad, "bad")):
        parts += cells(72, at, [kind] * taps, [f"g{k}" for k in range(taps)])
        parts.append(line(left + size * (at + 0.5), 100, left + size * (at + 0.5), 120))
    parts.append(text(left - 14, 139, "output", "end"))
    parts += cells(120, 0, ["bad" if wrong else "good" for wrong in spoilt], list(range(values)))
    kept = spoilt.index(True)
    for first, last, words in (
        (0, kept, f"kept: H − k + 1 = {kept}"),
        (kept, values, f"discarded: k − 1 = {taps - 1}"),
    ):
        parts.append(line(left + size * first + 3, 158, left + size * last - 3, 158))
        parts.append(text(left + size * (first + last) / 2, 178, words, "middle"))
    return picture(720, 192, "Wrap-around touches only the outputs that are discarded", parts)


def overlap_save() -> str:
    """Four tiles of 8 x 8 over 14 x 14 values give 12 x 12 outputs."""
    tile, taps, size, left, right, top = 8, 3, 20, 20, 400, 56
    step = tile - taps + 1
    plane, outputs = 2 * step + taps - 1, 2 * step

    def grid(x: float, count: int) -> list[str]:
        edge = size * count
        rows = [line(x, top + size * k, x + edge, top + size * k) for k in range(count + 1)]
        return rows + [line(x + size * k, top, x + size * k, top + edge) for k in range(count + 1)]

    parts = [text(left, 22, f"input: tiles of t × t = {tile} × {tile}"), *grid(left, plane)]
    parts.append(text(left, 44, f"neighbours share k − 1 = {taps - 1} columns, or rows", "small"))
    parts += [text(right, 22, f"output: blocks of m × m = {step} × {step}"), *grid(right, outputs)]
    parts.append(text(right, 44, f"m = t − k + 1, here k = {taps}; neighbours meet", "small"))
    for column, kind in ((0, "good"), (1, "bad")):
        parts.append(box(left + size * step * column, top, size * tile, size * tile, kind))
        parts.append(box(right + size * step * column, top, size * step, size * step, kind))
    for column in (0, 1):
        parts.append(box(left + size * step * column, top + size * step, size * tile, size * tile, "ghost"))
        parts.append(box(right + size * step * column, top + size * step, size * step, size * step, "ghost"))
    return picture(
        720, top + size * plane + 14, "Overlap-save: tiles overlap in the input, blocks of output do not", parts
    )


PICTURES = {
    "fft-butterflies.svg": butterflies,
    "fft-wrap-around.svg": wrap_around,
    "fft-overlap-save.svg": overlap_save,
}


def main() -> int:
    """Write the pictures, or compare them."""
    return write_or_check(PICTURES, FOLDER, Path(__file__).name, __doc__)


if __name__ == "__main__":
    sys.exit(main())
