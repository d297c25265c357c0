"""The native entropy coders against plain references and an independent library."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcnn.artifact.native import codec

CODERS = ("huffman", "rans")


def entropy_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def as_symbols(values: object, alphabet: int) -> np.ndarray:
    return np.asarray(values).astype(np.uint8 if alphabet <= 256 else np.uint16)


def encode(coder: str, symbols: np.ndarray, alphabet: int) -> np.ndarray:
    return getattr(codec, f"{coder}_encode")(symbols, alphabet)


def decode(coder: str, data: np.ndarray, count: int, alphabet: int) -> np.ndarray:
    return getattr(codec, f"{coder}_decode")(np.asarray(data, np.uint8), count, alphabet)


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Alphabets and counts either side of every limit: lanes, table widths, element types."""
    alphabet = draw(st.sampled_from([1, 2, 3, 31, 32, 255, 256, 257, 1000, 4095, 4096]))
    count = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 63, 1000, 4096, 4097, 8191, 8192, 8193, 8200, 20000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from(["uniform", "geometric", "one", "two", "rare", "ends"]))
    if shape == "uniform":
        values = rng.integers(0, alphabet, count)
    elif shape == "geometric":
        values = np.minimum(rng.geometric(rng.uniform(0.01, 0.9), count) - 1, alphabet - 1)
    elif shape == "one":
        values = np.full(count, rng.integers(alphabet))
    elif shape == "two":
        values = np.where(rng.random(count) < 0.3, 0, alphabet - 1)
    elif shape == "rare":
        values = np.where(rng.random(count) < 1e-3, rng.integers(0, alphabet, count), alphabet // 2)
    else:
        values = np.where(np.arange(count) == count - 1, alphabet - 1, 0)
    return as_symbols(values, alphabet), alphabet


@settings(max_examples=150, deadline=None)
@given(streams(), st.sampled_from(CODERS))
def test_round_trip(stream: tuple[np.ndarray, int], coder: str) -> None:
    symbols, alphabet = stream
    data = encode(coder, symbols, alphabet)
    decoded = decode(coder, data, symbols.size, alphabet)
    assert decoded.dtype == symbols.dtype
    assert np.array_equal(decoded, symbols)
    if symbols.size:
        expected = getattr(codec, f"{coder}_size")(codec.histogram(symbols, alphabet))
        slack = 0 if coder == "huffman" else 8 + 0.001 * data.size
        assert abs(data.size - expected) <= slack


@settings(max_examples=60, deadline=None)
@given(streams(), st.integers(0, 2**32 - 1), st.sampled_from(CODERS))
def test_damage_is_an_error_or_other_symbols_within_the_alphabet(
    stream: tuple[np.ndarray, int], seed: int, coder: str
) -> None:
    symbols, alphabet = stream
    rng = np.random.default_rng(seed)
    data = encode(coder, symbols, alphabet)
    for _ in range(20):
        broken = data.copy()
        if broken.size:
            broken[rng.integers(broken.size)] ^= 1 << rng.integers(8)
        if rng.random() < 0.3:
            broken = broken[: rng.integers(broken.size + 1)]
        try:
            decoded = decode(coder, broken, symbols.size, alphabet)
        except ValueError:
            continue
        assert decoded.size == symbols.size
        assert decoded.size == 0 or int(decoded.max()) < alphabet


@pytest.mark.parametrize("coder", CODERS)
def test_every_cut_and_every_extra_byte_raises(coder: str) -> None:
    symbols = as_symbols(np.random.default_rng(3).binomial(20, 0.3, 9000), 21)
    data = encode(coder, symbols, 21)
    for size in [*range(200), *range(data.size - 200, data.size)]:
        with pytest.raises(ValueError, match=r"stream|table|code|state"):
            decode(coder, data[:size], symbols.size, 21)
    with pytest.raises(ValueError, match="goes on after its last symbol"):
        decode(coder, np.append(data, np.uint8(0)), symbols.size, 21)


def test_rans_notices_most_flipped_bits() -> None:
    """The last state is a weak checksum (a flip may cancel within a symbol or two); the file adds CRC-32."""
    symbols = as_symbols(np.random.default_rng(4).binomial(20, 0.3, 500), 21)
    data = encode("rans", symbols, 21)
    unnoticed = 0
    for at in range(40, data.size):
        for bit in range(8):
            broken = data.copy()
            broken[at] ^= 1 << bit
            try:
                decode("rans", broken, 500, 21)
            except ValueError:
                continue
            unnoticed += 1
    assert unnoticed < 0.03 * 8 * (data.size - 40)


def huffman_cost(counts: np.ndarray) -> int:
    """Bits of an optimal code, by the textbook algorithm."""
    heap = [int(c) for c in counts if c]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits


@pytest.mark.parametrize("alphabet", [2, 3, 17, 256, 4096])
def test_huffman_is_optimal(alphabet: int) -> None:
    rng = np.random.default_rng(alphabet)
    symbols = as_symbols(np.minimum(rng.geometric(8 / (alphabet + 8), 50_000) - 1, alphabet - 1), alphabet)
    counts = codec.histogram(symbols, alphabet)
    assert counts.dtype == np.uint64
    assert np.array_equal(counts, np.bincount(symbols, minlength=alphabet))
    payload = (huffman_cost(counts) + 7) // 8
    table = codec.huffman_encode(symbols, alphabet).size - payload
    assert 0 < table < 8 + 0.5 * alphabet


def test_huffman_code_lengths_stop_at_15() -> None:
    """Fibonacci counts ask for 24-bit codes; package-merge keeps to 15 and loses little."""
    fibonacci = [1, 1]
    while len(fibonacci) < 25:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    symbols = as_symbols(np.repeat(np.arange(25), fibonacci), 25)
    data = codec.huffman_encode(symbols, 25)
    assert np.array_equal(codec.huffman_decode(data, symbols.size, 25), symbols)
    assert data.size < 1.01 * huffman_cost(np.array(fibonacci)) / 8 + 30


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1 - 1e-6])
def test_rans_reaches_the_entropy(share: float) -> None:
    rng = np.random.default_rng(5)
    symbols = as_symbols(np.where(rng.random(300_000) < share, 0, rng.integers(1, 64, 300_000)), 64)
    data = codec.rans_encode(symbols, 64)
    assert data.size <= 1.002 * entropy_bytes(symbols) + 80
    assert np.array_equal(codec.rans_decode(data, symbols.size, 64), symbols)


