"""Child process of test_hostile: loads damaged programs and runs those that load. A crash is the parent's to see.

``python -m tests.capi.fuzz_worker FILE COUNT SEED`` prints how many were refused, by status, and how many ran.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from tests.capi.damage import mutated, shifted, values_of
from tests.capi.library import Net, Refused

LIMIT = 64 << 20  # bytes: a program that asks for more is refused
MOST_FLOATS = 1 << 22


def attempt(data: bytes) -> str:
    try:
        net = Net(data, threads=1, memory_limit=LIMIT)
    except Refused as refused:
        return str(refused.status)
    if sum(int(np.prod(shape)) for shape in (*net.inputs.values(), *net.outputs.values())) > MOST_FLOATS:
        return "large"
    inputs = [np.ones(shape, np.float32) for shape in net.inputs.values()]
    net.run(*inputs)
    return "ran"


def main() -> None:
    data, count, seed = Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3])
    rng = np.random.default_rng(seed)
    found: dict[str, int] = {}
    numbers = values_of(data)
    for i in range(count):
        if i % 2:
            case = mutated(data, rng)
        else:
            at, form = numbers[int(rng.integers(0, len(numbers)))]
            case = shifted(data, at, form, rng)
        result = attempt(case)
        found[result] = found.get(result, 0) + 1
    print(json.dumps(found))


if __name__ == "__main__":
    main()
