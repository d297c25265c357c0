"""Damaged and hostile programs: a status and a message, never a crash."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.capi import library
from tests.capi.cases import CASES, compiled_case, inputs_of
from tests.capi.damage import HEADER, repaired, values_of
from tests.capi.library import Net, Refused
from tests.engine.nets import compiled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    paths = {}
    for name in CASES:
        paths[name] = folder / f"{name}.fcp"
        compiled_case(name, "scalar").export(paths[name])
    return paths


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        Net(data)
    return caught.value


def fuzz(path: Path, count: int, seed: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.capi.fuzz_worker", str(path), str(count), str(seed)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}, capture_output=True,
        text=True, check=False, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_mutations_with_repaired_checksums(case: str, programs: dict[str, Path]) -> None:
    found = fuzz(programs[case], 700, seed=1)
    assert sum(found.values()) == 700
    assert found.get(str(library.BAD_PROGRAM), 0) > 350  # most changes are seen
    assert found.get("ran", 0) > 5  # some change only what is computed, and the layer lets them through
    assert str(library.INTERNAL_ERROR) not in found
    assert str(library.INVALID_ARGUMENT) not in found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_many_mutations(case: str, programs: dict[str, Path]) -> None:
    found = fuzz(programs[case], 20000, seed=2)
    assert str(library.INTERNAL_ERROR) not in found


def test_every_length(programs: dict[str, Path]) -> None:
    data = programs["wave"].read_bytes()
    for size in [*range(200), *range(200, len(data), 97)]:
        error = refusal(repaired(data[:size]))
        assert error.status == library.BAD_PROGRAM
        assert "too short" in str(error) or "cut off" in str(error)
    assert "not one program" in str(refusal(data + b"\0"))


def test_every_bit_of_header_and_records_counts(programs: dict[str, Path]) -> None:
    data = bytearray(programs["wave"].read_bytes())
    (records,) = struct.unpack_from("<Q", data, 24)
    for at in range(HEADER + records):
        data[at] ^= 1 << at % 8
        assert refusal(bytes(data)).status == library.BAD_PROGRAM
        data[at] ^= 1 << at % 8
    Net(bytes(data))


def test_damaged_weights_are_named(programs: dict[str, Path]) -> None:
    data = bytearray(programs["wave"].read_bytes())
    (begin,) = struct.unpack_from("<Q", data, 32)
    data[begin + 5] ^= 4
    assert "checksum of weight 'weight'" in str(refusal(bytes(data)))


def test_another_kind_of_file_and_a_later_version(programs: dict[str, Path]) -> None:
    data = programs["wave"].read_bytes()
    assert "does not begin like a fastcnn program" in str(refusal(b"\x89PNG" + bytes(200)))
    later = repaired(data[:8] + struct.pack("<I", 7) + data[12:])
    assert "format is 7, this library reads 1 to 4: upgrade" in str(refusal(later))


def test_an_instruction_set_the_host_lacks(programs: dict[str, Path]) -> None:
    """Named with a way out; "scalar" becomes a word of the same length that no build knows."""
    data = programs["wave"].read_bytes()
    at = data.index(b"\x06\0scalar")
    unknown = refusal(repaired(data[: at + 2] + b"future" + data[at + 8 :]))
    assert "instruction set 'future', which this library does not know" in str(unknown)


def test_a_cpu_without_avx512_says_so(tmp_path: Path) -> None:
    """A program for a better CPU than this one, made by hand from one for its vector width."""
    from fastcnn import _native

    host = _native.host()
    if host["isa_detected"] == "avx512_amx":
        pytest.skip("this CPU has every instruction set there is")
    if "avx512_emulated" not in host["isa_available"]:
        pytest.skip("the build has no emulated AVX-512")
    compiled(CASES["wave"](), "avx512_emulated").export(tmp_path / "net.fcp")
    data = (tmp_path / "net.fcp").read_bytes()
    (records,) = struct.unpack_from("<Q", data, 24)
    old, new = b"\x0f\0avx512_emulated", b"\x0a\0avx512_amx"
    body = data[HEADER : HEADER + records].replace(old, new, 1)
    gap = -(HEADER + len(body)) % 64
    (weights,) = struct.unpack_from("<Q", data, 40)
    begin = HEADER + len(body) + gap
    header = data[:16] + struct.pack("<QQQQ16x", begin + weights, len(body), begin, weights)
    error = refusal(repaired(header + body + bytes(gap) + data[len(data) - weights :]))
    assert error.status == library.WRONG_HOST
    assert "it is for avx512_amx" in str(error)
    assert f"FASTCNN_ISA={host['isa_detected']}" in str(error)


def test_values_are_named_when_refused(programs: dict[str, Path]) -> None:
    """Single changes of known fields, and the words that meet them."""
    data = programs["unet"].read_bytes()

    def with_number(key: bytes, value: float) -> bytes:
        at = data.index(struct.pack("<H", len(key)) + key + b"\0") + 2 + len(key) + 1
        return repaired(data[:at] + struct.pack("<d", value) + data[at + 8 :])

    def with_list(key: bytes, index: int, value: int) -> bytes:
        at = data.index(struct.pack("<H", len(key)) + key + b"\1") + 2 + len(key) + 1 + 4 + 8 * index
        return repaired(data[:at] + struct.pack("<q", value) + data[at + 8 :])

    for changed, words in (
        (with_number(b"tile", 5), "no such register tile"),
        (with_number(b"tile", float("nan")), "'tile' is .*nan, not a whole number in 1..64"),
        (with_number(b"groups", 2), "groups"),
        (with_number(b"pixel_block", 0), "'pixel_block' is 0.000000, not a whole number"),
        (with_number(b"sum_terms", 1e300), "'sum_terms' is .*, not a whole number"),
        (with_number(b"zero_border", 2), "'zero_border' is 2.0"),
        (with_list(b"padding", 0, 2), "reads past the border"),
        (with_list(b"stride", 1, 3), "reads past the border"),
        (with_list(b"from", 1, 99), "reads outside its input"),
        (with_list(b"to", 2, 99), "writes outside its output"),
        (with_list(b"y1", 3, 500), r"'y1' holds 500, not in 0\.\."),
    ):
        with pytest.raises(Refused, match=words):
            Net(changed)


def test_groups_that_cannot_run_are_refused(programs: dict[str, Path]) -> None:
    """The last records: three groups of first step, last step, rows; and bands with less room than they need."""
    data = programs["inverted"].read_bytes()
    (records,) = struct.unpack_from("<Q", data, 24)
    begin = HEADER + records - 3 * 12
    assert struct.unpack_from("<II", data, 8)[0] == 2
    groups = [struct.unpack_from("<III", data, begin + 12 * k) for k in range(3)]

    def with_groups(*changed: tuple[int, int, int]) -> bytes:
        return repaired(data[:begin] + b"".join(struct.pack("<III", *g) for g in changed) + data[begin + 36 :])

    (a, b, rows), second, third = groups
    steps = third[1] + 2
    for changed, words in (
        (with_groups((a, b, rows + 1), second, third), r"a band has room for \d+ rows and needs"),
        (with_groups((a, b, 0), second, third), "rows of a band out of range"),
        (with_groups((a, b, 1000), second, third), "rows of a band out of range"),
        (with_groups((a, b, (1 << 32) - 1), second, third), "a group has bands of 4294967295 rows"),
        (with_groups((a, a, rows), second, third), "two to eight steps that follow one another"),
        (with_groups((b, a, rows), second, third), "two to eight steps that follow one another"),
        (with_groups((a, steps, rows), second, third), "two to eight steps that follow one another"),
        (with_groups((1 << 31, (1 << 31) + 2, rows), second, third), "two to eight steps that follow one another"),
        (with_groups((a, b + 1, rows), second, third), "only the maps between its steps are bands"),
        (with_groups(second, (a, b, rows), third), "a step outside of groups has a band"),
        (with_groups((a, b, rows), (a, b, rows), third), "overlap"),
    ):
        error = refusal(changed)
        assert error.status == library.BAD_PROGRAM
        assert re.search(words, str(error)), str(error)
    lost = data[: begin - 4] + struct.pack("<I", 0)
    lost += bytes(-len(lost) % 64) + data[struct.unpack_from("<Q", data, 32)[0] :]
    header = struct.pack("<QQQ", len(lost), records - 36, -(-(HEADER + records - 36) // 64) * 64)
    error = refusal(repaired(lost[:16] + header + lost[40:]))
    assert "a step outside of groups has a band" in str(error)
    # Of an earlier version it would have to end before the groups.
    assert "40 bytes follow its last record" in str(refusal(repaired(data[:8] + struct.pack("<I", 1) + data[12:])))


def test_memory_of_bands_is_counted(programs: dict[str, Path]) -> None:
    """A band of a million rows: its memory is refused before it is asked for."""
    data = bytearray(programs["inverted"].read_bytes())
    bands = [at for at, form in values_of(bytes(data)) if form == "q" and is_band(bytes(data), at)]
    assert len(bands) == 2 * 2 * 3  # each written once, read once
    struct.pack_into("<q", data, bands[0], 1 << 10)
    assert "a band is read as it is written" in str(refusal(repaired(data)))
    for at in bands:
        struct.pack_into("<q", data, at, 1 << 20)
    with pytest.raises(Refused) as caught:
        Net(repaired(data), threads=2, memory_limit=64 << 20)
    assert caught.value.status == library.OUT_OF_MEMORY


def is_band(data: bytes, at: int) -> bool:
    """Whether the i64 there is the last number of a band's tensor before its list of extents."""
    begin = at - struct.calcsize("<BBIq4I4I")
    if begin < HEADER or data[begin] != 3 or data[begin + 1] != 1:
        return False
    index, offset = struct.unpack_from("<Iq", data, begin + 2)
    (rank,) = struct.unpack_from("<I", data, at + 8)
    return index < 2 and offset == 0 and rank == 4


def test_the_untouched_program_still_runs(programs: dict[str, Path]) -> None:
    for name, path in programs.items():
        graph = CASES[name]()
        assert all(np.isfinite(y).all() for y in Net(path.read_bytes()).run(*inputs_of(graph)))
