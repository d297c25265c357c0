"""Who carries out float32 passes on the CPU: tests run with native code and without it."""

from __future__ import annotations

import pytest

from fastcnn.methods.transforms.convolution.native_passes import NativePasses


@pytest.fixture(params=["native", "torch"])
def served_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test twice; the second time native code declines every call, and torch's ops serve float32 too."""
    who: str = request.param
    if who == "torch":
        monkeypatch.setattr(NativePasses, "of", lambda *_: None)
    return who
