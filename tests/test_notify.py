"""A webhook is told by a real server's account, beside the work, and never with the address or a secret in sight."""

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from lwddpm import notify
from lwddpm.config import TrainJob
from lwddpm.config.notify import NotifyConfig
from lwddpm.errors import ConfigError
from lwddpm.head.upload import staged
from lwddpm.jobfile import load_job
from lwddpm.kinds.jobs import run_job, told_of_its_end
from lwddpm.tracking.provenance import environment_tags
from lwddpm.tracking.rundir import job_yaml
from lwddpm.tracking.store import connect

from .processes import clean_environment, free_port

TOKEN = "T0p5ecret"


class Hook:
    """A server that answers with the given states, one a request, and keeps what it was told."""

    def __init__(self, *states: int, silent_s: float = 0) -> None:
        self.told: list[dict[str, Any]] = []
        self.paths: list[str] = []
        answers, hook = list(states), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.paths.append(self.path)
                hook.told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                time.sleep(silent_s)
                state = answers.pop(0) if answers else 200
                self.send_response(state)
                if 300 <= state < 400:
                    self.send_header("location", f"http://127.0.0.1:{hook.port}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                hook.paths.append(f"GET {self.path}")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/{TOKEN}?key={TOKEN}"


@pytest.fixture
def hook() -> Iterator[Callable[..., Hook]]:
    made: list[Hook] = []

    def start(*states: int, **options: Any) -> Hook:
        made.append(Hook(*states, **options))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notify.VARIABLE, raising=False)
    monkeypatch.setattr(notify, "_PAUSES_S", (0.05, 0.05, 0.05))


def _delivered(thread: threading.Thread | None) -> None:
    assert thread is not None
    thread.join(20)
    assert not thread.is_alive()


def test_an_event_arrives_as_json_that_chats_and_programs_read(hook: Callable[..., Hook]) -> None:
    server = hook()
    _delivered(notify.tell(server.url, "gate", "gate failed\nsecond line", status="failed", rules=[{"rule": "x"}]))
    [told] = server.told
    assert (told["event"], told["text"], told["status"], told["rules"]) == (
        "gate", "gate failed", "failed", [{"rule": "x"}],
    )  # fmt: skip
    assert told["at"].endswith("+00:00")
    assert server.paths == [f"/hook/{TOKEN}?key={TOKEN}"]


def test_it_is_tried_again_until_it_is_taken(hook: Callable[..., Hook]) -> None:
    server = hook(500, 503)
    _delivered(notify.tell(server.url, "job", "done"))
    assert len(server.told) == 3


def test_what_is_not_taken_is_said_without_the_address(
    hook: Callable[..., Hook], capsys: pytest.CaptureFixture[str]
) -> None:
    server = hook(*[500] * 20)
    _delivered(notify.tell(server.url, "job", "done"))
    _delivered(notify.tell(f"http://127.0.0.1:{free_port()}/{TOKEN}", "job", "done"))
    said = capsys.readouterr().err
    assert "notify: 127.0.0.1 was not told: it answers 500" in " ".join(said.split())
    assert TOKEN not in said
    assert "/hook" not in said


def test_nobody_is_sent_elsewhere(hook: Callable[..., Hook]) -> None:
    server = hook(*[302] * 20)
    _delivered(notify.tell(server.url, "job", "done"))
    assert all("elsewhere" not in path for path in server.paths)


