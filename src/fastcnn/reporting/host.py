"""Facts about this machine, from the native module where it is built, else from the system."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def native() -> Any | None:
    """Return the native module, or None if it is not built or cannot be loaded here."""
    try:
        return importlib.import_module("fastcnn._native")
    except ImportError:
        return None


def installed(module: str) -> bool:
    """Whether a module can be imported; nothing is imported to find out but the packages that hold it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def host_facts() -> dict[str, Any]:
    """Return CPU name, ISA, caches, cores and Python, JSON-able; the same keys on every host."""
    module = native()
    known: dict[str, Any] = dict(module.host()) if module is not None else {}
    flags = _cpuinfo("flags")
    return {
        "cpu": str(known.get("cpu") or known.get("name") or _cpuinfo("model name") or platform.processor()),
        "native": known,
        "flags": [flag for flag in _SIMD_FLAGS if flag in flags.split()],
        "isa_cap": os.environ.get("FASTCNN_ISA"),
        "cores": physical_cores(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "caches": _caches(),
        "memory_bytes": _memory_bytes(),
        "huge_pages": _huge_pages(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


_SIMD_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_vpopcntdq",
    "amx_bf16",
)


def physical_cores() -> int:
    """Physical cores among the CPUs this process may use (two threads of one core count once)."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(_read(siblings) or str(cpu))
    return max(1, len(cores))


def default_threads() -> int:
    """Threads to use when nobody says: one for each physical core."""
    return physical_cores()


def commit() -> str | None:
    """Commit of the checkout this package runs from, marked ``-dirty`` if tracked files differ; None outside one.

    Records of measurements do not count: one that is being written must not make the commit of the rest another.
    """
    here = Path(__file__).resolve().parent
    try:
        # Only our own checkout counts, not a repository somewhere above an installed package.
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            timeout=10,
            check=False,
        )
        if tracked.returncode != 0:
            return None
        described, changes = (
            subprocess.run(
                ["git", "--no-optional-locks", "-C", str(here), *words],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results"],
            )
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    name = described.stdout.strip() if described.returncode == 0 else ""
    return name + ("-dirty" if changes.returncode != 0 or changes.stdout.strip() else "") if name else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _cpuinfo(field: str) -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _caches() -> list[dict[str, Any]]:
    caches = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (_read(index / name) for name in ("type", "level", "size"))
        if kind != "Instruction" and size.endswith("K") and size[:-1].isdigit():
            shared = _read(index / "shared_cpu_list")
            caches.append({"level": int(level), "bytes": int(size[:-1]) * 1024, "shared_by_cpus": shared})
    return caches


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _huge_pages() -> str:
    """The kernel's transparent huge page mode: ``always``, ``madvise``, ``never``, or ``unknown``."""
    text = _read(Path("/sys/kernel/mm/transparent_hugepage/enabled"))
    start, end = text.find("["), text.find("]")
    return text[start + 1 : end] if 0 <= start < end else "unknown"
