"""The files around the package: what they name exists, and what they run is a real command."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pgflows import errors
from pgflows.cli import MODULES, app
from pgflows.config import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.full.yml").read_text())
SERVICE_KEYS = {
    *("build", "command", "configs", "depends_on", "environment", "healthcheck", "image"),
    *("ports", "restart", "volumes"),
}
CONDITIONS = {"service_healthy", "service_completed_successfully", "service_started"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile.app").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in map(str.strip, lines)]


def commands() -> set[str]:
    return set(MODULES)


def is_ours(command: list[str]) -> bool:
    return command[0] == "pgflows" and command[1] in commands()


def test_every_source_that_the_dockerfile_copies_exists() -> None:
    copied = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    sources = [s for words in copied if not words[0].startswith("--from") for s in words[:-1]]
    assert sources
    assert [s for s in sources if not (ROOT / s).exists()] == []


def test_the_dockerfile_copies_from_a_stage_that_it_has() -> None:
    stages = {
        m[1]
        for name, rest in instructions()
        if name == "FROM"
        for m in [rest.split(" AS ")]
        if len(m) == 2
    }
    used = {
        rest.split()[0].removeprefix("--from=")
        for name, rest in instructions()
        if name == "COPY" and rest.startswith("--from=")
    }
    assert used <= stages


def test_the_image_holds_what_the_wheel_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {s for name, rest in instructions() if name == "COPY" for s in rest.split()[:-1]}
    named = {project["project"]["readme"], *project["project"]["license-files"], "app", "sql"}
    assert named <= copied


def test_the_image_runs_a_command_of_ours() -> None:
    (command,) = [json.loads(rest) for name, rest in instructions() if name == "CMD"]
    assert is_ours(command)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_of_the_compose_file_is_well_formed(name: str) -> None:
    service = COMPOSE["services"][name]
    assert set(service) <= SERVICE_KEYS
    assert ("image" in service) != ("build" in service)
    if "build" in service:
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert is_ours(service["command"])
    for needed, how in service.get("depends_on", {}).items():
        assert needed in COMPOSE["services"]
        assert how["condition"] in CONDITIONS
        if how["condition"] == "service_healthy":
            assert COMPOSE["services"][needed]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for volume in service.get("volumes", []):
        assert volume.split(":")[0] in COMPOSE["volumes"]
    for config in service.get("configs", []):
        assert COMPOSE["configs"][config["source"]]["content"]


def test_the_compose_file_has_no_unknown_parts() -> None:
    known = {"services", "volumes", "configs"}
    assert {k for k in COMPOSE if not k.startswith("x-")} <= known


def test_what_images_set_are_settings() -> None:
    given = {k for s in COMPOSE["services"].values() for k in s.get("environment", {})}
    for name, rest in instructions():
        if name == "ENV":
            given |= {word.split("=")[0] for word in shlex.split(rest)}
    ours = {name for name in given if name.startswith("PGFLOWS_")}
    assert ours
    assert ours <= {f"PGFLOWS_{field.upper()}" for field in Settings.model_fields}


def test_constraints_are_pinned_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", line)] == []


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = {
        _normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().split()
    }
    names = {_normal(re.split(r"[\[<>=!~; ]", one)[0]) for one in wanted}
    assert names <= pinned


def test_every_command_tells_what_it_does() -> None:
    group = typer.main.get_group(app)
    context = typer.Context(group)
    assert {"dev", "serve", "engine", "migrate", "check", "doctor", "demo", "keys"} <= commands()
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    assert [n for n, c in found.items() if c is None or not c.get_short_help_str()] == []


def test_every_error_has_a_message_of_its_own() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    ours = [c for c in classes if issubclass(c, errors.PgflowsError)]
    assert [c.__name__ for c in ours if not c.__doc__] == []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
