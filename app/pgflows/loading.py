"""Finds the app of a deployment.

`PGFLOWS_APP=steps:app` names a package and the `WorkflowApp` in it; loading it imports the
package's modules, whose decorators fill the app.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from types import ModuleType
from typing import Any

from pgflows.app import WorkflowApp
from pgflows.errors import PgflowsError, SetupError


def load_app(path: str) -> WorkflowApp:
    """Import `module:attribute` and all modules below it; the attribute is the `WorkflowApp`."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise SetupError(f"PGFLOWS_APP must look like module:attribute, not {path!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    for name in _modules_below(module):
        _import(name)
    app: Any = module
    for part in attribute.split("."):
        app = getattr(app, part, None)
    if not isinstance(app, WorkflowApp):
        raise SetupError(f"{path}: {module_name} has no WorkflowApp called {attribute!r}")
    return app


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise SetupError(
                f"there is no module {name!r} in {os.getcwd()} or on the import path; "
                "set PGFLOWS_APP=module:attribute, or run this where your steps are"
            ) from error
        raise SetupError(f"{name} cannot be imported: {error}") from error
    except (ImportError, SyntaxError) as error:
        raise SetupError(f"{name} cannot be imported: {error}") from error
    except PgflowsError:
        raise
    except Exception as error:  # whatever the module's own code raises
        frames = traceback.extract_tb(error.__traceback__)
        here = [f for f in frames if f.filename.startswith(os.getcwd())]
        ours = [f for f in here if "site-packages" not in f.filename] or frames
        raise SetupError(
            f"{name} cannot be imported: {type(error).__name__}: {error} "
            f"({ours[-1].filename}, line {ours[-1].lineno})"
        ) from error


def _modules_below(module: ModuleType) -> list[str]:
    names = []
    for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}."):
        if found.name.rpartition(".")[2] == "__main__":
            continue
        names.append(found.name)
        if found.ispkg:
            names.extend(_modules_below(_import(found.name)))
    return names
