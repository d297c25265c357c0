"""One table of tolerances: method and dtype, each with its reason. ``"*"`` holds for methods that are not named."""

from __future__ import annotations

# Largest |layer - dense layer with the rebuilt weight| / largest |output|.
LAYER = {
    # The layer calls torch's own convolution on the rebuilt weight: the sums run in the same order, up to blocking.
    ("*", "float32"): 2e-6,
    ("*", "float64"): 1e-14,
    # Rounding relative to the largest value of a tile or map.
    ("fft", "float32"): 4e-6,
    ("fft", "float64"): 1e-13,
    # Grows with the tile, here t = 8 at most (5 taps).
    ("winograd", "float32"): 4e-5,
    ("winograd", "float64"): 1e-13,
    # Components grow and cancel each other: the rounding is that of the largest one.
    ("cp", "float32"): 1e-5,
    ("cp", "float64"): 1e-13,
}
# Engine against float64, design section 5's error of a net.
ENGINE = {
    # Summation order only.
    ("*", "exact"): 2e-6,
    ("cp", "exact"): 1e-5,  # as above
    # Winograd allowed.
    ("*", "fp32"): 1e-4,
}


def tolerance(table: dict[tuple[str, str], float], method: str, key: str) -> float:
    """Look up a method's own tolerance, else the common one."""
    return table.get((method, key), table["*", key])
