"""A workflow as a file for psql: its definition and the statement that starts a run of it."""

from __future__ import annotations

import json
from typing import Any

from pgflows.definitions import Workflow
from pgflows.flow.graph import quote
from pgflows.flow.graph.render import render
from pgflows.flow.rendered import Rendered
from pgflows.flow.sample import sample

HEADER = """\
Workflow {name}, version {version}
{description}
checksum {checksum}

Run it with psql as the owner of the schema pgflows: it defines the workflow and starts one run.
    psql "$DSN" -f {name}.sql
    psql "$DSN" -v input='{{…}}' -f {name}.sql      with an input of your own
The steps are called at the URLs below. They were compiled from Python; edit that."""


def export_sql(workflow: Workflow[Any, Any], rendered: Rendered) -> str:
    """The file; the input is one that fits the schema unless `-v input=…` gives another."""
    header = HEADER.format(
        name=rendered.name,
        version=rendered.version,
        description=workflow.description or "",
        checksum=rendered.checksum,
    )
    arguments = [
        quote.node_text(rendered.name),
        quote.node_text(rendered.version),
        render(rendered.tree, indent="  "),
        *(
            f"{quote.node_text(json.dumps(part, ensure_ascii=False))}::jsonb"
            for part in (rendered.definition, rendered.input_schema, rendered.output_schema)
        ),
        quote.node_text(rendered.checksum),
    ]
    define = ",\n  ".join(arguments)
    return f"""\
{_comment(header)}
\\set ON_ERROR_STOP on
\\if :{{?input}}
\\else
  \\set input {_psql(json.dumps(sample(workflow.input_model), ensure_ascii=False))}
\\endif

begin;

select pgflows.define(
  {define}
);

select pgflows.start({quote.node_text(rendered.name)}, :'input'::jsonb) as instance_id;

commit;
"""


def _comment(text: str) -> str:
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
    return "\n".join(f"-- {line}".rstrip() for line in lines)


def _psql(text: str) -> str:
    """A quoted argument of a psql command, where backslashes are escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"
