"""Arrays through the coder and back: every bit survives, and the form chosen is the small one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.artifact.decode import Bytes, check_layout, decode_array
from fastcnn.artifact.encode import encode_array
from fastcnn.artifact.errors import ArtifactError
from fastcnn.artifact.patterns import DTYPES
from tests.artifact.nets import pruned_and_shared, same_bits


def round_trip(array: np.ndarray) -> tuple[dict[str, Any], int]:
    """Code, decode, compare; return the description and the bytes."""
    code, chunks = encode_array(array)
    data = np.concatenate([np.asarray(c, np.uint8) for c in chunks]) if chunks else np.zeros(0, np.uint8)
    cursor = Bytes(data)
    dtype, shape, nbytes = check_layout(array.dtype.name, list(array.shape), "w")
    assert nbytes == array.nbytes
    decoded = decode_array(code, cursor, dtype, shape, "w")
    assert cursor.left == 0
    assert same_bits(decoded, array)
    assert decoded.flags.writeable
    return code, data.size


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any dtype, any bits: random patterns (NaN payloads too), few values, pruned, constant; any small shape."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 64]), max_size=4)))
    count = int(np.prod(shape))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.integers(0, 256, (count, dtype.itemsize), dtype=np.uint8).view(dtype).reshape(count)
    kind = draw(st.sampled_from(["random", "few", "pruned", "constant", "trained"]))
    if kind == "few" and count:
        raw = raw[rng.integers(0, min(count, 7), count)]
    elif kind == "pruned":
        raw = np.where(rng.random(count) < rng.random(), np.zeros(count, dtype), raw)
    elif kind == "constant" and count:
        raw = np.full(count, raw[0])
    elif kind == "trained":
        raw = np.clip(rng.normal(0, 20, count), 0 if dtype.kind == "u" else -100, 100).astype(dtype)
    return raw.astype(dtype).reshape(shape)


@settings(max_examples=300, deadline=None)
@given(arrays())
def test_every_array_survives(array: np.ndarray) -> None:
    _, size = round_trip(array)
    assert size <= array.nbytes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_special_values(dtype: str) -> None:
    """Signed zeros, infinities, subnormals, NaNs with payloads: told apart by their bits."""
    bits = np.dtype(dtype).itemsize * 8
    unsigned = np.dtype(f"uint{bits}")
    patterns = np.array([0, 1 << (bits - 1), 1, (1 << bits) - 1, (1 << (bits - 1)) - 1, 3], dtype=unsigned)
    special = np.concatenate([patterns.view(dtype), np.array([np.inf, -np.inf, np.nan], dtype)])
    round_trip(special)
    round_trip(np.tile(special, 500))


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("values", [2, 33, 257])
def test_pruned_and_shared(density: float, values: int) -> None:
    weight = pruned_and_shared(np.random.default_rng(1), (200, 300), density, values)
    code, size = round_trip(weight)
    assert code["as"] == "codebook"
    patterns, counts = np.unique(weight.view(np.uint32), return_counts=True)
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    assert size <= 1.01 * entropy + 4.6 * patterns.size + 64


def test_forms() -> None:
    rng = np.random.default_rng(2)
    assert round_trip(np.float32(3.0).reshape(()))[0] == {"as": "raw"}
    assert round_trip(np.zeros((0, 5), np.float32))[0] == {"as": "raw"}
    dense = rng.normal(0, 0.1, (50, 60)).astype(np.float32)
    code, size = round_trip(dense)
    assert (code["as"], code["order"]) == ("planes", "exponent")
    assert 0.7 * dense.nbytes < size < 0.9 * dense.nbytes
    codes = np.where(rng.random(5000) < 0.95, 0, rng.integers(1, 17, 5000)).astype(np.uint8)
    code, _ = round_trip(codes)
    assert code["as"] == "symbols"
    assert code["symbols"]["as"] in ("sparse", "rans")
    book = np.sort(rng.normal(0, 1, 256)).astype(np.float32)
    book[0] = 0.0
    code, size = round_trip(book)
    assert (code["as"], code["order"]) == ("planes", "delta")
    assert size < 0.75 * book.nbytes
    wide = rng.integers(0, 60000, 300).astype(np.uint16)
    code, _ = round_trip(wide)
    assert code["as"] in ("raw", "planes", "symbols")
    assert round_trip(np.full((100, 100), -0.0, np.float32))[1] == 4


def test_strided_and_byte_swapped_arrays() -> None:
    base = np.random.default_rng(3).normal(size=(40, 30)).astype(np.float32)
    round_trip(base.T)
    round_trip(base[::2, ::-3])
    swapped = base.astype(">f4")
    code, chunks = encode_array(swapped)
    decoded = decode_array(code, Bytes(np.concatenate(chunks)), np.dtype("float32"), swapped.shape, "w")
    assert np.array_equal(decoded, base)


@pytest.mark.parametrize("dtype", ["complex64", "bool", "U3", "datetime64[s]", "longdouble"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be stored; allowed are float16"):
        encode_array(np.zeros(3, dtype=dtype))
