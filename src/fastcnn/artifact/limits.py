"""What a file may claim before anything is allocated for it."""

from __future__ import annotations

import os

MAX_CONTAINER_HEADER = 1 << 20
"""Bytes of the outer safetensors header; ours has three entries."""
MAX_HEADER = 16 << 20
"""Bytes of the inner header after inflation. A net of 1,000 layers needs about 0.3 MB."""
MAX_DEPTH = 32
"""Nesting of any JSON in the file."""
MAX_WEIGHTS = 100_000
MAX_RANK = 8
MAX_TENSOR_BYTES = 4 << 30
"""Decoded bytes of one weight."""
MAX_KEY = 512
"""Characters in the name of a weight."""

_FLOOR = 64 << 20
_EXPANSION = 4096


def default_decoded_limit(file_bytes: int) -> int:
    """Decoded bytes a file of this size may claim: 4096 times its own, at least 64 MiB, at most the machine's memory.

    The factor leaves room for a net pruned to one weight in a thousand (about 2,800 times smaller than float32) and
    stops a small file from asking for the whole machine.
    """
    return min(max(_FLOOR, _EXPANSION * file_bytes), _physical_memory())


def _physical_memory() -> int:
    try:
        return max(_FLOOR, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not told by this system
        return 1 << 62