def test_sizes_agree_with_constriction() -> None:
    """An independent ANS coder with exact probabilities spends as many bytes, its table not counted."""
    constriction = pytest.importorskip("constriction")
    rng = np.random.default_rng(6)
    symbols = np.minimum(rng.geometric(0.05, 100_000) - 1, 255).astype(np.int32)
    shares = np.bincount(symbols, minlength=256) / symbols.size
    model = constriction.stream.model.Categorical(shares.astype(np.float32), perfect=False)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols, model)
    theirs = coder.get_compressed().nbytes
    ours = codec.rans_encode(symbols.astype(np.uint8), 256).size
    assert abs(ours - theirs) < 0.005 * theirs + 160


@pytest.mark.parametrize("bits", range(17))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_packing(bits: int, count: int) -> None:
    alphabet = 1 << bits
    symbols = as_symbols(np.random.default_rng(bits).integers(0, alphabet, count), alphabet)
    data = codec.pack(symbols, bits)
    assert data.size == (count * bits + 7) // 8
    assert np.array_equal(codec.unpack(data, count, bits, alphabet), symbols)
    reference = (symbols.astype(np.int64)[:, None] >> np.arange(bits)) & 1
    assert np.array_equal(data, np.packbits(reference.reshape(-1).astype(np.uint8), bitorder="little"))


def test_packing_errors() -> None:
    with pytest.raises(ValueError, match="wrong number of bytes"):
        codec.unpack(np.zeros(3, np.uint8), 3, 4, 16)
    with pytest.raises(ValueError, match="outside its alphabet"):
        codec.unpack(np.array([0x0F], np.uint8), 1, 4, 15)
    with pytest.raises(ValueError, match="padding"):
        codec.unpack(np.array([0xF1], np.uint8), 1, 4, 15)
    with pytest.raises(ValueError, match="0 to 16"):
        codec.unpack(np.zeros(3, np.uint8), 1, 17, 15)
    with pytest.raises(ValueError, match="does not fit"):
        codec.pack(np.array([16], np.uint8), 4)


@pytest.mark.parametrize("alphabet", [0, 4097, 65536])
def test_alphabet_limits(alphabet: int) -> None:
    for call in (codec.huffman_decode, codec.rans_decode):
        with pytest.raises(ValueError, match=f"alphabet of {alphabet} "):
            call(np.zeros(9, np.uint8), 3, alphabet)
    with pytest.raises(ValueError, match="outside its alphabet"):
        codec.histogram(np.array([3], np.uint8), 3)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 12])
def test_sparse_gaps_at_every_multiple_of_the_reach(bits: int) -> None:
    """Gaps of exactly 2^k * m, one less and one more: where fillers begin."""
    reach = 1 << bits
    gaps = [max(reach * m + d, 0) for m in range(4) for d in (-1, 0, 1)]
    symbols = np.concatenate([np.r_[np.zeros(g, np.uint8), np.uint8(1 + i)] for i, g in enumerate(gaps)])
    symbols = np.r_[symbols, np.zeros(reach + 3, np.uint8)]
    got, values = codec.sparse_split(symbols, 0, bits)
    assert got.size == len(gaps) + sum(g >> bits for g in gaps)
    assert int(got.max()) < reach
    assert np.count_nonzero(values == 0) == sum(g >> bits for g in gaps)
    assert np.array_equal(codec.sparse_join(got, values, 0, symbols.size, 256), symbols)


def test_sparse_errors() -> None:
    one = np.array([1], np.uint16)
    with pytest.raises(ValueError, match="past the end"):
        codec.sparse_join(np.array([0, 3], np.uint16), np.array([1, 1], np.uint16), 0, 4, 4)
    with pytest.raises(ValueError, match="past the end"):
        codec.sparse_join(one, one, 0, 0, 4)
    with pytest.raises(ValueError, match="differ in number"):
        codec.sparse_join(one, np.array([1, 1], np.uint16), 0, 9, 4)
    with pytest.raises(ValueError, match="gap_bits=13"):
        codec.sparse_split(one, 0, 13)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_distinct(dtype: type) -> None:
    rng = np.random.default_rng(8)
    choices = rng.integers(0, np.iinfo(dtype).max, 200, dtype=dtype, endpoint=True)
    data = rng.choice(choices, 5000)
    found = codec.distinct(data, 4096)
    assert found is not None
    assert np.array_equal(np.sort(found), np.unique(data))
    assert np.array_equal(found[codec.index_of(data, found)], data)
    assert codec.distinct(data, found.size) is not None
    assert codec.distinct(data, found.size - 1) is None
    with pytest.raises(ValueError, match="not among"):
        codec.index_of(data, found[1:])
