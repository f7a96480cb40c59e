"""Workflows written to a file of their own and compiled, so that errors have places to point at."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pgflows import CompileError
from pgflows.flow import Program, compile_workflow

PRELUDE = Path(__file__).with_name("prelude.py").read_text()
MARK = "«"


@dataclass
class Written:
    """A module with a workflow `w`; `line` and `column` are where its source had the mark."""

    module: ModuleType
    line: int
    column: int

    def compile(self) -> Program:
        app: Any = self.module.app
        return compile_workflow(app.workflows["w"], app.steps)

    def refused(self) -> CompileError:
        with pytest.raises(CompileError) as caught:
            self.compile()
        return caught.value


def write(folder: Path, source: str) -> Written:
    """The prelude and the source as a module that was really imported from a file."""
    text = PRELUDE + textwrap.dedent(source)
    before = text.partition(MARK)[0]
    text = text.replace(MARK, "")
    file = folder / "flow_under_test.py"
    file.write_text(text)
    module = ModuleType("flow_under_test")
    module.__dict__["__source__"] = text
    code = compile(text, str(file), "exec", dont_inherit=True)
    exec(code, vars(module))  # noqa: S102 - the test's own text
    return Written(module, before.count("\n") + 1, len(before) - before.rfind("\n") - 1)


def body(statements: str, *, result: str = "Paid", input: str = "Order") -> str:
    """A workflow `w` with these statements."""
    inner = textwrap.indent(textwrap.dedent(statements).strip("\n"), "    ")
    head = f"@app.workflow\nasync def w(ctx: WorkflowContext, input: {input}) -> {result}:\n"
    return f"\n\n{head}{inner}\n"
