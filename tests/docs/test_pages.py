"""Code in the pages runs as it stands there, and links lead somewhere."""

from __future__ import annotations

import builtins
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastcnn
from tests.docs.pages import PAGES, ROOT, anchors, blocks, links, name

WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.fixture(scope="module")
def tracebacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Page to what went wrong in its code."""
    code = [
        (name(page), [(block.line, block.text) for block in blocks(page) if block.language == "python"])
        for page in WITH_CODE
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_pages"],
        cwd=ROOT,
        env={**os.environ, "FASTCNN_CACHE": str(tmp_path_factory.mktemp("cache"))},
        input=json.dumps(code),
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_python_blocks_run(page: Path, tracebacks: dict[str, str]) -> None:
    """All blocks of a page, one after the other."""
    assert tracebacks[name(page)] == ""


def test_the_first_pages_have_code() -> None:
    """The pages a newcomer reads are among those that run: the fences are found."""
    found = {name(page) for page in WITH_CODE}
    wanted = {
        "README.md",
        "docs/index.md",
        "docs/guides/quickstart.md",
        "docs/guides/compile.md",
        "docs/guides/compress.md",
    }
    assert wanted <= found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_navigation_holds_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2].partition("validation:")[0]
    listed = set(re.findall(r"[\w/-]+\.md", text))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if (ROOT / "docs") in page.parents}


def test_the_reference_names_every_public_name() -> None:
    text = (ROOT / "docs/reference/index.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"fc\.(\w+)", text))
    configs = {method.config.__name__ for method in fastcnn.list_methods()}
    assert shown == (set(fastcnn.__all__) | configs) - {"__version__"}


def test_references_exist() -> None:
    """Every ``::: path`` of the reference is an object of the library."""
    paths = [p for page in PAGES for p in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)]
    assert paths
    for path in paths:
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, path


def test_error_classes_are_what_the_page_says() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    where = {
        path.rpartition(".")[2]: path.rpartition(".")[0] for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    }
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert {error for error, _ in rows} == set(where)
    for error, base in rows:
        assert issubclass(getattr(importlib.import_module(where[error]), error), getattr(builtins, base))


def test_pre_commit_names_the_pinned_versions() -> None:
    """The hooks run the tools of .venv; what they say of versions is what pyproject.toml and the Makefile pin."""
    said = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    versions = dict(re.findall(r"name: ([a-z-]+)[^\n]* \(([\d.]+)\)", said))
    assert set(versions) == {"ruff", "mypy", "clang-format"}
    for file in ("pyproject.toml", "Makefile"):
        pinned = (ROOT / file).read_text(encoding="utf-8")
        for tool, version in versions.items():
            assert f'"{tool}=={version}"' in pinned, (file, tool, version)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs comes with the extra docs: make docs installs it")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "reference" / "run" / "index.html").is_file()
