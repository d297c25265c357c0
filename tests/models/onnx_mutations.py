"""Damage to ONNX files, from seeds: bytes flipped, cut and moved, and fields set to values nobody would write."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from onnx import ModelProto

_INTS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", "x", "y", "c0", "../x", "/etc/passwd", "a" * 5000, "\x00", "Relu", "Conv", "Loop", "SAME_UPPER", "é")


def mutate(data: bytes, seed: int) -> bytes:
    """Return the file with one to four mutations; the same seed gives the same file."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        data = _fields(data, rng) if rng.random() < 0.6 else _bytes(data, rng)
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return bytes(rng.randrange(256) for _ in range(8))
    out, at = bytearray(data), rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del out[at : at + rng.choice((1, 2, 16, 10**6))]
    elif kind == 3:
        out[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 64))))
    else:
        start = rng.randrange(len(data))
        out[at:at] = out[start : start + rng.randint(1, 40)]
    return bytes(out)


def _fields(data: bytes, rng: random.Random) -> bytes:
    """Change one field somewhere in the message tree; bytes that no longer parse stay as they are."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:
        return _bytes(data, rng)
    message: Any = model
    for _ in range(rng.randint(0, 7)):  # a random walk down the tree
        children = [
            item
            for field, value in message.ListFields()
            if field.type == FieldDescriptor.TYPE_MESSAGE
            for item in (value if _repeated(value) else [value])
        ]
        if not children:
            break
        message = rng.choice(children)
    present = {field.name for field, _ in message.ListFields()}
    fields = [f for f in message.DESCRIPTOR.fields if f.name in present or rng.random() < 0.1]
    if not fields:
        return data
    field = rng.choice(fields)
    try:
        _set(message, field, rng)
        return model.SerializeToString()
    except Exception:  # protobuf refuses the value (a surrogate, a number out of range): no mutation then
        return data


def _repeated(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes)) and not hasattr(value, "DESCRIPTOR")


def _set(message: Any, field: Any, rng: random.Random) -> None:
    value = getattr(message, field.name)
    if _repeated(value):
        if len(value) and rng.random() < 0.4:
            del value[rng.randrange(len(value))]
        elif len(value) and field.type != FieldDescriptor.TYPE_MESSAGE and rng.random() < 0.7:
            value[rng.randrange(len(value))] = _scalar(field, rng)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            value.add().CopyFrom(rng.choice(list(value))) if len(value) else value.add()
        else:
            value.append(_scalar(field, rng))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        message.ClearField(field.name) if rng.random() < 0.7 else value.SetInParent()
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, rng))


def _scalar(field: Any, rng: random.Random) -> Any:
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice(_TEXTS).encode() + bytes(rng.randrange(256) for _ in range(rng.randrange(9)))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    return rng.choice(_INTS)
