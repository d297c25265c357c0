"""convert and prepare: a new model, one line per layer, no silent no-op."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import fastcnn as fc
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.methods.vq.scalar import CodebookConv2d, CodebookLinear
from tests.compression.nets import accuracy, batches, small_cnn


def test_convert_returns_a_new_model_and_leaves_the_old_one() -> None:
    dense = small_cnn()
    dense.norm.eval()
    before = copy.deepcopy(dense.state_dict())
    small = fc.convert(dense, fc.KMeansConfig(clusters=8))
    assert isinstance(small.get_submodule("conv"), CodebookConv2d)
    assert isinstance(small.get_submodule("last"), CodebookLinear)
    assert isinstance(dense.conv, nn.Conv2d)
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert [m.training for m in small.children()] == [m.training for m in dense.children()]
    assert not {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in dense.parameters()}


@pytest.mark.parametrize(
    ("layers", "want"),
    [("conv", ["conv"]), ("*", ["conv", "hidden", "last"]), (["last", "c*"], ["conv", "last"]), ("?idden", ["hidden"])],
)
def test_layers_are_chosen_by_glob(layers: str | list[str], want: list[str]) -> None:
    small = fc.convert(small_cnn(), fc.KMeansConfig(clusters=8), layers=layers)
    assert [line.layer for line in fc.report(small)] == want
    assert [name for name, m in small.named_modules() if isinstance(m, CodebookConv2d | CodebookLinear)] == want


def test_nothing_matched_is_an_error_that_lists_the_layers() -> None:
    with pytest.raises(ValueError, match=r"layers='features\.\*' matches no layer .*The model has: conv, hidden, last"):
        fc.convert(small_cnn(), fc.KMeansConfig(), layers="features.*")
    with pytest.raises(ValueError, match="pattern 'typo' in layers matches nothing"):
        fc.convert(small_cnn(), fc.KMeansConfig(), layers=["conv", "typo"])
    with pytest.raises(ValueError, match="The model has: none of that kind"):
        fc.convert(nn.Sequential(nn.ReLU()), fc.KMeansConfig())


def test_everything_declined_warns_and_returns_an_unchanged_copy() -> None:
    dense = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(dense[0].weight)  # type: ignore[arg-type]
    with pytest.warns(NothingDoneWarning, match="KMeansConfig changed nothing: 0: every weight is zero"):
        same = fc.convert(dense, fc.KMeansConfig())
    assert same is not dense
    assert type(same.get_submodule("0")) is nn.Linear
    assert [line.status for line in fc.report(same)] == ["declined"]
    with pytest.warns(NothingDoneWarning, match="last linear layer"):
        fc.convert(nn.Sequential(nn.Linear(3, 2)), fc.MagnitudeConfig())


def test_one_module_under_two_names_is_converted_once() -> None:
    shared = nn.Linear(5, 5)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    small = fc.convert(model, fc.KMeansConfig(clusters=4))
    assert small.get_submodule("0") is small.get_submodule("2")
    assert len(fc.report(small)) == 1
    trainee = fc.prepare(model, fc.MagnitudeConfig(sparsity=0.4, skip=()))
    assert len(list(trainee.parameters())) == 2
    assert fc.convert(trainee).get_submodule("0") is not shared


def test_what_cannot_be_served_is_declined_with_the_reason() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), Scaled(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight  # type: ignore[assignment]
    parametrize.register_parametrization(model[2], "weight", nn.Identity())
    small = fc.convert(model, fc.KMeansConfig(clusters=3))
    why = {line.layer: (line.status, line.why) for line in fc.report(small)}
    assert why["0"] == ("declined", "its weight is tied with 1: conversion would untie them")
    assert why["2"][0] == "declined"
    assert "remove_parametrizations" in why["2"][1]
    assert "3" not in why
    assert why["4"][0] == "done"
    assert small.get_submodule("0").weight is small.get_submodule("1").weight
    with pytest.raises(ValueError, match="weights of 2 are already parametrized"):
        fc.prepare(model, fc.MagnitudeConfig())


def test_dtype_and_device_are_kept() -> None:
    small = fc.convert(small_cnn().double().eval(), fc.KMeansConfig(clusters=8))
    assert small.get_submodule("conv").codebook.dtype == torch.float64
    assert small(torch.zeros(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_reports_of_several_methods_stand_in_order_and_travel_with_deepcopy() -> None:
    small = fc.convert(small_cnn(), fc.MagnitudeConfig(sparsity=0.6, skip=()))
    small = copy.deepcopy(fc.convert(small, fc.KMeansConfig(clusters=5)))
    report = fc.report(small)
    assert [line.method for line in report.of("hidden")] == ["magnitude", "kmeans"]
    first, second = report.of("hidden")
    assert (first.params_after, first.bytes_after) == (second.params_before, second.bytes_before)
    assert second.bytes_after < second.bytes_before < first.bytes_before
    totals = report.totals()
    assert totals["params_before"] == 6 * 10 + 97 * 24 + 25 * 4
    assert totals["params_after"] == sum(report.of(n)[1].params_after for n in ("conv", "hidden", "last"))
    text = str(report)
    assert text.splitlines()[0].split() == ["layer", "method", "status", "params", "bytes", "W", "error", "why"]
    assert len(text.splitlines()) == 2 + len(report)


def test_report_of_an_untouched_model_says_so() -> None:
    report = fc.report(small_cnn())
    assert [(line.layer, line.status) for line in report] == [
        ("conv", "declined"),
        ("hidden", "declined"),
        ("last", "declined"),
    ]
    assert "no method was applied" in str(report)
    with pytest.raises(TypeError, match="got dict"):
        fc.report({})  # type: ignore[arg-type]


def test_deep_compression_in_one_config() -> None:
    config = fc.DeepCompressionConfig(
        prune=fc.MagnitudeConfig(sparsity=0.7, skip=(), schedule="cubic", end=12, every=4),
        share=fc.KMeansConfig(clusters=8),
    )
    trainee = fc.prepare(small_cnn(), config)
    fc.finetune(trainee, batches(), epochs=8, lr=0.01)
    small = fc.convert(trainee)
    layer = small.get_submodule("hidden")
    assert isinstance(layer, CodebookLinear)
    assert int((layer.codes == 0).sum()) == round(0.7 * 96 * 24)
    assert layer.codebook.numel() == 9
    fc.finetune(small, batches(), epochs=1, lr=1e-3)
    assert accuracy(small.eval()) > 85
    with pytest.raises(ValueError, match="session is finished"):
        fc.convert(trainee)


def test_bad_arguments_are_named() -> None:
    model = small_cnn()
    with pytest.raises(TypeError, match=r"config must be one of .*KMeansConfig.*; got dict"):
        fc.convert(model, {"clusters": 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="config is missing"):
        fc.convert(model)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        fc.convert("resnet", fc.KMeansConfig())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layers must be a glob pattern"):
        fc.convert(model, fc.KMeansConfig(), layers=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="KMeansConfig reads no calibration data, as it is set"):
        fc.convert(model, fc.KMeansConfig(), data=[torch.zeros(1)])
    with pytest.raises(ValueError, match="KMeansConfig needs no session"):
        fc.prepare(model, fc.KMeansConfig())
    with pytest.raises(ValueError, match="already has its config"):
        fc.convert(fc.prepare(model, fc.MagnitudeConfig()), fc.KMeansConfig())
    with torch.no_grad():
        model.hidden.weight[3, 4] = float("inf")  # type: ignore[index,operator]
    with pytest.raises(ValueError, match="1 non-finite"):
        fc.convert(model, fc.KMeansConfig())


def test_no_warning_when_something_was_done() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fc.convert(small_cnn(), fc.MagnitudeConfig(sparsity=0.5))
