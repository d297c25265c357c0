"""Structure-aware fuzzing of .fcnn files in two stages: the reader alone, and load with a call of the net.

    python tools/fuzz_artifact.py --cases 100000
    python tools/fuzz_artifact.py --stage load --cases 10000
    python tools/fuzz_artifact.py --cases 5000 --coverage

``reader`` mutates small files that use every form of coding; most mutations repair the lengths, offsets and checksums
around the lie, so that it reaches the check meant for it. Nothing but ArtifactError or success may come out of
``load_graph``, ``parse_hint`` and ``inspect``. ``load`` mutates small nets over every op (``fuzz_nets``): attributes,
wiring, shapes, weights and the plan hint (``fuzz_graph``); ``fuzz_load`` says what is allowed there.

Cases run in child processes with 2 GiB of address space; a case that hangs, kills the process or raises anything else
is a failure, and its number reproduces it (``--only N``). Progress goes to stderr, one JSON document to stdout; the
exit code is 1 on any failure.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import itertools
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ADDRESS_SPACE = 2 << 30
HANG_SECONDS = 10
"""Of processor time, so that a busy machine makes no hang; a case that only waits is ended after twelve times that."""
READER = ("container", "decode", "fields", "header", "hint", "inspection", "limits", "load", "patterns", "strict_json")


@dataclass
class File:
    """A file taken apart: each part can be changed alone, ``build`` repairs everything round it."""

    inner: Any
    chunks: list[bytes]
    stamp: dict[str, Any] = field(default_factory=dict)
    outer: dict[str, Any] = field(default_factory=dict)
    inner_text: bytes | None = None
    packed: bytes | None = None
    repair_entries: bool = True

    @classmethod
    def parse(cls, data: bytes) -> File:
        """Take a well-formed file apart."""
        length = struct.unpack("<Q", data[:8])[0]
        outer = json.loads(data[8 : 8 + length])
        start = 8 + length
        split = start + outer["header"]["data_offsets"][1]
        inner = json.loads(zlib.decompress(data[start:split]))
        chunks = []
        for entry in inner["weights"]:
            chunks.append(data[split : split + entry["bytes"]])
            split += entry["bytes"]
        return cls(inner=inner, chunks=chunks)

    def build(self) -> bytes:
        """Put the file together; ``stamp`` and ``outer`` overrides win over what would be true."""
        if self.repair_entries:
            for entry, chunk in zip(self.inner["weights"], self.chunks, strict=True):
                entry["bytes"], entry["crc32"] = len(chunk), zlib.crc32(chunk)
        text = self.inner_text if self.inner_text is not None else json.dumps(self.inner, ensure_ascii=False).encode()
        packed = self.packed if self.packed is not None else zlib.compress(text, 1)
        weights = b"".join(self.chunks)
        stamp = {"format": 1, "bytes": len(text), "crc32": zlib.crc32(packed), **self.stamp}
        outer = {
            "__metadata__": {"fastcnn": json.dumps(stamp)},
            "header": {"dtype": "U8", "shape": [len(packed)], "data_offsets": [0, len(packed)]},
            "weights": {
                "dtype": "U8",
                "shape": [len(weights)],
                "data_offsets": [len(packed), len(packed) + len(weights)],
            },
            **self.outer,
        }
        head = json.dumps(outer).encode()
        return struct.pack("<Q", len(head)) + head + packed + weights


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: tuple[Any, ...] = (
    *(0, 1, 2, 3, 7, 8, 9, 12, 13, 16, 17, 255, 256, 257, 4096, 4097, 65535, 65536, -1, -(2**31), -(2**63)),
    *(2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e308, -1e-308, True, False, None, "", "x", "raw", "planes", "symbols", "codebook", "packed"),
    *("huffman", "rans", "sparse", "delta", "exponent", "stored", "float16", "float32", "float64", "int8", "int64"),
    *("uint8", "uint16", "uint32", "conv2d", "linear", "torch", "scale_shift", "\x00", "\ud800", "é" * 600, "[" * 50),
    *(
        [],
        {},
        [0],
        [1] * 9,
        [2**62] * 8,
        [0, 2**62],
        {"as": "raw"},
        {"as": "packed", "bits": 8},
        nested(31),
        nested(40),
    ),
)


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for child in value.values():
            found += spots(child)
    elif isinstance(value, list):
        found += [(value, i) for i in range(len(value))]
        for child in value:
            found += spots(child)
    return found


def lie(rng: random.Random, value: Any) -> None:
    """Change one place inside a JSON value."""
    places = spots(value)
    if not places:
        return
    holder, key = rng.choice(places)
    old = holder[key]
    kind = rng.randrange(8)
    if kind < 3:
        holder[key] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 3 and isinstance(old, int) and not isinstance(old, bool):
        holder[key] = rng.choice(
            [
                old + 1,
                old - 1,
                old * 2,
                old // 2,
                -old,
                float(min(old, 2**60)),
                f"{old:x}",
                old ^ (1 << rng.randrange(20)),
            ]
        )
    elif kind == 4:
        del holder[key]
    elif kind == 5 and isinstance(holder, dict):
        holder[rng.choice(["extra", "as", "name", "op", "bytes", "bits", "", "é"])] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 6 and isinstance(holder, dict):
        holder[rng.choice(["x", "as", "weight", "fill", "é" * 9])] = holder.pop(key)
    else:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other[place]) if other is not holder else old


def bruise(rng: random.Random, data: bytes) -> bytes:
    """Flip, overwrite, insert, delete, repeat or cut bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)])
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice([1, 2, 4, 9]))
        elif kind == 3:
            del changed[at : at + rng.choice([1, 2, 4, 9])]
        elif kind == 4:
            changed[at : at + 8] = rng.choice([b"\x00", b"\xff"]) * 8
        elif kind == 5:
            changed[at:at] = changed[:at][-rng.choice([1, 8, 64]) :]
        elif rng.randrange(4) == 0:
            del changed[at:]
    return bytes(changed)


