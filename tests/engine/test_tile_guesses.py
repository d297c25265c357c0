"""What the planner guesses before anything is timed, and what it times."""

from __future__ import annotations

import pytest

from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.plan.tiles import tile_candidates
from tests.engine.nets import ISAS, Maker, compiled, native

WIDE = [isa for isa in ISAS if isa != "scalar"]


def found(isa: str, kernel: int, channels: int, size: int = 56, batch: int = 1) -> list[Candidate]:
    from fastcnn.engine.plan.candidates import make_target

    target: Target = make_target(isa, 2)
    return tile_candidates(
        target, batch=batch, in_channels=channels, out_channels=channels, kernel=(kernel, kernel),
        out_map=(size, size), relaxed=False,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [64, 128, 256, 512])
@pytest.mark.parametrize("isa", WIDE)
def test_the_first_guess_for_3x3_is_winograd(isa: str, channels: int) -> None:
    """As measured: benchmarks/results/kernels.json, along channels."""
    assert found(isa, 3, channels)[0].op == "winograd"
    assert not any(candidate.attrs.get("split") == "own_rows" for candidate in found(isa, 3, channels))


@pytest.mark.parametrize("kernel", [7, 11, 15, 31])
@pytest.mark.parametrize("isa", WIDE)
def test_the_first_guess_for_large_kernels_is_the_fft(isa: str, kernel: int) -> None:
    assert found(isa, kernel, 64)[0].op == "fft"


@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("isa", WIDE)
def test_spectra_in_16_bits_stand_beside_their_twin(isa: str, kernel: int) -> None:
    """Both of them are few enough to be timed, and several chunks of a thread's own tiles are among them."""
    candidates = found(isa, kernel, 64, batch=8)
    assert len(candidates) <= 28
    plain = [c.attrs for c in candidates if c.op == "fft" and "weights" not in c.attrs]
    halves = [c.attrs for c in candidates if c.op == "fft" and "weights" in c.attrs]
    assert all({k: v for k, v in attrs.items() if k != "weights"} in plain for attrs in halves)
    assert len({(a["tile"], a["chunk"]) for a in plain if a["split"] == "own_rows"}) > len(
        {a["tile"] for a in plain if a["split"] == "own_rows"}
    )


@pytest.mark.parametrize("isa", WIDE)
def test_scratch_of_candidates_that_lost_is_given_back(isa: str) -> None:
    make = Maker(0, (1, 32, 40, 40))
    graph = make.graph(make.conv("x0", 32, 32, 5))
    net = compiled(graph, isa, 1)
    built = native(net)
    before = built.net.scratch_bytes
    (index,) = (i for i, draft in enumerate(built.lowered.drafts) if draft.op in ("direct", "winograd", "fft", "amx"))
    chosen = built.chosen[index]
    large = max(
        (c for c in built.lowered.drafts[index].candidates if c.op == "fft"), key=lambda c: int(c.attrs["chunk"])
    )
    built.replace(index, Candidate(large.label, "fft", {**large.attrs, "tile": 64, "chunk": 28}, exact=False))
    built.net.finish()
    assert built.net.scratch_bytes > before
    built.replace(index, chosen)
    built.net.finish()
    built.net.trim()
    assert built.net.scratch_bytes == before
