"""TensorProto to numpy, every count checked before a byte is used; external data only from the model's own folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from fastcnn.engine.graph.graph import Array
from fastcnn.engine.graph.schema import MAX_NAME, MAX_RANK, MAX_SIZE, show
from fastcnn.engine.onnx_import.errors import Damaged, Unsupported

_RAW: dict[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.FLOAT16: "<f2",
    TensorProto.INT8: "<i1",
    TensorProto.INT16: "<i2",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.UINT8: "<u1",
    TensorProto.UINT16: "<u2",
    TensorProto.UINT32: "<u4",
    TensorProto.UINT64: "<u8",
    TensorProto.BOOL: "|b1",
}
"""Element types the import computes with, and how raw data holds them (ONNX: little endian)."""

_LISTS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Field of typed data; every type not named here stands in int32_data."""

MAX_TENSOR_BYTES = 4 << 30


def dtype_name(code: int) -> str:
    """Name of an ONNX element type, known or not."""
    try:
        return str(TensorProto.DataType.Name(code)).lower()
    except ValueError:
        return f"type {code}"


def numpy_type(code: int) -> np.dtype[Any]:
    """Return the numpy type of an ONNX element type; Unsupported if the import has none."""
    if code not in _RAW:
        raise Unsupported(f"its element type is {dtype_name(code)}")
    return np.dtype(_RAW[code]).newbyteorder("=")


class TensorReader:
    """Decodes the tensors of one file.

    Parameters
    ----------
    folder : Path
        Where external data may lie: this folder and what is below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes_read = 0

    def read(self, tensor: TensorProto) -> Array:
        """Return the tensor's values in native byte order.

        Raises
        ------
        Damaged
            If dimensions and data contradict each other, or external data is out of place.
        Unsupported
            For element types the import does not know (bfloat16, strings, 4-bit numbers ...).
        """
        dims = tuple(int(n) for n in tensor.dims)
        if len(dims) > MAX_RANK or any(not 0 <= n <= MAX_SIZE for n in dims):
            raise Damaged(f"its shape is {show(dims)}: at most {MAX_RANK} axes of 0..{MAX_SIZE} are allowed")
        if tensor.HasField("segment"):
            raise Damaged("it is stored in segments, which ONNX no longer allows")
        dtype = numpy_type(tensor.data_type)
        wanted = math.prod(dims) * dtype.itemsize
        if wanted > MAX_TENSOR_BYTES:
            raise Damaged(f"shape {dims} takes {wanted} bytes; at most {MAX_TENSOR_BYTES} are allowed")
        if tensor.data_location == TensorProto.EXTERNAL:
            data = self._external(tensor, wanted)
        elif tensor.HasField("raw_data"):
            data = bytes(tensor.raw_data)
        else:
            return self._typed(tensor, dims, dtype)
        if len(data) != wanted:
            raise Damaged(f"shape {dims} of {dtype} takes {wanted} bytes, its data has {len(data)}")
        self.bytes_read += wanted
        if dtype == np.bool_:
            return np.asarray(np.frombuffer(data, np.uint8) != 0).reshape(dims)
        stored = np.frombuffer(data, np.dtype(_RAW[tensor.data_type])).reshape(dims)
        result: Array = np.array(stored, dtype=dtype, order="C", copy=True)
        return result

    def _typed(self, tensor: TensorProto, dims: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        values = getattr(tensor, _LISTS.get(tensor.data_type, "int32_data"))
        if len(values) != math.prod(dims):
            raise Damaged(f"shape {dims} needs {math.prod(dims)} numbers, its data has {len(values)}")
        self.bytes_read += len(values) * dtype.itemsize
        if dtype == np.float16:  # ONNX keeps the bits in the low half of an int32
            bits = np.array(values, np.int64)
            return bits.astype(np.uint16).view(np.float16).reshape(dims)
        wide = np.array(values, None if dtype.kind == "f" else np.uint64 if dtype == np.uint64 else np.int64)
        with np.errstate(all="ignore"):
            return wide.astype(dtype).reshape(dims)

    def _external(self, tensor: TensorProto, wanted: int) -> bytes:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        offset = _count(entries.get("offset", "0"), "offset")
        length = _count(entries.get("length", str(wanted)), "length")
        if length != wanted:
            raise Damaged(f"its external data claims {length} bytes, its shape and type take {wanted}")
        path = self._inside(location)
        size = path.stat().st_size
        if offset + length > size:
            raise Damaged(f"it wants bytes {offset}..{offset + length} of {location!r}, which has {size}")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _inside(self, location: str) -> Path:
        parts = location.replace("\\", "/").split("/")
        bad = not location or len(location) > MAX_NAME or not location.isprintable()
        if bad or location.startswith(("/", "\\", "~")) or ".." in parts or ":" in parts[0]:
            raise Damaged(
                f"its external data lies at {show(location)}: only files in the model's own folder are opened"
            )
        folder = self.folder.resolve()
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            raise Damaged(f"its external data {location!r} leads out of the model's folder")
        if not path.is_file():
            raise Damaged(f"its external data {location!r} is not beside the model: copy that file there too")
        return path


def _count(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Damaged(f"the {what} of its external data is {show(text)}, not a number")
    return int(text)
