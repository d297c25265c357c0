"""Load a .fcnn file and run it: numpy in, numpy out, no torch.

Run:  python examples/compress_digits.py digits.fcnn && python examples/run_without_torch.py digits.fcnn
"""

from __future__ import annotations

import sys

import numpy as np

import fastcnn as fc


def main(file: str) -> None:
    try:
        net = fc.load(file)
    except fc.ArtifactError as error:  # a damaged or foreign file; the message names the field
        sys.exit(f"{file}: {error}")
    shape = net.graph.inputs[0].shape
    rng = np.random.default_rng(0)
    for batch in (shape[0], 8):  # another batch size is planned when it first comes
        y = net(rng.random((batch, *shape[1:]), dtype=np.float32))
        print(f"{batch} x {shape[1:]} -> {y.shape}, classes {y.argmax(axis=1).tolist()}")
    print(f"{net.isa}, {net.threads} threads, torch loaded: {'torch' in sys.modules}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "digits.fcnn")
