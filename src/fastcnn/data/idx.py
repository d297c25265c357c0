"""Read the IDX files of MNIST and Fashion-MNIST, gzipped or plain; numpy only, every field checked."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_BYTES = 1 << 31


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """Read one IDX file.

    Parameters
    ----------
    path : path
        Gzipped if its first two bytes say so.

    Returns
    -------
    array of the file's shape and type, in native byte order

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, no IDX file, or its length does not fit its header; the message names the field.
    """
    path = Path(path)
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                raw = file.read(_MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if len(raw) > _MAX_BYTES:
        raise ValueError(f"{path} unpacks to more than {_MAX_BYTES} bytes: no data set of this kind is so large")
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise ValueError(f"{path} is no IDX file: it must begin with two zero bytes, got {raw[:2]!r}")
    kind, rank = raw[2], raw[3]
    if kind not in _TYPES:
        raise ValueError(f"{path}: element type 0x{kind:02x} is unknown: IDX has {[hex(k) for k in _TYPES]}")
    if rank == 0 or len(raw) < 4 + 4 * rank:
        raise ValueError(f"{path}: rank {rank} does not fit a file of {len(raw)} bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    dtype = np.dtype(_TYPES[kind])
    expected = 4 + 4 * rank + math.prod(shape) * dtype.itemsize
    if expected != len(raw):
        raise ValueError(f"{path}: shape {shape} of {dtype} needs {expected} bytes, the file has {len(raw)}")
    array = np.frombuffer(raw, dtype=dtype, offset=4 + 4 * rank).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