def code_sizes(code: Any) -> list[dict[str, Any]]:
    """Every part of a description that states its own bytes, in file order (``values`` comes after ``gaps``)."""
    return [holder for holder, key in spots([code]) if key == "bytes" and isinstance(holder, dict)]


def mutate(rng: random.Random, seeds: list[bytes], number: int) -> tuple[str, bytes]:
    """Make case ``number``: the name of the mutation and the bytes of the file."""
    seed = rng.choice(seeds)
    kind = number % 13
    if kind == 0:
        start = number // 13
        whole = seeds[start % len(seeds)]
        return "cut", whole[: start // len(seeds) % len(whole)]
    if kind == 1:
        return "flip", bruise(rng, seed)
    if kind == 2:
        length = struct.unpack("<Q", seed[:8])[0]
        lies = (
            0,
            1,
            length - 1,
            length + 1,
            2**20,
            2**20 + 1,
            len(seed),
            2**31,
            2**63,
            2**64 - 1,
            rng.randrange(2**64),
        )
        return "container length", struct.pack("<Q", rng.choice(lies)) + seed[8:]
    file = File.parse(seed)
    if kind == 3:
        outer = json.loads(seed[8 : 8 + struct.unpack("<Q", seed[:8])[0]])
        for _ in range(rng.choice([1, 1, 2])):
            lie(rng, outer)
        head = json.dumps(outer).encode() + b" " * rng.randrange(3)
        rest = seed[8 + struct.unpack("<Q", seed[:8])[0] :]
        return "container header", struct.pack("<Q", len(head)) + head + rest
    if kind == 4:
        return "stamp", stamp_lie(rng, file)
    if kind == 5:
        text = json.dumps(file.inner, ensure_ascii=False).encode()
        file.packed = bruise(rng, zlib.compress(text, rng.choice([0, 1, 9])))
        file.stamp["bytes"] = len(text)
        return "deflated header", file.build()
    if kind == 6:
        file.inner_text = text_lie(rng, json.dumps(file.inner, ensure_ascii=False).encode())
        return "header text", file.build()
    if kind in (7, 8):
        file.repair_entries = False
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            # The weights' entries take half of the lies: the graph's JSON is larger but checked by another room.
            target = rng.choice([file.inner, file.inner["weights"]]) if isinstance(file.inner, dict) else file.inner
            lie(rng, target if isinstance(target, (dict, list)) else file.inner)
            if not isinstance(file.inner, dict) or "weights" not in file.inner:
                break
        return "header field", file.build()
    if kind == 12:
        from fuzz_graph import hint_choices, hint_field

        for _ in range(rng.choice([1, 1, 2])):
            rng.choice([hint_field, hint_field, hint_choices])(rng, file)
        return "plan hint", file.build()
    index = rng.randrange(len(file.chunks))
    entry = file.inner["weights"][index]
    if kind == 9:
        for _ in range(rng.choice([1, 1, 2])):
            lie(rng, entry["code"] if rng.randrange(3) else entry)
        if not isinstance(entry.get("bytes"), int):
            file.repair_entries = False
        return "weight entry, repaired", file.build()
    if kind == 10:
        before = len(file.chunks[index])
        file.chunks[index] = bruise(rng, file.chunks[index])
        parts = code_sizes(entry["code"])
        if parts:  # keep one stream's stated size in step with what was inserted or cut
            part = rng.choice(parts)
            part["bytes"] = max(0, part["bytes"] + len(file.chunks[index]) - before)
        return "coded bytes, repaired", file.build()
    other = File.parse(rng.choice(seeds))
    donor = rng.randrange(len(other.chunks))
    entry["code"] = copy.deepcopy(other.inner["weights"][donor]["code"])
    file.chunks[index] = other.chunks[donor]
    if rng.randrange(2):
        entry["shape"], entry["dtype"] = other.inner["weights"][donor]["shape"], other.inner["weights"][donor]["dtype"]
    if rng.randrange(3) == 0:
        entry["dtype"] = rng.choice(["float16", "float64", "int8", "int16", "int64", "uint8", "uint16", "uint64"])
    return "spliced weight", file.build()


def stamp_lie(rng: random.Random, file: File) -> bytes:
    """A lie in the stamp, or a header that inflates to more than it says."""
    kind = rng.randrange(4)
    if kind == 0:
        file.stamp[rng.choice(["format", "bytes", "crc32", "extra"])] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 1:
        file.stamp["bytes"] = rng.choice([2, 3, 1 << 24, (1 << 24) + 1])
    elif kind == 2:
        file.inner_text = b" " * rng.choice([1, 1000, 1 << 20, 17 << 20])
        file.stamp["bytes"] = rng.choice([len(file.inner_text), 100, 1 << 24])
    else:
        text = rng.choice(["", "[]", "{}", "1", '{"format":1}', '{"format":NaN}', "{" * 100, '{"format":1,"format":1}'])
        file.outer["__metadata__"] = {"fastcnn": text}
    return file.build()


def text_lie(rng: random.Random, text: bytes) -> bytes:
    """Broken, deep, doubled or oddly encoded JSON."""
    kind = rng.randrange(8)
    if kind == 0:
        return b"[" * rng.choice([31, 33, 1000, 200000])
    if kind == 1:
        depth = rng.choice([20, 32, 33, 5000])
        return text[:-1] + b',"meta":' + b"[" * depth + b"]" * depth + b"}"
    if kind == 2:
        return text.replace(b'"weights":', b'"weights":[],"weights":', 1)
    if kind == 3:
        return text.replace(
            b"1", rng.choice([b"1e999", b"NaN", b"-Infinity", b"1" * 5000, b"0x1", b"1."]), rng.choice([1, 5])
        )
    if kind == 4:
        return text.decode().encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"]))
    if kind == 5:
        return text.replace(b'"', rng.choice([b'"\\ud800', b'"\xff', b'"\\u0000', b'"\\"', b"'"]), rng.choice([1, 7]))
    if kind == 6:
        return b'{"graph":' + b"[]," * rng.choice([10, 100000])
    return bruise(rng, text)


class Hang(BaseException):
    """A case took more than HANG_SECONDS of processor time."""


def _alarm(*_: object) -> None:
    raise Hang


class ReaderStage:
    """``load_graph``, ``parse_hint`` and ``inspect`` on files damaged anywhere."""

    def __init__(self, folder: Path) -> None:
        from fuzz_seeds import FORMS, META, PLAN, every_form, forms_of, small_net

        from fastcnn.artifact import save_graph
        from fastcnn.artifact.hint import make_hint
        from fastcnn.engine.plan.plan import Bands

        self.seeds = []
        for i, graph in enumerate([every_form(), small_net()]):
            whole = make_hint(
                graph,
                isa="avx2",
                threads=2,
                tolerance=1e-4,
                exact=False,
                shapes=[v.shape for v in graph.inputs],
                choices={node.name: "direct:6x2:pixels" for node in graph.nodes},
                bands=[Bands(layer=graph.nodes[0].name, steps=3, rows=8)],
                error=1e-5,
            )
            # With fields of no version besides, which the reader passes over.
            save_graph(folder / f"{i}.fcnn", graph, plan_hint=PLAN | whole, meta=META)
            self.seeds.append((folder / f"{i}.fcnn").read_bytes())
        descriptions = [entry["code"] for seed in self.seeds for entry in File.parse(seed).inner["weights"]]
        missing = set(FORMS) - forms_of(descriptions)
        if missing:
            raise SystemExit(f"seeds do not use {sorted(missing)}")

    def mutate(self, rng: random.Random, number: int) -> tuple[str, bytes]:
        try:
            return mutate(rng, self.seeds, number)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return "flip", bruise(rng, rng.choice(self.seeds))  # the lie cannot be written down at all

    def attempt(self, rng: random.Random, path: Path, number: int) -> str:
        from fastcnn.artifact import ArtifactError, inspect, load_graph
        from fastcnn.artifact.hint import parse_hint

        try:
            if number % 8 == 7:
                str(inspect(path))
            else:
                artifact = load_graph(path)
                parse_hint(artifact.plan_hint, artifact.graph).claims(artifact.graph, 1e-4)
        except ArtifactError:
            return "ArtifactError"
        return "loaded"


class LoadStage:
    """``fastcnn.load``, the plan as text, and calls, on whole files that tell of odd nets and lie in their hints."""

    def __init__(self, folder: Path) -> None:
        from fuzz_nets import NETS

        from fastcnn import _native
        from fastcnn.engine.plan.candidates import make_target
        from fastcnn.engine.run.net import CompiledNet

        target = make_target(str(_native.host()["isa_active"]), 2)
        self.seeds = []
        for build in NETS:
            net = CompiledNet(build(), target, tolerance=1e-4, exact=False, how="heuristic")
            net.save(folder / "seed.fcnn")
            self.seeds.append((folder / "seed.fcnn").read_bytes())

    def mutate(self, rng: random.Random, number: int) -> tuple[str, bytes]:
        from fuzz_graph import mutate_net

        file = File.parse(rng.choice(self.seeds))
        try:
            return mutate_net(rng, file, number), file.build()
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            # The lie cannot be written down, or a second one does not find what it wants to change.
            return "untouched", rng.choice(self.seeds)

    def attempt(self, rng: random.Random, path: Path, number: int) -> str:
        from fuzz_load import load_case

        return load_case(rng, path)


STAGES = {"reader": ReaderStage, "load": LoadStage}


def run_cases(arguments: argparse.Namespace, progress_file: Path) -> dict[str, Any]:
    """Child process: run the cases and count what came out."""
    folder = Path(tempfile.mkdtemp(prefix="fastcnn-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        warnings.simplefilter("error", RuntimeWarning)  # numpy's: a value no one has looked at
        stage = STAGES[arguments.stage](folder)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        signal.signal(signal.SIGPROF, _alarm)
        outcomes: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        failures: list[dict[str, Any]] = []
        slowest = 0.0
        target = folder / "case.fcnn"
        for number in range(arguments.first, arguments.first + arguments.cases):
            rng = random.Random(f"{arguments.seed}/{number}")
            kind, data = stage.mutate(rng, number)
            target.write_bytes(data)
            progress_file.write_text(str(number))
            kinds[kind] += 1
            began = time.process_time()
            faulthandler.dump_traceback_later(12 * HANG_SECONDS, exit=True)  # a hang inside native code
            signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
            try:
                outcomes[stage.attempt(rng, target, number)] += 1
            except BaseException as error:
                name = type(error).__name__
                outcomes[name] += 1
                failures.append({"case": number, "mutation": kind, "error": f"{name}: {error}"[:300]})
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, time.process_time() - began)
            if number % 2000 == 0 and sys.stderr.isatty():
                print(f"\r{arguments.stage} {number} {dict(outcomes)}", end="", file=sys.stderr, flush=True)
    finally:
        for leftover in folder.iterdir():
            leftover.unlink()
        folder.rmdir()
    return {
        "cases": sum(kinds.values()),
        "outcomes": dict(outcomes),
        "mutations": dict(kinds),
        "failures": failures[:50],
        "failed": len(failures),
        "slowest_case_s": round(slowest, 3),
    }


def measured(arguments: argparse.Namespace, progress_file: Path) -> dict[str, Any]:
    """Child process with line coverage of the reader's files."""
    import coverage

    tracer = coverage.Coverage(data_file=None, include=[f"*/fastcnn/artifact/{name}.py" for name in READER])
    tracer.start()
    result = run_cases(arguments, progress_file)
    tracer.stop()
    files: dict[str, Any] = {}
    lines = missed = 0
    for path in sorted(tracer.get_data().measured_files()):
        _, statements, _, absent, _ = tracer.analysis2(path)
        files[Path(path).name] = {"lines": len(statements), "missed": absent}
        lines += len(statements)
        missed += len(absent)
    result["coverage"] = {"percent": round(100 * (1 - missed / max(lines, 1)), 2), "lines": lines, "files": files}
    return result


CHUNK = {"reader": 20_000, "load": 1000}
"""Cases of one child process: a leak cannot pile up, and a death costs the count of one case only."""
ISAS = ("", "avx2", "scalar")
"""Caps on the instruction set, in turn by chunk of the load stage."""


def run_stage(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the cases in child processes, one after another; the death of a child is the failure of its last case."""
    began = time.perf_counter()
    total: dict[str, Any] = {"stage": arguments.stage, "seed": arguments.seed, "cases": 0, "failed": 0}
    outcomes: Counter[str] = Counter()
    mutations: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    slowest = 0.0
    chunk = arguments.cases if arguments.coverage else CHUNK[arguments.stage]
    ends = [*range(0, arguments.cases, chunk), arguments.cases]
    ranges = [(a, b) for a, b in itertools.pairwise(ends)]
    if arguments.only is not None:
        ranges = [(arguments.only, arguments.only + 1)]
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "case"
        while ranges:
            first, end = ranges.pop(0)
            result, died = run_child(arguments, first, end, progress)
            if died is not None:  # what came before it is run again: its counts went with the process
                case = int(progress.read_text()) if progress.exists() else first
                failures.append({"case": case, "error": f"the process died ({died})"})
                outcomes["died"] += 1
                total["cases"] += 1
                total["failed"] += 1
                ranges[:0] = [(a, b) for a, b in ((first, case), (case + 1, end)) if a < b]
                if total["failed"] > 50:
                    break
                continue
            total["cases"] += result["cases"]
            total["failed"] += result["failed"]
            outcomes.update(result["outcomes"])
            mutations.update(result["mutations"])
            failures += result["failures"]
            slowest = max(slowest, result["slowest_case_s"])
            if "coverage" in result:
                total["coverage"] = result["coverage"]
    return total | {
        "outcomes": dict(outcomes),
        "mutations": dict(mutations),
        "failures": failures[:50],
        "slowest_case_s": slowest,
        "seconds": round(time.perf_counter() - began, 1),
    }


def run_child(
    arguments: argparse.Namespace, first: int, end: int, progress: Path
) -> tuple[dict[str, Any], int | str | None]:
    """One child process over first .. end - 1: its result, and how it died if it did."""
    progress.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--stage", arguments.stage, "--seed", str(arguments.seed)]
    command += ["--first", str(first), "--cases", str(end - first), "--child", str(progress)]
    command += ["--coverage"] if arguments.coverage else []
    environment = {**os.environ, "FASTCNN_CACHE": ""}
    cap = ISAS[first // CHUNK["load"] % len(ISAS)]
    if arguments.stage == "load" and cap and "FASTCNN_ISA" not in environment:
        environment["FASTCNN_ISA"] = cap
    child = subprocess.run(command, stdout=subprocess.PIPE, check=False, env=environment)
    if child.returncode != 0:
        return {}, child.returncode
    try:
        return json.loads(child.stdout), None
    except ValueError:
        return {}, "no result"


def main() -> int:
    """Run the cases and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=sorted(STAGES), default="reader")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this one case")
    parser.add_argument("--coverage", action="store_true", help="measure line coverage of the reader (slower)")
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps((measured if arguments.coverage else run_cases)(arguments, arguments.child)))
        return 0
    result = run_stage(arguments)
    print(json.dumps(result, indent=1))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
