"""Draw the pictures of docs/concepts/dct.md: ``python tools/dct_pictures.py``.

What they show is computed: cosines are columns of the transform's matrix, energies follow from a signal or a
covariance. ``--check`` changes nothing and exits 1 if a picture differs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))  # tests load this file by its path
from pictures import FOLDER, box, line, picture, text, write_or_check

Array = npt.NDArray[np.float64]

POINTS, CORRELATION = 16, 0.95
"""Of the signals whose energy is drawn."""


def dot(x: float, y: float, radius: float, kind: str) -> str:
    """A circle."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{kind}"/>'


def curve(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Straight lines from point to point; no fill, whatever the class says."""
    corners = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{corners}" class="{kind}" style="fill:none"/>'


def cosines(n: int) -> Array:
    """The matrix C of the page: y = x C."""
    j, k = np.arange(n)[:, None], np.arange(n)
    matrix: Array = np.sqrt(2 / n) * np.cos(np.pi * k * (2 * j + 1) / (2 * n))
    matrix[:, 0] /= math.sqrt(2)
    return matrix


def mirror() -> str:
    """A signal repeated and mirrored, and the cosines that read it."""
    n, cell, left, top, row = 8, 36, 118, 44, 78
    signal = np.linspace(0.2, 1, n) + 0.12 * np.sin(2.1 * np.arange(n))
    end, right = left + cell * n, left + cell * 2 * n
    parts = [text(left, 22, "x"), text(end + 8, 22, "what the transform takes to follow")]
    for number, (name, copy) in enumerate((("repeated", signal), ("mirrored", signal[::-1]))):
        base = top + row * number + 60
        parts += [text(16, base - 22, name), line(left, base, right, base)]
        for j, value in enumerate(np.concatenate((signal, copy))):
            height = round(50 * float(value), 1)
            parts.append(box(left + cell * j + 6, base - height, cell - 12, height, "good" if j < n else "cell"))
    base = top + 60
    for side, j in ((-1, n - 1), (1, n)):
        value = float(np.concatenate((signal, signal))[j])
        x = end + side * (cell / 2 - 6)
        parts.append(line(end, base - 50 * value, x, base - 50 * value, "bad"))
    parts.append(line(end, base - 50 * float(signal[-1]), end, base - 50 * float(signal[0]), "bad"))
    parts.append(text(end + 8, base - 42, "a jump", "small"))
    for k in (1, 2, 3):
        middle, scale = top + row * (k + 1) + 38, 26 / math.sqrt(2 / n)
        parts.append(text(16, middle + 5, f"cosine {k}"))
        parts.append(line(left, middle, right, middle))
        for first, last, kind in ((0, n, "path"), (n, 2 * n, "line")):
            steps = np.linspace(first, last, 4 * n + 1)
            heights = middle - 26 * np.cos(np.pi * k * steps / n)
            parts.append(curve(list(zip(left + cell * steps, heights, strict=True)), kind))
        for j, value in enumerate(cosines(n)[:, k]):
            parts.append(dot(left + cell * (j + 0.5), round(middle - scale * float(value), 2), 4, "dot"))
    bottom = top + row * 5 + 4
    for x, words in ((left, "0"), (end, f"n = {n}"), (right, f"2n = {2 * n}")):
        parts += [line(x, top - 10, x, bottom, "ghost"), text(x, bottom + 18, words, "middle small")]
    parts.append(text(left, bottom + 44, "Dots: what the transform reads, in the middle of every cell."))
    return picture(720, bottom + 60, "What the cosines see: the signal and its mirror image", parts)


def missed(energies: Array) -> list[float]:
    """Share of the energy that is missing with the first 1, 2, ... of the numbers."""
    return [float(share) for share in 1 - np.cumsum(energies)[:-1] / energies.sum()]


def fourier(energies: Array) -> list[float]:
    """The same for the bins of a real signal's Fourier transform, with 1, 3, 5, ... numbers: 0, then pairs k, n - k."""
    n = len(energies)
    pairs = energies[1 : n // 2] + energies[: n // 2 : -1]
    return missed(np.concatenate((energies[:1], pairs, energies[n // 2 : n // 2 + 1])))


def ramp() -> tuple[list[float], list[float]]:
    """Of x[j] = j, missed by cosines and by Fourier."""
    signal = np.arange(float(POINTS))
    return missed((signal @ cosines(POINTS)) ** 2), fourier(np.abs(np.fft.fft(signal)) ** 2)


def autoregressive() -> tuple[list[float], list[float], list[float]]:
    """Of the process with the covariance CORRELATION^|i - j|, missed by cosines, Fourier and its best basis."""
    places, basis = np.arange(POINTS), cosines(POINTS)
    covariance = CORRELATION ** np.abs(np.subtract.outer(places, places))
    waves = np.fft.fft(np.eye(POINTS)) / math.sqrt(POINTS)
    return (
        missed(np.diag(basis.T @ covariance @ basis)),
        fourier(np.diag(waves @ covariance @ waves.conj().T).real),
        missed(np.linalg.eigvalsh(covariance)[::-1]),
    )


def energy() -> str:
    """Energy missed against numbers kept, in two panels."""
    most, step, height, top = 9, 28, 220, 64
    parts = []
    for left, decades, title, found in (
        (76, 5, f"a ramp of {POINTS} values", ramp()),
        (436, 2, f"autoregressive, ρ = {CORRELATION}, n = {POINTS}", autoregressive()),
    ):
        width = step * most
        parts += [text(left, 22, title), text(left, 44, "share of the energy that is missed", "small")]
        for power in range(decades + 1):
            y = top + height * power / decades
            parts.append(line(left, y, left + width, y))
            parts.append(text(left - 8, y + 4, f"{100 * 10**-power:g} %", "end small"))
        cosine, wave, *best = found
        for shares, counts, kind in ((wave, range(1, most + 1, 2), "bad"), (cosine, range(1, most + 1), "path")):
            points = [
                (left + step * (kept - 0.5), round(top - height / decades * math.log10(share), 1))
                for kept, share in zip(counts, shares, strict=False)
            ]
            parts.append(curve(points, kind))
            parts.extend(dot(x, y, 4, "bad" if kind == "bad" else "good") for x, y in points)
        for shares in best:
            for kept in range(1, most + 1):
                y = round(top - height / decades * math.log10(shares[kept - 1]), 1)
                parts.append(dot(left + step * (kept - 0.5), y, 8, "line"))
        for kept in range(1, most + 1, 2):
            parts.append(text(left + step * (kept - 0.5), top + height + 20, kept, "middle small"))
        parts.append(text(left + width / 2, top + height + 40, "numbers kept", "middle small"))
    bottom = top + height + 70
    for x, kind, words in ((76, "bad", "Fourier transform"), (250, "good", "cosine transform")):
        parts += [dot(x, bottom - 5, 4, kind), text(x + 14, bottom, words)]
    parts += [dot(436, bottom - 5, 8, "line"), text(454, bottom, "the best basis there is")]
    return picture(720, bottom + 16, "How much of the energy the first numbers miss", parts)


def reorder() -> str:
    """The mirrored signal, its even positions, and what stands there."""
    n, cell, left, top, high = 8, 36, 118, 56, 30
    places = np.concatenate((np.arange(n), np.arange(n)[::-1]))
    start, below, source = left + cell * n // 2, top + 112, top + 224
    parts = [
        text(left, 22, "position"),
        text(16, top + 20, "mirrored"),
        text(16, below + 20, "v"),
        text(16, source + 20, "x"),
    ]
    for position, j in enumerate(places.tolist()):
        x, even = left + cell * position, position % 2 == 0
        kind = ("good" if position < n else "bad") if even else "cell"
        parts.append(text(x + cell / 2, top - 10, position, "middle small"))
        parts += [box(x, top, cell, high, kind), text(x + cell / 2, top + 20, f"x{j}", "middle code")]
        if even:
            target = start + cell * (position // 2 + 0.5)
            parts.append(line(x + cell / 2, top + high, target, below))
    order = places[::2].tolist()
    for j, value in enumerate(order):
        kind, x = "good" if j < n // 2 else "bad", start + cell * j
        parts += [box(x, below, cell, high, kind), text(x + cell / 2, below + 20, f"x{value}", "middle code")]
        parts.append(line(x + cell / 2, below + high, start + cell * (value + 0.5), source))
    for value in range(n):
        x, kind = start + cell * value, "good" if value % 2 == 0 else "bad"
        parts += [box(x, source, cell, high, kind), text(x + cell / 2, source + 20, f"x{value}", "middle code")]
    bottom = source + high + 28
    parts.append(text(left, bottom, "Blue: even-numbered values, in order. Orange: odd-numbered values, backwards."))
    return picture(720, bottom + 16, "The even positions of the mirrored signal hold each value once", parts)


PICTURES = {
    "dct-mirror.svg": mirror,
    "dct-energy.svg": energy,
    "dct-reorder.svg": reorder,
}


def main() -> int:
    """Write the pictures, or compare them."""
    return write_or_check(PICTURES, FOLDER, Path(__file__).name, __doc__)


if __name__ == "__main__":
    sys.exit(main())
