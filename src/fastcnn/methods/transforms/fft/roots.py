"""Roots of unity, the constants of every Fourier transform, right to the last bit or two.

Taken from sine and cosine of an angle of at most 45 degrees and reflected into place: the quarter turns 1, -i, -1, i
are exact, and w[n - k] is the conjugate of w[k] bit for bit. A recurrence w[k + 1] = w[k] w[1] would save the sines
and lose digits in proportion to k.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
C128 = npt.NDArray[np.complex128]


@lru_cache(maxsize=32)
def roots_of_unity(n: int) -> C128:
    """Return ``exp(-2 pi i k / n)`` for k = 0 ... n - 1.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    complex128, shape (n,), read-only (it is shared between calls)

    Examples
    --------
    >>> roots_of_unity(4).tolist() == [1, -1j, -1, 1j]
    True
    """
    # 8 k = octant n + rest, in integers: the angle 2 pi k / n is octant * 45 degrees and rest / n of another 45.
    octant, rest = np.divmod(8 * np.arange(n), n)
    odd = octant % 2 == 1
    angle = np.where(odd, n - rest, rest) / n * (np.pi / 4)
    # An odd octant is measured backwards from the quarter turn that ends it, an even one forwards from where it begins.
    diagonal = odd & (rest == 0)  # sine and cosine of 45 degrees may round apart
    cosine, sine = (np.where(diagonal, np.sqrt(0.5), part(angle)) for part in (np.cos, np.sin))
    within: C128 = cosine - 1j * np.where(odd, -sine, sine)
    quarter_turns = np.array([1, -1j, -1, 1j])[(octant + 1) // 2 % 4]
    roots: C128 = within * quarter_turns
    roots.setflags(write=False)
    return roots
