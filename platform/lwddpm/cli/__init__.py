"""The command line: verbs only. Heavy modules are imported inside the verbs, so that --help is instant."""

from lwddpm.cli import cluster, dashboard, jobs, models, report, search  # each adds its verbs to the program
from lwddpm.cli.app import app, main

__all__ = ["app", "cluster", "dashboard", "jobs", "main", "models", "report", "search"]
