"""The C library through ctypes, declared anew from the header: numpy in, numpy out."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import numpy as np

from fastcnn.engine.program import library_path

OK, INVALID_ARGUMENT, CANNOT_READ, BAD_PROGRAM, WRONG_HOST, OUT_OF_MEMORY, INTERNAL_ERROR = range(7)


class Error(ctypes.Structure):
    _fields_ = (("message", ctypes.c_char * 512),)


class Options(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("threads", ctypes.c_int), ("memory_limit", ctypes.c_uint64))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("rank", ctypes.c_size_t),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("count", ctypes.c_size_t),
    )


class Info(ctypes.Structure):
    _fields_ = (
        ("made_by", ctypes.c_char_p),
        ("isa", ctypes.c_char_p),
        ("threads", ctypes.c_int),
        ("steps", ctypes.c_size_t),
        ("tolerance", ctypes.c_double),
        ("error", ctypes.c_double),
        ("weight_bytes", ctypes.c_uint64),
        ("working_bytes", ctypes.c_uint64),
    )


def open_library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library_path()))
    net, error = ctypes.c_void_p, ctypes.POINTER(Error)
    options, out = ctypes.POINTER(Options), ctypes.POINTER(ctypes.c_void_p)
    for name, result, arguments in (
        ("version", ctypes.c_char_p, []),
        ("status_text", ctypes.c_char_p, [ctypes.c_int]),
        ("load", ctypes.c_int, [ctypes.c_char_p, options, out, error]),
        ("load_memory", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, options, out, error]),
        ("input_count", ctypes.c_size_t, [net]),
        ("output_count", ctypes.c_size_t, [net]),
        ("describe_input", ctypes.c_int, [net, ctypes.c_size_t, ctypes.POINTER(Tensor)]),
        ("describe_output", ctypes.c_int, [net, ctypes.c_size_t, ctypes.POINTER(Tensor)]),
        ("describe", ctypes.c_int, [net, ctypes.POINTER(Info)]),
        ("run", ctypes.c_int, [net, ctypes.c_void_p, ctypes.c_void_p, error]),
        ("free", None, [net]),
    ):
        function = getattr(lib, f"fastcnn_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


LIB = open_library()


class Refused(Exception):
    """A status other than OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Net:
    """A loaded program; ``data`` is a path or the bytes of one."""

    def __init__(self, data: Path | bytes, *, threads: int = 0, memory_limit: int = 0) -> None:
        self.handle = ctypes.c_void_p()
        options, error = Options(ctypes.sizeof(Options), threads, memory_limit), Error()
        where = ctypes.byref(options), ctypes.byref(self.handle), ctypes.byref(error)
        if isinstance(data, bytes):
            status = LIB.fastcnn_load_memory(data, len(data), *where)
        else:
            status = LIB.fastcnn_load(str(data).encode(), *where)
        if status != OK:
            assert not self.handle.value
            assert error.message
            raise Refused(status, error.message.decode())
        self.inputs = self._describe("input")
        self.outputs = self._describe("output")

    def _describe(self, kind: str) -> dict[str, tuple[int, ...]]:
        found = {}
        for i in range(getattr(LIB, f"fastcnn_{kind}_count")(self.handle)):
            t = Tensor()
            assert getattr(LIB, f"fastcnn_describe_{kind}")(self.handle, i, ctypes.byref(t)) == OK
            found[t.name.decode()] = tuple(t.dims[d] for d in range(t.rank))
            assert t.count == math.prod(found[t.name.decode()])
        return found

    @property
    def info(self) -> Info:
        info = Info()
        assert LIB.fastcnn_describe(self.handle, ctypes.byref(info)) == OK
        return info

    def run(self, *inputs: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        outputs = [np.full(shape, np.nan, np.float32) for shape in self.outputs.values()]
        arrays = []
        for values in (inputs, outputs):
            pointers = [a.ctypes.data for a in values]
            arrays.append((ctypes.c_void_p * len(pointers))(*pointers))
        error = Error()
        status = LIB.fastcnn_run(self.handle, arrays[0], arrays[1], ctypes.byref(error))
        if status != OK:
            raise Refused(status, error.message.decode())
        return outputs

    def __del__(self) -> None:
        LIB.fastcnn_free(self.handle)
