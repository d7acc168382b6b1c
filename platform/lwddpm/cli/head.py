"""`lwddpm up`, `down`, `submit` and `jobs`: a head here, and jobs on any cluster."""

from typing import Annotated, Any

import typer

from lwddpm.cli.app import JobArgument, JsonFlag, OverrideOption, app, finish
from lwddpm.cli.views import head as views

jobs = typer.Typer(no_args_is_help=True, help="Look at the jobs of a cluster, and stop them.")
app.add_typer(jobs, name="jobs")

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Job server; default RAY_API_SERVER_ADDRESS, else the head that lwddpm up started here.",
    ),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A submission id, or a job's name: its newest.")]


@app.command()
def up(
    gpus: Annotated[int | None, typer.Option(metavar="N", help="GPUs that Ray may use; default: all.")] = None,
    cpus: Annotated[int | None, typer.Option(metavar="N", help="CPUs that Ray may use; default: all.")] = None,
    expose: Annotated[
        bool, typer.Option("--expose", help="Let other machines in, with token and password; default: loopback only.")
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where jobs' relative paths start; default: ~/.lwddpm/storage."),
    ] = None,
    ray_port: Annotated[int, typer.Option(help="Where nodes join.")] = 6379,
    dashboard_port: Annotated[int, typer.Option(help="Where jobs are submitted.")] = 8265,
    mlflow_port: Annotated[int, typer.Option(help="Tracking and registry.")] = 5000,
    as_json: JsonFlag = False,
) -> None:
    """Start a head on this machine: Ray with token auth, and MLflow with a password beside it.

    Running it again starts what has died and leaves the rest alone. Logs and secrets lie in ~/.lwddpm/head.

        lwddpm up

        lwddpm submit jobs/demo.yaml --wait

        lwddpm down
    """

    def verb() -> dict[str, Any]:
        from lwddpm.head.head import HeadOptions
        from lwddpm.head.launch import up as start

        return start(HeadOptions(cpus, gpus, expose, storage, ray_port, dashboard_port, mlflow_port))

    finish(verb, as_json, views.head)


@app.command()
def down(as_json: JsonFlag = False) -> None:
    """Stop the head on this machine. Its jobs save a checkpoint first; runs, models and data stay."""

    def verb() -> dict[str, Any]:
        from lwddpm.head.launch import down as stop

        return stop()

    finish(verb, as_json, views.downed)


@app.command()
def submit(
    job: JobArgument,
    overrides: OverrideOption = None,
    address: AddressOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the log until the end; exit as the job does.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of continuing or reusing.")] = False,
    storage: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder on the nodes where relative paths start; default LWDDPM_STORAGE."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a job on a cluster: the same file, the same overrides as `lwddpm run`.

    Uploads the platform's code and the job, nothing else: the images must lie where the cluster's nodes find them.
    Submitting a job again continues it, or says that it is running. Ctrl-C leaves it running.

        lwddpm submit jobs/demo.yaml

        lwddpm submit jobs/paper.yaml --address http://HOST:8265 --set data.source=/data/mri --wait
    """

    def verb() -> dict[str, Any]:
        from lwddpm.errors import JobError
        from lwddpm.head.jobserver import JobServer
        from lwddpm.jobfile import load_job
        from lwddpm.progress import say
        from lwddpm.version import git_commit

        loaded = load_job(job, overrides or [])
        server = JobServer(address)
        submission, new = server.submit(loaded, fresh=fresh, storage=storage, commit=git_commit())
        say(f"{submission.id}: {'submitted' if new else 'is running already'}, at {server.address}")
        run = server.run_of(submission.id, timeout_s=90)
        if run is not None:
            say(f"MLflow run {run['run_id']} ({run['url']})")
        if wait:
            for text in server.follow(submission.id):
                typer.echo(text, nl=False, err=True)
        submission = server.find(submission.id)
        if submission.state == "FAILED":
            last = "" if wait else "".join(f"\n{line}" for line in server.logs(submission.id).splitlines()[-15:])
            error = JobError(f"{submission.id} failed: {submission.message}{last}")
            error.exit_code = submission.exit_code or 1
            raise error
        return submission.as_dict() | {"submitted": new, "address": server.address, "run": run}

    finish(verb, as_json, views.submitted)


@jobs.command("list")
def jobs_list(address: AddressOption = None, as_json: JsonFlag = False) -> None:
    """List the jobs that the cluster knows, newest first."""

    def verb() -> list[dict[str, Any]]:
        from lwddpm.head.jobserver import JobServer

        return [submission.as_dict() for submission in JobServer(address).jobs()]

    finish(verb, as_json, views.submissions)


@jobs.command("status")
def jobs_status(reference: IdArgument, address: AddressOption = None, as_json: JsonFlag = False) -> None:
    """Show how one job is doing, and which MLflow run it writes to."""

    def verb() -> dict[str, Any]:
        from lwddpm.head.jobserver import JobServer

        server = JobServer(address)
        submission = server.find(reference)
        return submission.as_dict() | {"address": server.address, "run": server.run_of(submission.id)}

    finish(verb, as_json, views.submission)


@jobs.command("logs")
def jobs_logs(
    reference: IdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    address: AddressOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Print what a job has written, progress and result alike. Ctrl-C leaves the job running."""

    def verb() -> dict[str, str]:
        from lwddpm.head.jobserver import JobServer

        server = JobServer(address)
        submission = server.find(reference)
        if not follow or as_json:
            return {"id": submission.id, "log": server.logs(submission.id)}
        for text in server.follow(submission.id):
            typer.echo(text, nl=False, err=True)
        return {"id": submission.id, "log": ""}

    finish(verb, as_json, views.log)


@jobs.command("stop")
def jobs_stop(reference: IdArgument, address: AddressOption = None, as_json: JsonFlag = False) -> None:
    """Stop a job: it saves a checkpoint, and its MLflow run ends as KILLED. Submitting it again continues it."""

    def verb() -> dict[str, Any]:
        from lwddpm.head.jobserver import JobServer

        server = JobServer(address)
        submission = server.stop(server.find(reference).id)
        return submission.as_dict() | {"address": server.address, "run": server.run_of(submission.id)}

    finish(verb, as_json, views.submission)
