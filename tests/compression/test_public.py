"""``import fastcnn`` is light, and a verb whose library is missing says how to get it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastcnn

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def child(code: str, *blocked: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCK.format(blocked=set(blocked)) + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_import_needs_neither_torch_nor_the_command_line() -> None:
    code = """
import fastcnn
for name in ("torch", "typer", "rich", "yaml", "accelerate", "scipy"):
    assert name not in sys.modules, name
assert "convert" in dir(fastcnn)
"""
    done = child(code, "torch", "typer", "rich", "yaml", "accelerate", "scipy")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["convert", "prepare", "finetune", "report", "list_methods", "KMeansConfig"])
def test_verbs_that_need_torch_name_the_extra(verb: str) -> None:
    code = f"""
import fastcnn
try:
    fastcnn.{verb}
except ImportError as error:
    print(error)
"""
    done = child(code, "torch")
    assert done.returncode == 0, done.stderr
    named = "a method's config" if verb.endswith("Config") else f"fastcnn.{verb}"
    assert f"{named} needs torch, which is not installed" in done.stdout
    assert 'pip install "fastcnn[compress]"' in done.stdout


def test_compile_names_the_extra_of_what_it_was_given() -> None:
    code = """
import fastcnn
for model in (object(), "net.onnx"):
    try:
        fastcnn.compile(model, None)
    except ImportError as error:
        print(error)
"""
    done = child(code, "torch", "onnx")
    assert done.returncode == 0, done.stderr
    model, file = done.stdout.splitlines()
    assert "fastcnn.compile needs torch" in model
    assert 'pip install "fastcnn[compress]"' in model
    assert "an ONNX file needs onnx" in file
    assert 'pip install "fastcnn[onnx]"' in file


@pytest.mark.parametrize("verb", ["load", "compile", "inspect", "doctor", "ArtifactError", "CompiledNet", "benchmark"])
def test_run_time_verbs_work_without_torch(verb: str) -> None:
    done = child(f"import fastcnn\nassert callable(fastcnn.{verb})\nassert 'torch' not in sys.modules", "torch")
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves() -> None:
    for name in fastcnn.__all__:
        assert getattr(fastcnn, name) is not None
    assert set(fastcnn.__all__) <= set(dir(fastcnn))


def test_every_config_is_public_without_being_named() -> None:
    for method in fastcnn.list_methods():
        assert getattr(fastcnn, method.config.__name__) is method.config
        assert method.config.__name__ in dir(fastcnn)
    with pytest.raises(AttributeError, match=r"no attribute 'CleverConfig'.*list_methods\(\) lists them"):
        fastcnn.CleverConfig  # type: ignore[attr-defined]


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'quantise': choose from .*convert"):
        fastcnn.quantise  # type: ignore[attr-defined]


def test_methods_are_listed_with_their_words() -> None:
    names = [method.name for method in fastcnn.list_methods()]
    assert len(set(names)) == len(names)
    assert {"magnitude", "kmeans", "deep-compression"} <= set(names)
    for method in fastcnn.list_methods():
        assert method.summary
        assert method.serves
