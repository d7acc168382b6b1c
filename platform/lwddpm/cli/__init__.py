"""The command line: verbs only. Heavy modules are imported inside the verbs, so that --help is instant."""

from lwddpm.cli import dashboard, data, gate, head, models, report, run, search  # each adds its verbs to the program
from lwddpm.cli.app import app, main

__all__ = ["app", "dashboard", "data", "gate", "head", "main", "models", "report", "run", "search"]

# as a newcomer meets them in --help
_ORDER = ("run", "doctor", "sample", "verify", "report", "dashboard", "up", "down", "submit")
app.registered_commands.sort(key=lambda command: _ORDER.index(getattr(command.callback, "__name__", "")))
