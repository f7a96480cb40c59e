"""From a workflow's Python source to the SQL that PostgreSQL runs.

compile reads the source into a tree (nodes), check gives the tree its types, render writes it
as SQL. Nothing here touches a database.
"""

from pgflows.flow.compile import compile_app, compile_workflow
from pgflows.flow.describe import describe
from pgflows.flow.export import export_sql
from pgflows.flow.nodes import Flow
from pgflows.flow.render import Rendered, render
from pgflows.flow.sample import sample

__all__ = [
    "Flow",
    "Rendered",
    "compile_app",
    "compile_workflow",
    "describe",
    "export_sql",
    "render",
    "sample",
]
