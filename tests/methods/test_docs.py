"""Every registered method has a page, in one order, and stands in the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastcnn.methods.registry import list_methods

DOCS = Path(__file__).parents[2] / "docs" / "methods"
ORDER = ["What it does", "When it helps", "When it does not", "Cost", "Error", "Example", "Paper"]
PAGES = [method.name for method in list_methods()]


@pytest.mark.parametrize("name", PAGES)
def test_every_method_has_a_page_in_the_common_order(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ORDER
    assert "arXiv:" in text.split("## Paper")[1]
    assert f"]({name}.md)" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", list_methods(), ids=lambda method: method.name)
def test_the_index_names_the_config(method: object) -> None:
    config = method.config.__name__  # type: ignore[attr-defined]
    assert f"`{config}`" in (DOCS / "index.md").read_text(encoding="utf-8")
