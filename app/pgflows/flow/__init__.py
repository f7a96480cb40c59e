"""From a workflow's Python source to the SQL that PostgreSQL runs.

`python` reads the source into a program, `typing` checks it, `graph` turns it into df nodes and
writes these as SQL. Nothing here touches a database.
"""

from pgflows.flow.compile import compile_app, compile_workflow
from pgflows.flow.describe import describe
from pgflows.flow.export import export_sql
from pgflows.flow.program import Program
from pgflows.flow.rendered import Rendered, render
from pgflows.flow.sample import sample

__all__ = [
    "Program",
    "Rendered",
    "compile_app",
    "compile_workflow",
    "describe",
    "export_sql",
    "render",
    "sample",
]
