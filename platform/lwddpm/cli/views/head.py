"""What `lwddpm up`, `down`, `submit` and `jobs` print for people."""

from typing import Any

from rich.table import Table

from lwddpm.cli.views.terminal import console, facts


def head(result: dict[str, Any]) -> None:
    """`up`."""
    facts(
        {
            "Ray": f"{result['ray']} (token in ~/.ray/auth_token)",
            "MLflow": f"{result['mlflow']} (user {result['mlflow_user']}, password in {result['environment']})",
            "storage": f"{result['storage']}: relative paths of submitted jobs start there",
            **result["monitoring"],
            "logs": result["logs"],
            "started": ", ".join(result["started"]) or "nothing: all was running",
            "open": "Ray's metrics ports, on all interfaces and without token, and its node ports, with token:"
            " let a firewall keep others out",
        }
    )
    console.print(f"\n  source {result['environment']}     # for ray, mlflow and lwddpm in this shell", markup=False)
    console.print("  lwddpm submit demo --wait\n  lwddpm down", markup=False)
    if result["exposed"]:
        console.print(f"  {result['join']}     # on other machines, with the same token", markup=False)


def downed(result: dict[str, Any]) -> None:
    """`down`."""
    if not result["stopped"]:
        console.print("no head is running on this machine")
        return
    jobs = f"; jobs stopped with a checkpoint: {', '.join(result['jobs'])}" if result["jobs"] else ""
    console.print(f"stopped: {', '.join(result['stopped'])}{jobs}", markup=False)


def submitted(result: dict[str, Any]) -> None:
    """`submit`."""
    submission(result)
    if result["state"] in ("PENDING", "RUNNING"):
        console.print(f"\n  lwddpm jobs logs {result['id']} --follow\n  lwddpm jobs stop {result['id']}", markup=False)


def submission(result: dict[str, Any]) -> None:
    """`jobs status`, `jobs stop`."""
    run = result["run"]
    facts(
        {
            "job": f"{result['id']} ({result['kind'] or 'not of this platform'})",
            "state": f"{result['state']}, {result['message']}".rstrip(", "),
            "started": f"{(result['started'] or 'not yet').partition('.')[0]}; {result['seconds'] or 0:.0f} s",
            "MLflow run": f"{run['run_id']} ({run['url']})" if run else "none opened",
        }
    )


def submissions(jobs: list[dict[str, Any]]) -> None:
    """`jobs list`."""
    if not jobs:
        console.print("no jobs yet: lwddpm submit demo")
        return
    table = Table("job", "kind", "state", "started", "seconds")
    for item in jobs:
        started = (item["started"] or "").partition(".")[0]
        table.add_row(item["id"], item["kind"] or "", item["state"], started, f"{item['seconds'] or 0:.0f}")
    console.print(table)


def log(result: dict[str, str]) -> None:
    """`jobs logs`."""
    console.print(result["log"], end="", markup=False)
