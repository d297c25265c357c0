"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Test files run side by side; torch's waiting threads would take the cores from each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared data folder: ``FASTCNN_DATA``, else ``../shared/data`` beside the repository.

    Where it is absent the test is skipped with a reason; with ``FASTCNN_REQUIRE_DATA=1`` it fails instead.
    """
    here = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("FASTCNN_DATA", here.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"the shared data folder {folder} is absent (set FASTCNN_DATA)"
        if os.environ.get("FASTCNN_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder
