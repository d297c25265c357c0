"""One process, one net: ``python -m fastcnn.reproduction.zoo.worker NET RESULT.json MEMORY_GIB``.

A net that eats memory, hangs or crashes takes only its own process along.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from fastcnn.cli.output import plain
from fastcnn.reproduction.zoo.measure import measure
from fastcnn.reproduction.zoo.nets import NETS


def main(arguments: list[str]) -> int:
    """Measure the net and write its record; 1 if it fails, with the reason as the last line on stderr."""
    name, result, memory_gib = arguments
    limit = int(float(memory_gib) * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(1)
    try:
        record = measure(NETS[name])
    except Exception as error:  # any failure of a third party's net is an answer
        text = " ".join(str(error).split())[:500]
        print(f"error: {type(error).__name__}: {text}", file=sys.stderr)
        return 1
    record["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    Path(result).write_text(json.dumps(plain(record)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
