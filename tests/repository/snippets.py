"""The snippets of the documentation, found where they stand, for tests to run.

A snippet is a fenced block that names its language in a page, or an indented block of Python in a
docstring. A test gets one with `snippet(path, containing)`, or those below a heading with
`recipes(path, heading, language)`; `uncovered()` finds those that no test asks for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md")
MODULES = ("app/**/*.py", "steps/**/*.py")

FENCED = re.compile(r"^(#+ [^\n]*)$|^```(\w+)\n(.*?)^```$|^```\n.*?^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^(?:    .*)?\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A piece of code or commands in the documentation. `path` is relative to the repository."""

    path: str
    heading: str  # the last one before it, with its marks; empty in a docstring
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


def recipes(path: str, heading: str, language: str) -> list[str]:
    """The snippets of one language below a heading, at least one."""
    asked = [path, heading, language]
    found = [s.text for s in snippets() if _stands_below(asked, s)]
    assert found, f"{path} has no {language} below {heading}"
    return found


def uncovered() -> list[Snippet]:
    """The snippets that no test asks for."""
    tests = sorted(ROOT.glob("tests/**/*.py"))
    asked = [case for path in tests for case in _asked_by(path)]
    return [s for s in snippets() if not any(matches(s) for matches in asked)]


def _of_page(path: Path) -> Iterator[Snippet]:
    heading = ""
    for found, language, text in FENCED.findall(path.read_text("utf-8")):
        heading = found or heading
        if language:
            yield Snippet(str(path.relative_to(ROOT)), heading, language, text)


def _of_module(path: Path) -> Iterator[Snippet]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        docstring = ast.get_docstring(node) if isinstance(node, documented) else None
        for block in INDENTED.findall(f"{docstring or ''}\n"):
            text = dedent(block).strip("\n") + "\n"
            if text.strip() and _is_python(text):
                yield Snippet(str(path.relative_to(ROOT)), "", "python", text)


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _asked_by(path: Path) -> Iterator[Callable[[Snippet], bool]]:
    """For each time that a test asks, whether a snippet is what it asks for."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(func=ast.Name("snippet"), args=arguments):
                yield partial(_contains, _constants(arguments))
            case ast.Call(func=ast.Name("recipes"), args=arguments):
                yield partial(_stands_below, _constants(arguments))


def _constants(arguments: list[ast.expr]) -> list[str]:
    assert all(isinstance(a, ast.Constant) for a in arguments), "a snippet is named by constants"
    return [str(a.value) for a in arguments if isinstance(a, ast.Constant)]


def _contains(asked: list[str], found: Snippet) -> bool:
    path, containing = asked
    return found.path == path and containing in found.text


def _stands_below(asked: list[str], found: Snippet) -> bool:
    return [found.path, found.heading, found.language] == asked
