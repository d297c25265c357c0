"""Bad input: every wrong word gives one error line, one hint, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fastcnn.cli.errors import BAD_INPUT, GOAL_MISSED, INTERNAL, INTERRUPTED, CliError, GoalMissedError, explain
from fastcnn.cli.main import run_cli
from fastcnn.cli.model import load_weights

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4, classes)
        print("a model may print")

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

def needs(a, b, c=1): return Net()
def broken(): raise RuntimeError("no such luck")
def odd(): return 7
number = 7
instance = Net()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nets.py and weight files of every kind, as the current one."""
    (tmp_path / "demo_nets.py").write_text(NETS)
    (tmp_path / "broken_import.py").write_text("import not_installed_anywhere")
    (tmp_path / "raises.py").write_text("raise ValueError('at import')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    good = {"conv.weight": torch.zeros(4, 1, 3, 3), "conv.bias": torch.zeros(4)}
    good |= {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    save_file(good, tmp_path / "good.safetensors")
    torch.save({"state_dict": good}, tmp_path / "nested.pt")
    wrong = {**good, "fc.weight": torch.zeros(11, 4), "extra": torch.zeros(1)}
    del wrong["conv.bias"]
    save_file(wrong, tmp_path / "wrong.safetensors")
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "w.bin").write_bytes(b"")
    (tmp_path / "folder.fcnn").mkdir()
    (tmp_path / "junk.fcnn").write_bytes(b"junk")
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 8, 8), np.uint8))
    return tmp_path


