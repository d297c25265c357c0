"""Run the Python of several pages in one process (torch is imported once): JSON in on stdin, JSON out on stdout.

In: a list of [page, [[line, code], ...]]. Out: page to traceback, empty where all went well. The blocks of a page share
their names; each page has names and a working folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
import warnings

import torch

from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.engine.capture import capture


def given() -> dict[str, object]:
    """What a page may take for granted: a trained model, data, a measure, an example input, a graph and a plan."""
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("features", torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU()))
    model.add_module("flatten", torch.nn.Flatten())
    model.add_module("classifier", torch.nn.Sequential(torch.nn.Linear(8 * 8 * 8, 16), torch.nn.Linear(16, 4)))
    loader = [(torch.rand(8, 3, 8, 8), torch.randint(0, 4, (8,))) for _ in range(4)]
    example = torch.rand(1, 3, 8, 8)

    def evaluate(net: torch.nn.Module) -> float:
        return 100.0 * sum(int((net(x).argmax(1) == y).sum()) for x, y in loader) / 32

    return {
        "model": model.eval(),
        "train_loader": loader,
        "evaluate": evaluate,
        "example": example,
        "graph": capture(model, example),
        "plan": {},
    }


def run(page: str, blocks: list[tuple[int, str]]) -> str:
    """Run the blocks of a page in an empty folder; return the traceback, or nothing."""
    names = {"__name__": "page", **given()}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            for line, text in blocks:
                exec(compile("\n" * (line - 1) + text, page, "exec"), names)
        except BaseException:
            return traceback.format_exc()
    return ""


if __name__ == "__main__":
    warnings.simplefilter("error", NothingDoneWarning)
    warnings.filterwarnings("error", message=".*runs in torch")
    torch.set_num_threads(1)
    out, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115  # what the pages print is not the answer
    json.dump({page: run(page, blocks) for page, blocks in json.load(sys.stdin)}, out)
