"""Where the source of a function is, and what the names in it mean."""

from __future__ import annotations

import ast
import linecache
import re
import unicodedata
from types import FunctionType, ModuleType
from typing import Any

from pgflows.flow.program import At

NOT_FOUND = object()


class Source:
    """One workflow function: its syntax tree with true positions, and the scope around it."""

    def __init__(self, fn: FunctionType) -> None:
        self.fn = fn
        self.file = fn.__code__.co_filename
        linecache.checkcache(self.file)
        self.lines = linecache.getlines(self.file, fn.__globals__)

    def tree(self) -> ast.AsyncFunctionDef | None:
        """The function's definition, found in its file by its first line; None without a source."""
        code = self.fn.__code__
        try:
            module = ast.parse("".join(self.lines), self.file)
        except (SyntaxError, ValueError):
            return None
        for node in ast.walk(module):
            if isinstance(node, ast.AsyncFunctionDef) and node.name == code.co_name:
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if first == code.co_firstlineno and self._unchanged(node):
                    return node
        return None

    def _unchanged(self, node: ast.AsyncFunctionDef) -> bool:
        """Whether the file still says what was imported: it has each name of the code."""
        code = self.fn.__code__
        text = unicodedata.normalize("NFKC", "".join(self.lines[node.lineno - 1 : node.end_lineno]))
        written = set(re.findall(r"\w+", text))
        names = {part for name in code.co_names for part in name.split(".")}
        parameters = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
        return names <= written and tuple(parameters) == code.co_varnames[: len(parameters)]

    def at(self, node: ast.expr | ast.stmt) -> At:
        """The node's place; ast counts columns in UTF-8 bytes, people count characters."""
        return self.place(node.lineno, node.col_offset)

    def start(self) -> At:
        return self.place(self.fn.__code__.co_firstlineno, 0)

    def place(self, line: int, offset: int) -> At:
        text = self.lines[line - 1].rstrip() if line <= len(self.lines) else ""
        column = len(text.encode()[:offset].decode(errors="ignore"))
        return At(self.file, line, column, text)

    def resolve(self, node: ast.expr) -> Any:
        """What a global name, or a path from one through modules and classes, stands for."""
        if isinstance(node, ast.Name):
            return self._lookup(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            if isinstance(owner, ModuleType | type):
                return getattr(owner, node.attr, NOT_FOUND)
        return NOT_FOUND

    def _lookup(self, name: str) -> Any:
        free = self.fn.__code__.co_freevars
        if name in free and self.fn.__closure__:
            try:
                return self.fn.__closure__[free.index(name)].cell_contents
            except ValueError:
                return NOT_FOUND
        builtins = self.fn.__globals__.get("__builtins__", {})
        if isinstance(builtins, ModuleType):
            builtins = vars(builtins)
        return self.fn.__globals__.get(name, builtins.get(name, NOT_FOUND))
