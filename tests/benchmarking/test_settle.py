"""Random nets must answer differently to different pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fastcnn._extras import MissingExtraError
from fastcnn.benchmarking import SUITES, suite_models
from fastcnn.benchmarking.benchmark import choose_peers
from fastcnn.benchmarking.export import exact_outputs
from fastcnn.benchmarking.settle import input_dependence, random_pictures, settle


def _deep(depth: int = 8) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(depth):
        layers += [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.5)]
        channels = 16
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


SHAPE = (1, 3, 32, 32)


def test_settled_activations_have_unit_size() -> None:
    model = settle(_deep(), SHAPE)
    seen: list[torch.Tensor] = []
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _i, out: seen.append(out))
    model(torch.from_numpy(random_pictures(1, (16, *SHAPE[1:]), seed=9)[0]))
    for out in seen:
        assert 0.5 < float(out.detach().std()) < 2


def test_settled_nets_depend_on_their_input() -> None:
    inputs = random_pictures(4, SHAPE, seed=3)
    assert input_dependence(exact_outputs(settle(_deep(), SHAPE), inputs)) > 0.1
    mostly_bias = _deep().eval()
    with torch.no_grad():
        mostly_bias[-1].bias.fill_(100.0)
    assert input_dependence(exact_outputs(mostly_bias, inputs)) < 0.01


def test_settling_is_repeatable_and_keeps_momentum() -> None:
    one, two = (settle(_deep(), SHAPE) for _ in range(2))
    assert not one.training
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert one[1].momentum == 0.1


def test_random_pictures_are_smooth_and_differ() -> None:
    pictures = random_pictures(2, (1, 1, 64, 64), seed=0)
    assert pictures.dtype == np.float32
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.3
    neighbours = np.corrcoef(pictures[0, 0, 0, :, 1:].ravel(), pictures[0, 0, 0, :, :-1].ravel())[0, 1]
    assert neighbours > 0.7
    np.testing.assert_array_equal(pictures, random_pictures(2, (1, 1, 64, 64), seed=0))


@pytest.mark.zoo
def test_the_foundation_suite_has_the_nets_of_the_papers() -> None:
    millions = {"vgg16": 138.36, "resnet18": 11.69, "resnet50": 25.56, "mobilenetv2": 3.50, "alexnet": 62.38}
    assert set(SUITES["foundation"]) == set(millions)
    for name in ("resnet18", "mobilenetv2"):
        ((found, model),) = suite_models("foundation", (1, 3, 224, 224), only=name)
        assert found == name
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions[name], abs=0.01)


def test_unknown_suite_net_and_peer() -> None:
    with pytest.raises(ValueError, match="suite='big'"):
        list(suite_models("big", SHAPE))
    with pytest.raises(ValueError, match="net='lenet'"):
        list(suite_models("foundation", SHAPE, only="lenet"))
    with pytest.raises(ValueError, match="does not go through resnet18"):
        list(suite_models("foundation", SHAPE, only="resnet18"))
    with pytest.raises(ValueError, match=r"against=\['tvm'\]"):
        choose_peers(["torch", "tvm"])


def test_a_missing_peer_is_an_error_only_if_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastcnn.benchmarking.engines import ENGINES

    monkeypatch.setattr(ENGINES["ncnn"], "modules", ("ncnn_is_not_here",))
    peers, skipped = choose_peers(None)
    assert "ncnn" not in peers
    assert 'pip install "fastcnn[bench]"' in skipped["ncnn"]
    with pytest.raises(MissingExtraError, match="ncnn needs ncnn_is_not_here"):
        choose_peers(["torch", "ncnn"])
