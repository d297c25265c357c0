"""Print the requirements of the named extras of pyproject.toml, one a line (for the Makefile)."""

import sys
import tomllib
from pathlib import Path


def main(names: list[str]) -> int:
    """Print base dependencies and those of the extras in ``names``; 2 on an unknown extra."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    unknown = [name for name in names if name not in extras]
    if unknown:
        print(f"unknown extra {unknown}: choose from {sorted(extras)}", file=sys.stderr)
        return 2
    print("\n".join([*project["dependencies"], *(line for name in names for line in extras[name])]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