def test_a_silent_server_delays_neither_the_caller_nor_for_ever_the_end(
    hook: Callable[..., Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(notify, "_TIMEOUT_S", (0.3, 0.3))
    server, begun = hook(silent_s=3), time.monotonic()
    thread = notify.tell(server.url, "job", "done")
    assert time.monotonic() - begun < 0.3
    _delivered(thread)
    assert time.monotonic() - begun < 5


def test_passwords_in_a_text_are_taken_out(hook: Callable[..., Hook]) -> None:
    server = hook()
    _delivered(notify.tell(server.url, "job", "failed: http://ada:pw@host/store does not answer"))
    assert server.told[0]["text"] == "failed: http://host/store does not answer"


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://host/{TOKEN}",
        f"{TOKEN}",
        f"http:///{TOKEN}",
        f"http://h:x/{TOKEN}",
        3,
        [f"http://h/{TOKEN}"],
        "http://h /x",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url: object) -> None:
    from lwddpm.jobfile import validate_job

    values = load_job("demo").model_dump(mode="json") | {"notify": {"url": url}}
    with pytest.raises(ConfigError, match=r"notify\.url: must be an address") as refused:
        validate_job(values, "job")
    assert TOKEN not in str(refused.value)


def test_the_address_stands_in_no_dump_record_command_or_upload(
    tiny_job: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://hooks.example/{TOKEN}"
    job = tiny_job(f"notify.url={url}")
    assert job.notify.url == url
    plain = tiny_job()
    assert (job.digest(), job.result_digest(), job.training_digest()) == (
        plain.digest(), plain.result_digest(), plain.training_digest(),
    )  # fmt: skip
    assert not any(TOKEN in text for text in (job_yaml(job), job.model_dump_json(), str(job.model_dump())))
    monkeypatch.setattr(sys, "argv", ["lwddpm", "run", "demo", "--set", f"notify.url={url}", "--set=notify.url=" + url])
    command = environment_tags()["lwddpm.command"]
    assert TOKEN not in command
    assert "notify.url=..." in command
    with pytest.raises(ConfigError, match=r"set LWDDPM_NOTIFY_URL in the environment") as refused, staged(job):
        pass
    assert TOKEN not in str(refused.value)
    assert NotifyConfig(url=url).model_dump() == {}


def test_the_end_of_a_job_is_told_as_it_was(hook: Callable[..., Hook], tiny_job: Callable[..., TrainJob]) -> None:
    from lwddpm.errors import DataError, JobError

    server = hook()
    job = tiny_job()
    for error in (JobError("training diverged"), DataError("/data/Doe_John: cannot be read"), KeyboardInterrupt()):
        with pytest.raises(type(error)), told_of_its_end(job, server.url):
            raise error
    with told_of_its_end(job, server.url) as told:
        told({"run_id": "r", "model": {"name": "m", "version": 2}})
    for thread in threading.enumerate():
        if thread.name == "lwddpm-notify":
            thread.join(20)
    by_text = {each["text"]: each for each in server.told}
    assert set(by_text) == {
        "train job demo failed: training diverged",
        "train job demo failed: its input is wrong, as its own output says",
        "train job demo stopped",
        "train job demo finished",
    }
    assert by_text["train job demo finished"]["model"] == "m/2"
    assert not any("Doe" in text for text in by_text)


@pytest.mark.cluster
def test_a_job_tells_its_end_and_mlflow_has_no_address(
    hook: Callable[..., Hook], tiny_job: Callable[..., TrainJob], tmp_path: Path, store: str
) -> None:
    server = hook()
    job = tiny_job(f"notify.url={server.url}", "evaluation=null", "registry=null")
    result = run_job(job)
    for thread in threading.enumerate():
        if thread.name == "lwddpm-notify":
            thread.join(20)
    assert [told["state"] for told in server.told] == ["finished"]
    assert server.told[0]["run_id"] == result["run_id"]
    client: MlflowClient = connect(store)
    run = client.get_run(result["run_id"])
    assert TOKEN not in str(run.data.to_dictionary())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_the_process_ends_when_the_webhook_was_told(hook: Callable[..., Hook], tmp_path: Path) -> None:
    """A job that cannot even begin tells so, although its process ends at once."""
    server = hook()
    command = [sys.executable, "-m", "lwddpm", "run", "kaggle_small", "--set", "data.source=/no/such/folder"]
    environment = clean_environment() | {notify.VARIABLE: server.url}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert TOKEN not in ended.stderr
    assert [told["state"] for told in server.told] == ["failed"]
