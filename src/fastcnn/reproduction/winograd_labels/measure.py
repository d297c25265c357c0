"""Logits of a net by direct convolution and by F(4,3), in torch and in the engine, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import fastcnn
from fastcnn import _native
from fastcnn.benchmarking.error import relative_error
from fastcnn.engine.capture import capture
from fastcnn.engine.plan.candidates import make_target
from fastcnn.engine.run.net import CompiledNet
from fastcnn.methods.transforms.winograd_conv import WinogradConfig, WinogradConv2d
from fastcnn.reproduction.winograd_labels.pictures import Pictures

Way = Literal["torch_direct", "torch_winograd", "native_direct", "native_winograd"]
WAYS: tuple[Way, ...] = ("torch_direct", "torch_winograd", "native_direct", "native_winograd")
TILE = 4
"""m of F(m, 3)."""
BATCH = 250
"""Most pictures in a call."""
ERROR_PICTURES = 500
"""Pictures, spread over the set, whose logits are compared with those in float64."""
Logits = npt.NDArray[np.float32]
Step = Callable[[int], None]


def winograd_layers(net: nn.Module) -> list[str]:
    """Names of the convolutions that F(m,3) serves: 3x3, stride 1, one group, no dilation."""
    return [
        name
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
    ]


def by_winograd(net: nn.Module) -> nn.Module:
    """A copy of the net with ``WinogradConv2d(m=4)`` in every layer that F(4,3) serves.

    Raises
    ------
    RuntimeError
        If one of them would be convolved in another way.
    """
    names = winograd_layers(net)
    converted = fastcnn.convert(net, WinogradConfig(m=TILE, force=True), layers=names)
    for name in names:
        layer = converted.get_submodule(name)
        if not (isinstance(layer, WinogradConv2d) and layer.m == TILE and layer.chosen == "forced"):
            raise RuntimeError(f"layer {name} is not convolved by F({TILE},3): {fastcnn.report(converted)}")
    return converted


def by_engine(net: nn.Module, pictures: Tensor, *, winograd: bool) -> tuple[CompiledNet, list[str]]:
    """Compile the net for a batch of pictures, and name the layers in native F(4,3).

    The engine's Winograd kernels read and write whole vectors of channels: a layer with fewer is convolved directly,
    as the first is, which reads the picture itself.

    Parameters
    ----------
    winograd : bool
        F(4,3) in every layer it serves; else direct convolution in all.

    Raises
    ------
    RuntimeError
        If the engine runs a layer with another kernel.
    """
    graph = capture(net, (pictures,))
    target = make_target(str(_native.host()["isa_active"]), torch.get_num_threads())
    shapes = {node.name: graph.weights[node.params["weight"]].shape for node in graph.nodes if node.op == "conv2d"}
    served = {
        node.name
        for node in graph.nodes
        if node.op == "conv2d"
        and node.attrs["stride"] == node.attrs["dilation"] == [1, 1]
        and node.attrs["groups"] == 1
        and shapes[node.name][2:] == (3, 3)
        and min(shapes[node.name][:2]) >= target.lanes
    }
    wanted = served if winograd else set()
    hint = {node.name: f"winograd:{TILE}" if node.name in wanted else "direct" for node in graph.nodes}
    compiled = CompiledNet(graph, target, tolerance=9e-4, exact=False, how="hint", hint=hint, known_error=0.0)
    for step in compiled.plan.steps:
        kernel = f"winograd_f32_f{TILE}x{TILE}k3x3_" if step.layer in wanted else "direct"
        if step.layer in shapes and kernel not in step.kernel:
            raise RuntimeError(f"the engine runs layer {step.source} with {step.kernel}, where {kernel} was asked for")
    sources = {step.layer: step.source for step in compiled.plan.steps}
    return compiled, [sources[name] for name in shapes if name in wanted]


def logits_by(
    way: Way, net: nn.Module, pictures: Pictures, step: Step = lambda count: None
) -> tuple[Logits, list[str]]:
    """Run the net over the pictures; ``step`` is told how many each call did.

    Returns
    -------
    ndarray of float32, shape (N, classes)
    list of str
        The layers in F(4,3).
    """
    count = len(pictures)
    batch = max(size for size in range(1, BATCH + 1) if count % size == 0)  # calls of one shape: one plan
    parts = torch.split(pictures.inputs, batch)
    run: Callable[[Tensor], npt.NDArray[Any]]
    layers: list[str] = []
    if way.startswith("native"):
        compiled, layers = by_engine(net, parts[0].contiguous(), winograd=way == "native_winograd")

        def run(x: Tensor) -> npt.NDArray[Any]:
            return np.asarray(compiled(x.contiguous().numpy()))
    else:
        model = net
        if way == "torch_winograd":
            model, layers = by_winograd(net), winograd_layers(net)

        def run(x: Tensor) -> npt.NDArray[Any]:
            return model(x).numpy()  # type: ignore[no-any-return]

    outputs = []
    with torch.inference_mode():
        for part in parts:
            outputs.append(run(part))
            step(len(part))
    return np.concatenate(outputs), layers


def spread(pictures: Pictures) -> slice:
    """The pictures whose error is measured: about ``ERROR_PICTURES`` of them, evenly spread."""
    return slice(0, None, max(1, len(pictures) // ERROR_PICTURES))


def exact_logits(net: nn.Module, pictures: Pictures, step: Step = lambda count: None) -> npt.NDArray[np.float64]:
    """Logits in float64 of the pictures in ``spread``; the net is float32 again afterwards."""
    net.double()
    try:
        with torch.inference_mode():
            parts = []
            for part in torch.split(pictures.inputs[spread(pictures)], 10):
                parts.append(net(part.double()).numpy())
                step(len(part))
            return np.concatenate(parts)
    finally:
        net.float()


def judge(
    logits: Mapping[Way, Logits], exact: npt.NDArray[np.float64], pictures: Pictures
) -> dict[Way, dict[str, float]]:
    """Compare every way with ``torch_direct``, whose labels and accuracy are the measure.

    Returns
    -------
    dict
        For each way: ``accuracy`` in percent; ``accuracy_change`` in points; ``same_labels`` in percent of the
        pictures; ``other_labels``, the number of the others; ``error``, the worst picture's max|y - y64| / max|y64|.
    """
    truth = pictures.labels.numpy()
    direct = logits["torch_direct"].argmax(1)
    accuracy = 100.0 * float((direct == truth).mean())
    found: dict[Way, dict[str, float]] = {}
    for way, y in logits.items():
        labels = y.argmax(1)
        own = 100.0 * float((labels == truth).mean())
        found[way] = {
            "accuracy": own,
            "accuracy_change": own - accuracy,
            "same_labels": 100.0 * float((labels == direct).mean()),
            "other_labels": int((labels != direct).sum()),
            "error": relative_error(y[spread(pictures)], exact),
        }
    return found
