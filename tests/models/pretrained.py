"""Published weights from the shared data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from tests.models.cifar_resnet import cifar_resnet20, cifar_resnet32
from tests.models.mobilenet import mobilenet_v2
from tests.models.squeezenet import squeezenet1_0

PRETRAINED: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "cifar10_resnet20": (cifar_resnet20, (3, 32, 32)),
    "cifar10_resnet32": (cifar_resnet32, (3, 32, 32)),
    "imagenet_mobilenet_v2": (mobilenet_v2, (3, 224, 224)),
    "imagenet_squeezenet1_0_dc": (squeezenet1_0, (3, 227, 227)),
}
"""File name to (builder, input shape without the batch)."""


def load_pretrained(name: str, data_dir: Path) -> nn.Module:
    """Build a net and load its published weights, in eval mode.

    Parameters
    ----------
    name : str
        A key of ``PRETRAINED``.
    data_dir : Path
        The shared data folder (fixture ``data_dir``).
    """
    model = PRETRAINED[name][0]()
    state = load_file(data_dir / "nets" / f"{name}.safetensors")
    missing, unexpected = model.load_state_dict(state, strict=False)
    # Files written before torch counted batches lack that one counter.
    assert not unexpected, unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return model.eval()
