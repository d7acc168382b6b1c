"""The command line: verbs only. Heavy modules are imported inside the verbs, so that --help is instant."""

from lwddpm.cli import (  # each adds its verbs to the program
    dashboard,
    data,
    gate,
    head,
    lineage,
    models,
    report,
    run,
    search,
)
from lwddpm.cli.app import app, main

__all__ = ["app", "dashboard", "data", "gate", "head", "lineage", "main", "models", "report", "run", "search"]

# as a newcomer meets them in --help
_ORDER = ("run", "doctor", "sample", "verify", "lineage", "report", "dashboard", "up", "down", "submit")
app.registered_commands.sort(key=lambda command: _ORDER.index(getattr(command.callback, "__name__", "")))
