"""Job: what one worker process is told, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

Task = Literal["convert", "tune", "time", "profile"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One conversion, or one timed or profiled block, of one engine.

    Parameters
    ----------
    task : {"convert", "tune", "time", "profile"}
        ``convert`` turns the exported model into the engine's own files, ``time`` measures one block; ours only:
        ``tune`` replaces the plan in our own file, ``profile`` measures every step and the machine's limits.
    engine : str
        A name in :data:`fastcnn.benchmarking.engines.ENGINES`.
    variant : str
        One of the engine's variants, such as a memory format.
    folder : str
        Holds the exported model and the engine's files.
    threads : int
        Computing threads.
    warmup_s, seconds : float
        Length of warm-up and of the timed part, in seconds.
    result : str
        The worker writes its answer (JSON) here, last of all.
    isa : str
        If not empty: FASTCNN_ISA of the worker.
    tolerance : str
        For ``tune``: a word or a number.
    outputs : str
        If not empty: where to save the outputs for all inputs (.npy).
    evict_bytes : int
        Of other memory that every thread's core reads between timed calls, so that weights come from memory.
    """

    task: Task
    engine: str
    variant: str
    folder: str
    threads: int
    warmup_s: float
    seconds: float
    result: str
    isa: str = ""
    tolerance: str = "fp32"
    outputs: str = ""
    evict_bytes: int = 0

    def dumps(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job back.

        Raises
        ------
        ValueError
            If the file is no JSON object with exactly the fields of a job, each of its kind.
        """
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"job file {path} cannot be read: {error}") from error
        kinds = {"threads": int, "evict_bytes": int, "warmup_s": (int, float), "seconds": (int, float)}
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            given = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"job file {path} holds {given}, expected exactly {sorted(names)}")
        for name, value in data.items():
            if not isinstance(value, kinds.get(name, str)) or isinstance(value, bool):  # type: ignore[arg-type]
                raise ValueError(f"job file {path}: {name}={value!r} is of a wrong kind")
        if data["task"] not in get_args(Task):
            raise ValueError(f"job file {path}: task={data['task']!r}: choose from {get_args(Task)}")
        return cls(**data)
