"""What speed to expect from which method on this host, derived from two measured limits."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One row: a method on a typical layer.

    Attributes
    ----------
    method, layer : str
    speedup : float
        Upper limit against the direct fp32 form of the same layer, on this host.
    ms : float
        Lower limit of the layer's time at the measured limits, in milliseconds.
    reason : str
        How the limit follows.
    """

    method: str
    layer: str
    speedup: float
    ms: float
    reason: str


def winograd_saving(output_tile: int, kernel: int = 3) -> Fraction:
    """Multiplications of direct convolution over those of F(m x m, r x r): ``(m r)^2 / (m + r - 1)^2``.

    Lavin and Gray 2016, arXiv:1509.09308, section 4.1.
    """
    return Fraction((output_tile * kernel) ** 2, (output_tile + kernel - 1) ** 2)


def padded_saving(output_tile: int, size: int, kernel: int = 3) -> Fraction:
    """The same for a map of ``size`` x ``size`` outputs, counting the tiles that stick out over its edge."""
    tiles = -(-size // output_tile)
    return Fraction((size * kernel) ** 2, (tiles * (output_tile + kernel - 1)) ** 2)


def expectations(fma_gmacs: float, read_gbps: float) -> list[Expectation]:
    """Derive the table from the host's fp32 rate and read bandwidth.

    Parameters
    ----------
    fma_gmacs : float
        fp32 multiply-adds per second, in 1e9, of all threads together.
    read_gbps : float
        Bytes read from memory per second, in 1e9.

    Raises
    ------
    ValueError
        If a limit is not above 0.
    """
    if not fma_gmacs > 0 or not read_gbps > 0:
        raise ValueError(f"fma_gmacs={fma_gmacs}, read_gbps={read_gbps}: both limits must be above 0")
    rows: list[Expectation] = []
    for size, channels in ((56, 64), (14, 256)):
        direct_ms = size * size * channels * channels * 9 / fma_gmacs / 1e6
        layer = f"3x3 convolution, {channels} to {channels} channels, {size}x{size}"
        rows.append(Expectation(method="direct", layer=layer, speedup=1.0, ms=direct_ms, reason="all multiplications"))
        for tile in (2, 4, 6):
            saving = float(padded_saving(tile, size))
            reason = f"{saving:.2f} times fewer multiplications, edge tiles counted; its transforms come on top"
            rows.append(
                Expectation(
                    method=f"Winograd F({tile},3)", layer=layer, speedup=saving, ms=direct_ms / saving, reason=reason
                )
            )
    rows += _linear(fma_gmacs, read_gbps)
    return rows


def _linear(fma_gmacs: float, read_gbps: float) -> list[Expectation]:
    """A fully connected layer at batch 1 reads each weight once: its bytes decide, until arithmetic does."""
    weights = 25088 * 4096
    layer = "linear 25088 to 4096, batch 1, weights from memory"
    compute_ms = weights / fma_gmacs / 1e6
    rows = []
    first = max(weights * 4 / read_gbps / 1e6, compute_ms)
    for method, bits in (("fp32 weights", 32), ("8-bit codes", 8), ("4-bit codes", 4)):
        memory_ms = weights * bits / 8 / read_gbps / 1e6
        ms = max(memory_ms, compute_ms)
        limit = "memory" if memory_ms >= compute_ms else "arithmetic"
        reason = f"{bits} bits a weight, limited by {limit}"
        if bits < 32:
            reason += "; needs a kernel that computes on the codes"
        rows.append(Expectation(method=method, layer=layer, speedup=first / ms, ms=ms, reason=reason))
    return rows
