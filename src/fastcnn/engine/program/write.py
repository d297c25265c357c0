"""``write_program``: a plan becomes one file for the C library.

The file holds what the native ``add_step`` was told, one record per step, and the float32 weights it was given. It is
for one set of input shapes and one instruction set; the .fcnn file stays the portable one. ``native/capi/program.h``
draws the layout, ``native/capi`` checks every field of it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcnn import __version__, _native
from fastcnn.artifact.errors import ArtifactError
from fastcnn.engine.graph.graph import Graph
from fastcnn.engine.plan.build import step_arguments
from fastcnn.engine.program import library
from fastcnn.engine.program.records import Records, Weights, padded

if TYPE_CHECKING:
    from fastcnn.engine.plan.make import Planned

logger = logging.getLogger("fastcnn")

MAGIC = b"FASTCNNP"
_GROUPS, _SIGNS, _BYTES = 2, 3, 4
"""Versions of the format with groups, maps of signs, and maps of bytes; what has none of them is of version 1. Older
libraries read older versions."""
_HEADER = 64


@dataclass(frozen=True, kw_only=True)
class ProgramReport:
    """What was written.

    ``inputs`` and ``outputs`` map names to shapes. ``error`` is the plan's: the net's error against its own exact
    kernels, None where nothing was reordered or measured.
    """

    path: str
    bytes: int
    isa: str
    threads: int
    steps: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    tolerance: float
    error: float | None

    def __str__(self) -> str:
        shown = [f"{name} {shape}" for name, shape in (*self.inputs.items(), *self.outputs.items())]
        inputs, outputs = shown[: len(self.inputs)], shown[len(self.inputs) :]
        return (
            f"{self.path}: {self.bytes:,} bytes, {self.steps} steps for {self.isa}, {self.threads} "
            f"thread{'s' if self.threads != 1 else ''}; {', '.join(inputs)} -> {', '.join(outputs)}"
        )


def write_program(path: str | Path, graph: Graph, planned: Planned) -> ProgramReport:
    """Write a planned net for the C library; the file appears whole or not at all.

    The C library loads the file once before it is put in place, so that what is exported can be loaded.

    Raises
    ------
    ArtifactError
        If the file cannot be written, or the C library refuses it.
    """
    path = Path(path)
    records, weights = _records(graph, planned)
    begin = padded(_HEADER + len(records))
    rest = struct.pack("<QQQQ16x", begin + weights.bytes, len(records), begin, weights.bytes)
    header = MAGIC + struct.pack("<II", _version(planned), zlib.crc32(records, zlib.crc32(rest))) + rest
    gap = bytes(begin - _HEADER - len(records))
    size = _put_in_place(path, (header, records, gap, *weights.chunks()))
    plan, lowered = planned.plan, planned.built.lowered
    return ProgramReport(
        path=str(path),
        bytes=size,
        isa=plan.isa,
        threads=plan.threads,
        steps=len(lowered.drafts),
        inputs={v.name: shape for v, shape in zip(graph.inputs, plan.shapes, strict=True)},
        outputs=dict(zip(_output_names(graph), map(tuple, lowered.outputs), strict=True)),
        tolerance=plan.tolerance,
        error=plan.error,
    )


def _version(planned: Planned) -> int:
    elements = {storage.element for storage in planned.built.lowered.storages}
    if "bytes" in elements:
        return _BYTES
    if "signs" in elements:
        return _SIGNS
    return _GROUPS if planned.built.groups else 1


def _records(graph: Graph, planned: Planned) -> tuple[bytes, Weights]:
    plan, built = planned.plan, planned.built
    records, weights = Records(), Weights()
    records.text(__version__)
    records.text(plan.isa)
    error = math.nan if plan.error is None else plan.error
    lanes = int(_native.lanes(plan.isa))
    records.number("IIQdd", lanes, plan.threads, built.arena_floats, plan.tolerance, error)
    inputs = [(v.name, shape) for v, shape in zip(graph.inputs, plan.shapes, strict=True)]
    for named in (inputs, list(zip(_output_names(graph), built.lowered.outputs, strict=True))):
        records.number("I", len(named))
        for name, shape in named:
            records.text(name)
            records.list(shape)
    records.number("I", len(built.lowered.drafts))
    for draft, candidate in zip(built.lowered.drafts, built.chosen, strict=True):
        op, _, _, attrs, arrays = step_arguments(draft, candidate)
        records.text(op)
        records.number("I", len(draft.inputs))
        for slot in (*draft.inputs, draft.out):
            records.tensor(slot.to_native())
        records.number("I", len(attrs))
        for key, value in attrs.items():
            records.attribute(key, value)
        records.number("I", len(arrays))
        for key, array in arrays.items():
            shape, offset, crc = weights.add(array)
            records.text(key)
            records.list(shape)
            records.number("QI", offset, crc)
    if _version(planned) >= _GROUPS:
        records.number("I", len(built.groups))
        for group in built.groups:
            records.number("III", group.first, group.last, group.rows)
    return records.data(), weights


def _output_names(graph: Graph) -> list[str]:
    """Names of the outputs, made unique: a net may return one value twice."""
    names: list[str] = []
    for name in graph.outputs:
        unique, count = name, 1
        while unique in names:
            count += 1
            unique = f"{name}#{count}"
        names.append(unique)
    return names


def _put_in_place(path: Path, parts: Iterable[bytes | memoryview]) -> int:
    """Write beside ``path``, have it loaded, and rename; whatever interrupts that leaves nothing behind."""
    aside = path.parent / f".fcp-{secrets.token_hex(8)}.part"
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        _check(aside, path)
        os.replace(aside, path)
    except ArtifactError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"cannot write {path}: {reason}; choose a folder that exists and can be written") from error
    finally:
        with contextlib.suppress(OSError, ValueError):  # gone already where all went well
            os.unlink(aside)
    return size


def _check(written: Path, path: Path) -> None:
    try:
        reason = library.refusal(written)
    except FileNotFoundError:
        logger.info("%s is not checked: this installation has no C library", path)
        return
    if reason is not None:
        raise ArtifactError(f"cannot export {path}: the C library refuses the program: {reason}")
