"""Read YAML safely and remember the line of every key, so that errors can point at it."""

from __future__ import annotations

import re
from typing import Any

from fastcnn._extras import require

Path = tuple[str | int, ...]
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


class RecipeError(ValueError):
    """A recipe that cannot be run: the message names file, line, key, and what is allowed."""


class Document:
    """A parsed YAML document and where its keys stand."""

    def __init__(self, text: str, source: str) -> None:
        yaml = require("yaml", extra="compress", purpose="reading a recipe")
        self.source = source
        self._lines: dict[Path, int] = {}
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self._yaml = yaml
            self.value: Any = None if node is None else self._build(node, ())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = "" if mark is None else f", line {mark.line + 1}"
            raise RecipeError(f"{source}{line}: no valid YAML: {getattr(error, 'problem', None) or error}") from error

    def _build(self, node: Any, path: Path) -> Any:
        """Plain values of a composed node; anchors that loop and duplicate keys are refused."""
        self._lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > 16:
            raise RecipeError(f"{self.source}, line {node.start_mark.line + 1}: nested deeper than any recipe")
        if isinstance(node, self._yaml.MappingNode):
            result: dict[str, Any] = {}
            for key, item in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, self._yaml.ScalarNode):
                    raise RecipeError(f"{self.source}, line {line}: keys must be plain words")
                if key.value in result:
                    raise RecipeError(f"{self.source}, line {line}: the key {key.value!r} stands twice")
                self._lines[(*path, key.value)] = line
                result[key.value] = self._build(item, (*path, key.value))
            return result
        if isinstance(node, self._yaml.SequenceNode):
            return [self._build(item, (*path, i)) for i, item in enumerate(node.value)]
        if node.style is None and _EXPONENT.fullmatch(node.value):
            # YAML 1.1 takes 1e-3 for a word; nobody who writes it means one.
            return float(node.value)
        return self._yaml.SafeLoader("").construct_object(node)

    def error(self, path: Path, message: str) -> RecipeError:
        """An error that names the line of ``path``, or of the nearest key around it."""
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        line = f", line {self._lines[known]}" if known in self._lines else ""
        return RecipeError(f"{self.source}{line}: {where}: {message}" if where else f"{self.source}{line}: {message}")
