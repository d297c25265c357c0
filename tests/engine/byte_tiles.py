"""Layers of bytes and of signs on the tile registers of AMX, real or emulated."""

from __future__ import annotations

import pytest

from fastcnn import _native
from fastcnn.engine.plan.slots import Candidate
from fastcnn.engine.run.net import CompiledNet
from tests.engine.nets import ISAS, choose, native

TILE_ISAS = [isa for isa in ISAS if _native.amx(isa)]
on_tiles = pytest.mark.parametrize("isa", TILE_ISAS)
SPLITS = ("tiles", "panels")
TILE_OPS = {"int8_conv": "int8_amx", "sign_conv": "sign_amx"}


def take(net: CompiledNet, split: str) -> int:
    """Run every convolution of bytes or signs on tile registers; returns how many there are."""
    drafts = [draft for draft in native(net).lowered.drafts if draft.op in TILE_OPS]
    for draft in drafts:
        op = TILE_OPS[draft.op]
        choose(net, draft.name, Candidate(f"{op}:{split}", op, {"split": split}))
    names = [native(net).net.kernel(i) for i in range(native(net).net.steps)]
    assert sum("_amx_32x32_" in name for name in names) == len(drafts)
    return len(drafts)
