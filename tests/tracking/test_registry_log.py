"""The log in a real store: appended to by several at once, and looked at after somebody has been in the database."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from lwddpm.errors import ConfigError, JobError
from lwddpm.tracking import registry_log
from lwddpm.tracking.chain import problems
from lwddpm.tracking.store import connect

from ..processes import clean_environment

WRITERS = """
import os, sys
from lwddpm.tracking import registry_log
from lwddpm.tracking.store import connect
parent = os.fork()  # two processes from here on; what both import takes seconds
connect(sys.argv[1])
for number in range(3):
    who = "Ada" if parent else "Ben"
    registry_log.append("m", "promotion", 1, who, {"alias": "champion", "reason": str(number)})
assert not parent or os.wait()[1] == 0
"""


@pytest.fixture
def own(empty_store: Path, tmp_path: Path) -> str:
    """A store of this test alone, whose database may be damaged; one registered model `m` with a version."""
    file = tmp_path / "mlflow.db"
    file.write_bytes(empty_store.read_bytes())
    client = connect(f"sqlite:///{file}")
    client.create_registered_model("m")
    client.create_model_version("m", str(tmp_path))
    return str(file)


@pytest.fixture
def database(own: str) -> Callable[..., None]:
    def run(statement: str, *values: object) -> None:
        with sqlite3.connect(own) as connection:
            assert connection.execute(statement, values).rowcount > 0

    return run


def _found() -> list[str]:
    return problems(registry_log.entries("m"), "m") + registry_log.anchor_problems("m")


def _three() -> None:
    for number in range(3):
        registry_log.append(
            "m", "promotion", 1, "Ada", {"alias": "champion", "reason": f"r{number}", "override": False}
        )


def test_entries_are_kept_in_order_and_anchored_twice(own: str) -> None:
    assert registry_log.of_registered("m") == []
    _three()
    log = registry_log.entries("m")
    assert [entry["data"]["reason"] for entry in log] == ["r0", "r1", "r2"]
    assert _found() == []
    client = MlflowClient()
    for tags in (client.get_registered_model("m").tags, client.get_model_version("m", "1").tags):
        anchor = json.loads(tags[registry_log.HEAD])
        assert (anchor["number"], anchor["hash"]) == (3, log[-1]["hash"])
    with pytest.raises(ConfigError, match="no such registered model"):
        registry_log.append("other", "promotion", None, "Ada", {})


def test_mlflow_itself_lets_nobody_change_an_entry(own: str) -> None:
    _three()
    client = MlflowClient()
    run = client.search_runs([client.get_experiment_by_name(registry_log.EXPERIMENT).experiment_id])[0]
    with pytest.raises(Exception, match="Changing param values is not allowed"):
        client.log_param(run.info.run_id, "00000002", "{}")


def test_several_processes_append_and_nothing_is_lost(own: str) -> None:
    """The first entry, too: each process may find that there is no log yet."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", WRITERS, f"sqlite:///{own}"]
    ended = subprocess.run(command, env=clean_environment(), stderr=subprocess.PIPE, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    log = registry_log.entries("m")
    assert sorted((entry["by"], entry["data"]["reason"]) for entry in log) == [
        (who, str(number)) for who in ("Ada", "Ben") for number in range(3)
    ]
    assert _found() == []


def test_a_changed_entry_is_named_and_nothing_is_added_to_it(own: str, database: Callable[..., None]) -> None:
    _three()
    database("UPDATE params SET value = replace(value, 'r1', 'better') WHERE key = '00000002'")
    assert _found() == ["entry 2 was changed: its content does not have its hash"]
    with pytest.raises(JobError, match="entry 2 was changed"):
        registry_log.append("m", "promotion", 1, "Ada", {})


def test_removed_entries_are_named_in_the_middle_and_at_the_end(own: str, database: Callable[..., None]) -> None:
    _three()
    database("DELETE FROM params WHERE key = '00000003'")
    found = _found()
    assert found == [
        "entry 3 is missing at the end of the log: the tag of the registered model has its hash",
        "entry 3 is missing at the end of the log: the tag of version 1 has its hash",
    ]
    database("DELETE FROM params WHERE key = '00000001'")
    assert _found()[0] == "entry 1 is missing: entry 2 stands in its place"


def test_the_end_is_missed_although_one_of_its_two_anchors_was_turned_back(
    own: str, database: Callable[..., None]
) -> None:
    _three()
    second = registry_log.entries("m")[1]
    database("DELETE FROM params WHERE key = '00000003'")
    anchor = json.dumps({"number": 2, "hash": second["hash"], "run": "x"})
    MlflowClient().set_registered_model_tag("m", registry_log.HEAD, anchor)
    assert _found() == ["entry 3 is missing at the end of the log: the tag of version 1 has its hash"]


def test_reordered_entries_are_named(own: str, database: Callable[..., None]) -> None:
    _three()
    for before, after in (("00000001", "x"), ("00000002", "00000001"), ("x", "00000002")):
        database("UPDATE params SET key = ? WHERE key = ?", after, before)
    found = _found()
    assert any("entry 1 " in problem for problem in found)


def test_a_log_that_is_not_json_any_more_is_told(own: str, database: Callable[..., None]) -> None:
    _three()
    database("UPDATE params SET value = 'gone' WHERE key = '00000002'")
    assert any("entry 2 " in problem for problem in _found())


def test_a_deleted_log_is_missed_and_no_second_one_is_begun(own: str) -> None:
    _three()
    client = MlflowClient()
    run = client.search_runs([client.get_experiment_by_name(registry_log.EXPERIMENT).experiment_id])[0].info.run_id
    client.delete_run(run)
    assert registry_log.anchor_problems("m")[0].startswith("the log is gone: the registered model knows entry 3 of run")
    with pytest.raises(JobError, match="its log is gone"):
        registry_log.append("m", "promotion", 1, "Ada", {})
    client.restore_run(run)
    assert _found() == []


def test_what_is_changed_past_the_log_is_told(own: str) -> None:
    registry_log.append("m", "policy", None, "Ada", {"name": "house", "version": 1, "sha256": "ab", "reason": "r"})
    registry_log.append("m", "override", 1, "Ada", {"alias": "champion", "reason": "r", "approver": "Ben"})
    registry_log.append("m", "promotion", 1, "Ada", {"alias": "champion", "reason": "r", "override": True})
    client = MlflowClient()
    client.set_registered_model_alias("m", "champion", "1")
    assert _found() == []
    client.delete_registered_model_alias("m", "champion")
    assert _found() == ["alias champion: the log moved it to version 1, it is at none"]
    client.set_registered_model_alias("m", "champion", "1")
    client.delete_model_version_tag("m", "1", registry_log.OVERRIDE)
    assert _found() == [f"the tag {registry_log.OVERRIDE} of version 1 was removed"]
    client.set_model_version_tag("m", "1", registry_log.OVERRIDE, "x")
    client.delete_registered_model_tag("m", registry_log.GATE)
    assert _found() == [f"the tag {registry_log.GATE} of the registered model is not the policy of the log"]


def test_an_entry_has_a_size_that_mlflow_keeps(own: str) -> None:
    """MLflow cuts a longer parameter off, silently."""
    with pytest.raises(JobError, match="may have 6000 characters"):
        registry_log.append("m", "promotion", 1, "Ada", {"reason": "x" * 7000})
    with pytest.raises(ConfigError, match="at most 1000 characters"):
        registry_log.check_text("--reason", "x" * 1001)
    with pytest.raises(ConfigError, match="printable"):
        registry_log.check_text("--reason", "two\nlines")
    longest = "漢" * 1000
    registry_log.append("m", "promotion", 1, longest, {"reason": longest, "approver": longest})
    assert registry_log.entries("m")[0]["data"]["reason"] == longest
    assert _found() == []
