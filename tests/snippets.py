"""The snippets of the documentation, found where they stand, for tests to run.

A snippet is a fenced block that names its language in a page, or an indented block of Python in a
docstring. A test gets one with `snippet(path, containing)`; `uncovered()` finds those that no test
asks for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md")
MODULES = ("app/**/*.py", "steps/**/*.py")

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^(?:    .*)?\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A piece of code or commands in the documentation. `path` is relative to the repository."""

    path: str
    language: str
    text: str


@cache
def snippets() -> list[Snippet]:
    """Every snippet of the pages and of the docstrings."""
    pages = (path for pattern in PAGES for path in sorted(ROOT.glob(pattern)))
    modules = (path for pattern in MODULES for path in sorted(ROOT.glob(pattern)))
    return [
        *chain.from_iterable(map(_of_page, pages)),
        *chain.from_iterable(map(_of_module, modules)),
    ]


def snippet(path: str, containing: str) -> str:
    """The text of the one snippet of a file that contains these characters."""
    [found] = [s.text for s in snippets() if s.path == path and containing in s.text]
    return found


def uncovered() -> list[Snippet]:
    """The snippets that no test asks for."""
    asked = set(chain.from_iterable(map(_asked_by, sorted(ROOT.glob("tests/**/*.py")))))
    return [
        s
        for s in snippets()
        if not any(path == s.path and containing in s.text for path, containing in asked)
    ]


def _of_page(path: Path) -> Iterator[Snippet]:
    for language, text in FENCED.findall(path.read_text("utf-8")):
        yield Snippet(str(path.relative_to(ROOT)), language, text)


def _of_module(path: Path) -> Iterator[Snippet]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        docstring = ast.get_docstring(node) if isinstance(node, documented) else None
        for block in INDENTED.findall(f"{docstring or ''}\n"):
            text = dedent(block).strip("\n") + "\n"
            if text.strip() and _is_python(text):
                yield Snippet(str(path.relative_to(ROOT)), "python", text)


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _asked_by(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(
                func=ast.Name("snippet"),
                args=[ast.Constant(str(asked)), ast.Constant(str(containing))],
            ):
                yield asked, containing
