"""The outer file: a safetensors container with one metadata entry and two byte tensors.

::

    u64 little-endian     length of the JSON that follows
    JSON                  {"__metadata__": {"fastcnn": STAMP},
                           "header":  {"dtype": "U8", "shape": [n], "data_offsets": [0, n]},
                           "weights": {"dtype": "U8", "shape": [m], "data_offsets": [n, n + m]}}, padded with spaces
    n bytes               the inner header: JSON, deflated (zlib)
    m bytes               coded weights, in the order the inner header lists them

STAMP is itself JSON: ``{"format": 1, "bytes": inflated size, "crc32": checksum of the n bytes}``. Any safetensors
reader opens the file and sees its two tensors. We parse the container ourselves, because the library's reader does
not bound what the JSON may claim before it builds objects from it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastcnn.artifact import fields, strict_json
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.limits import MAX_CONTAINER_HEADER, MAX_HEADER
from fastcnn.artifact.patterns import Array

FORMAT = 1
"""Version this package writes; it reads every version up to it."""
_PREFIX = 8


@dataclass(frozen=True)
class Container:
    """The parts of a file whose container has been checked."""

    format: int
    header: bytes
    weights: Array
    file_bytes: int


def write(path: Path, header: bytes, chunks: Iterable[Array]) -> int:
    """Write a container beside ``path``, then put it in place in one step; return its size in bytes.

    Whatever interrupts the writing (also KeyboardInterrupt), no part of it stays behind and a file that was at
    ``path`` before is untouched.

    Raises
    ------
    ArtifactError
        If the folder or file cannot be written.
    """
    parts = list(chunks)
    packed = zlib.compress(header, 9)
    outer = _outer_header(header, packed, sum(int(part.size) for part in parts))
    aside = path.parent / f".fcnn-{secrets.token_hex(8)}.part"
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            for part in (outer, packed, *parts):
                file.write(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(aside, path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"cannot write {path}: {reason}; choose a folder that exists and can be written") from error
    finally:
        with contextlib.suppress(OSError, ValueError):  # gone already where all went well
            os.unlink(aside)
    return size


def _outer_header(header: bytes, packed: bytes, weight_bytes: int) -> bytes:
    stamp = {"format": FORMAT, "bytes": len(header), "crc32": zlib.crc32(packed)}
    end = len(packed) + weight_bytes
    text = strict_json.dumps(
        {
            "__metadata__": {"fastcnn": strict_json.dumps(stamp, "stamp").decode()},
            "header": {"dtype": "U8", "shape": [len(packed)], "data_offsets": [0, len(packed)]},
            "weights": {"dtype": "U8", "shape": [weight_bytes], "data_offsets": [len(packed), end]},
        },
        "container header",
    )
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read(path: Path) -> Container:
    """Read and check a container; ArtifactError names what is wrong."""
    if not path.is_file():
        raise ArtifactError(f"cannot read {path}: no such file")
    try:
        with open(path, "rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            prefix = file.read(_PREFIX)
            if len(prefix) < _PREFIX:
                raise ArtifactError(f"{path} has {len(prefix)} bytes: too short for a .fcnn file")
            length = struct.unpack("<Q", prefix)[0]
            if not 2 <= length <= min(MAX_CONTAINER_HEADER, file_bytes - _PREFIX):
                raise ArtifactError(
                    f"container header length {length} must be in 2..{min(MAX_CONTAINER_HEADER, file_bytes - _PREFIX)}"
                    f": {path} is cut off or no .fcnn file"
                )
            stamp, header_bytes, weight_bytes = _check_outer(file.read(length))
            held = file_bytes - _PREFIX - length
            if held != header_bytes + weight_bytes:
                raise ArtifactError(f"file holds {held} bytes of data, its header claims {header_bytes + weight_bytes}")
            packed = file.read(header_bytes)
            weights = np.fromfile(file, dtype=np.uint8, count=weight_bytes)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    if len(packed) != header_bytes or weights.size != weight_bytes:
        raise ArtifactError(f"{path} changed while it was read")
    version, header = _check_stamp(stamp, packed)
    return Container(format=version, header=header, weights=weights, file_bytes=file_bytes)


def _check_outer(data: bytes) -> tuple[str, int, int]:
    """Return the stamp and the sizes of both tensors, which must cover the data exactly, in order."""
    outer = strict_json.loads(data.rstrip(b" "), "container header")
    if not isinstance(outer, dict) or "fastcnn" not in _metadata(outer):
        raise ArtifactError("container header has no __metadata__.fastcnn: a safetensors file, but no .fcnn file")
    fields.obj(outer, {"__metadata__", "header", "weights"}, "container header")
    stamp = fields.text(fields.obj(outer["__metadata__"], {"fastcnn"}, "__metadata__")["fastcnn"], 1024, "stamp")
    end = 0
    sizes = []
    for name in ("header", "weights"):
        tensor = fields.obj(outer[name], {"dtype", "shape", "data_offsets"}, name)
        fields.word(tensor["dtype"], ("U8",), f"{name}.dtype")
        shape = fields.array(tensor["shape"], 1, f"{name}.shape")
        offsets = fields.array(tensor["data_offsets"], 2, f"{name}.data_offsets")
        if len(shape) != 1 or len(offsets) != 2:
            raise ArtifactError(f"{name} must have one extent and two offsets")
        size = fields.integer(shape[0], 0, 1 << 62, f"{name}.shape")
        first = fields.integer(offsets[0], 0, 1 << 62, f"{name}.data_offsets")
        last = fields.integer(offsets[1], 0, 1 << 62, f"{name}.data_offsets")
        if first != end or last != first + size:
            raise ArtifactError(f"{name}.data_offsets must be [{end}, {end + size}], got [{first}, {last}]")
        end = last
        sizes.append(size)
    return stamp, sizes[0], sizes[1]


def _metadata(outer: dict[str, object]) -> dict[str, object]:
    metadata = outer.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _check_stamp(text: str, packed: bytes) -> tuple[int, bytes]:
    """Return the format version and the inflated inner header."""
    stamp = strict_json.loads(text.encode(), "stamp")
    if not isinstance(stamp, dict) or "format" not in stamp:
        raise ArtifactError("stamp names no format version")
    version = fields.integer(stamp["format"], 1, 1 << 31, "stamp.format")
    if version > FORMAT:
        raise ArtifactError(f"file has format {version}, this fastcnn reads up to {FORMAT}: upgrade fastcnn")
    fields.obj(stamp, {"format", "bytes", "crc32"}, "stamp")
    if fields.integer(stamp["crc32"], 0, 0xFFFFFFFF, "stamp.crc32") != zlib.crc32(packed):
        raise ArtifactError("header checksum (stamp.crc32) does not match: the file is damaged")
    size = fields.integer(stamp["bytes"], 2, MAX_HEADER, "stamp.bytes")
    inflater = zlib.decompressobj()
    try:
        header = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise ArtifactError(f"header does not inflate: {error}") from None
    if len(header) != size or not inflater.eof or inflater.unused_data:
        raise ArtifactError(f"header must inflate to exactly stamp.bytes={size} bytes and end there")
    return version, header