COMPILE = ["compile", "demo_nets:Net", "--shape", "1,1,8,8"]
BAD = [
    # MODEL
    (["compile", "nothing_like_it:Net"], "there is no module 'nothing_like_it'"),
    (["compile", "demo_nets"], "not of a known form"),
    (["compile", "demo_nets:"], "not of a known form"),
    (["compile", "demo nets:Net"], "not of a known form"),
    (["compile", "demo_nets:Nett"], "has no 'Nett'"),
    (["compile", "demo_nets:needs"], "needs a, b"),
    (["compile", "demo_nets:broken"], "RuntimeError: no such luck"),
    (["compile", "demo_nets:odd"], "gives a int"),
    (["compile", "demo_nets:number"], "is a int, not a callable"),
    (["compile", "broken_import:Net"], "needs 'not_installed_anywhere'"),
    (["compile", "raises:Net"], "fails with ValueError: at import"),
    (["compile", "net.fcnn"], "is already compiled"),
    (["run", "missing.fcnn", "digits"], "does not exist"),
    (["run", "folder.fcnn", "digits"], "is a folder"),
    (["run", "junk.fcnn", "digits"], "junk.fcnn"),
    (["inspect", "demo_nets:Net"], "is not a .fcnn file"),
    (["inspect", "junk.fcnn"], "junk.fcnn"),
    # weights
    ([*COMPILE, "--weights", "none.pt"], "is no file"),
    ([*COMPILE, "--weights", "w.bin"], "has ending '.bin'"),
    ([*COMPILE, "--weights", "junk.safetensors"], "cannot be read as plain tensors"),
    ([*COMPILE, "--weights", "junk.pt"], "cannot be read as plain tensors"),
    ([*COMPILE, "--weights", "pickled.pt"], "cannot be read as plain tensors"),
    ([*COMPILE, "--weights", "list.pt"], "holds no state_dict"),
    (
        [*COMPILE, "--weights", "wrong.safetensors"],
        "missing: conv.bias; not in the model: extra; other shape: fc.weight",
    ),
    (["run", "junk.fcnn", "digits", "--weights", "good.safetensors"], "which holds its weights"),
    # numbers and words
    (["compile", "demo_nets:Net", "--shape", "1,1,8"], None),
    (["compile", "demo_nets:Net", "--shape", "0,1,8,8"], "is no shape"),
    (["compile", "demo_nets:Net", "--shape", "1,-1,8,8"], "is no shape"),
    (["compile", "demo_nets:Net", "--shape", "a"], "is no shape"),
    (["compile", "demo_nets:Net", "--shape", "1000,1000,1000,1000"], "has 1000000000000 values"),
    ([*COMPILE, "--tolerance", "tight"], "--tolerance 'tight'"),
    ([*COMPILE, "--tolerance", "-1"], "--tolerance '-1'"),
    ([*COMPILE, "--tolerance", "nan"], "--tolerance 'nan'"),
    ([*COMPILE, "--threads", "0"], "--threads 0"),
    ([*COMPILE, "--threads", "two"], "'two'"),
    ([*COMPILE, "--unknown"], "--unknown"),
    (["compile"], "MODEL"),
    ([*COMPILE, "--out", "no/such/folder/x.fcnn"], "does not exist"),
    ([*COMPILE, "--out", "x.bin"], "must end in .fcnn"),
    ([*COMPILE, "--out", "folder.fcnn"], "is a folder"),
    # DATA
    (["run", "demo_nets:Net", "cifar100:x"], "names no known kind"),
    (["run", "demo_nets:Net", "npz:none.npz"], "does not exist"),
    (["run", "demo_nets:Net", "digits", "--split", "dev"], "--split 'dev'"),
    (["run", "demo_nets:Net", "digits", "--batch", "0"], "--batch 0"),
    (["run", "demo_nets:Net", "digits", "--limit", "-3"], "--limit -3"),
    (["run", "demo_nets:Net", "digits", "--preprocess", "blur"], "--preprocess 'blur'"),
    (["run", "demo_nets:Net", "npz:d.npz", "--min-accuracy", "50"], "needs labels"),
    # compress
    (["compress", "demo_nets:Net", "--recipe", "none.yaml", "--data", "digits", "-o", "x.fcnn"], "none.yaml"),
    (
        ["compress", "x.fcnn", "--recipe", "deep-compression", "--data", "digits", "-o", "y.fcnn"],
        "without its torch model",
    ),
    (["compress", "demo_nets:Net", "--recipe", "deep-compression", "--data", "npz:d.npz", "-o", "x.fcnn"], "no labels"),
    # bench
    (["bench"], "neither MODEL nor --suite"),
    (["bench", "--suite", "huge"], "--suite 'huge'"),
    (["bench", "--suite", "foundation", "--only", "lenet"], "--only 'lenet'"),
    (["bench", "demo_nets:Net", "--against", "tvm"], "--against names tvm"),
    (["bench", "demo_nets:Net", "--against", ","], "--against is empty"),
    (["bench", "junk.fcnn", "--against", "torch"], "holds no torch model"),
    (["bench", "demo_nets:Net", "--goal", "fast"], "--goal 'fast'"),
    (["bench", "demo_nets:Net", "--goal", "torch=0"], "--goal 'torch=0'"),
    (["bench", "demo_nets:Net", "--against", "torch", "--goal", "mnn=1"], "which --against leaves out"),
    (["bench", "demo_nets:Net", "--goal", "net:torch=1"], "the net 'net', which is not among those to be timed: Net"),
    (["bench", "--suite", "foundation", "--only", "vgg16", "--goal", "alexnet:torch=1"], "to be timed: vgg16"),
    (["bench", "demo_nets:Net", "--shape", "1,8"], "must have four numbers"),
    (["bench", "demo_nets:Net", "--seconds", "nan"], "seconds=nan"),
    (["bench", "--suite", "foundation", "--weights", "good.safetensors"], "exactly one MODEL"),
    # the rest
    (["doctor", "--threads", "0"], "--threads 0"),
    (["demo", "--part", "three"], "--part 'three'"),
    (["demo", "--out", "junk.pt"], "is a file"),
    (["fly"], "fly"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str | None) -> None:
    before = sorted(p.name for p in here.iterdir() if p.name != "__pycache__")
    assert run_cli(arguments) == BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    hints = [line for line in err.splitlines() if line.startswith("hint: ")]
    assert len(errors) == len(hints) == 1, err
    assert words is None or words in errors[0]
    assert "Traceback" not in err
    assert sorted(p.name for p in here.iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize("arguments", [["inspect", "junk.fcnn"], ["fly"], [*COMPILE, "--weights", "wrong.safetensors"]])
def test_errors_as_json(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run_cli([*arguments, "--json"]) == BAD_INPUT
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == BAD_INPUT
    assert error["message"]
    assert error["hint"]


@pytest.mark.parametrize("weights", ["good.safetensors", "nested.pt"])
def test_good_weights_load(here: Path, weights: str) -> None:
    from fastcnn.cli.model import torch_model

    model = torch_model("demo_nets:Net", weights)
    assert not model.training
    assert float(model.conv.weight.detach().abs().sum()) == 0  # type: ignore[union-attr, operator]


def test_an_instance_is_a_model_too(here: Path) -> None:
    from fastcnn.cli.model import torch_model

    assert isinstance(torch_model("demo_nets:instance", None), nn.Module)


def test_every_kind_of_exception_has_its_code() -> None:
    table = {
        BAD_INPUT: [ValueError("v"), TypeError("t"), FileNotFoundError("f"), PermissionError("p"), ImportError("i")],
        GOAL_MISSED: [GoalMissedError("slow")],
        INTERNAL: [RuntimeError("r"), AssertionError("a"), KeyError("k")],
        INTERRUPTED: [KeyboardInterrupt()],
    }
    for code, errors in table.items():
        for error in errors:
            failure = explain(error, "run")
            assert failure.code == code, error
            assert failure.message
            assert "\n" not in failure.message + failure.hint
    assert explain(CliError("m", hint="do this"), "run").hint == "do this"


def test_traceback_on_request(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCNN_TRACEBACK", "1")
    with pytest.raises(CliError, match="there is no module"):
        run_cli(["compile", "nothing_like_it:Net"])


def test_an_unwritable_folder(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    # The tests may run as root, whom permissions do not stop.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert run_cli([*COMPILE, "--out", "x.fcnn"]) == BAD_INPUT
    assert "is not writable" in capsys.readouterr().err


def test_an_interrupt_that_python_wraps_is_one() -> None:
    """Ctrl-C that falls into ``__set_name__``, as in an import: a RuntimeError up to Python 3.11."""

    class Interrupted:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises((RuntimeError, KeyboardInterrupt)) as caught:
        type("Owner", (), {"name": Interrupted()})
    assert explain(caught.value, "run").code == INTERRUPTED
    assert explain(RuntimeError("else"), "run").code == INTERNAL


def test_weights_without_counters_of_batches_load(tmp_path: Path) -> None:
    """As files from before torch counted them, and many published ones, are."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with torch.no_grad():
        net[1].running_mean.fill_(3.0)
    state = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "w.safetensors")
    fresh = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    load_weights(fresh, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in state.items())
    del state["1.running_mean"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CliError, match=r"missing: 1\.running_mean"):
        load_weights(fresh, str(tmp_path / "w.safetensors"))
