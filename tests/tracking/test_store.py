import shlex
import shutil
import socket
from pathlib import Path

import pytest

from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError
from lwddpm.tracking.store import check_tracking, connect, open_experiment, tracking_uri


def test_the_default_is_sqlite_here_with_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri() == "http://tracking:5000"
    assert tracking_uri(TrackingConfig(uri="sqlite:///other.db")) == f"sqlite:///{tmp_path}/other.db"


def test_a_server_that_answers_passes_and_a_silent_one_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert check_tracking(TrackingConfig(uri=uri)) == uri
    with pytest.raises(ConfigError, match=r"tracking\.uri: .* does not answer .*start it"):
        check_tracking(TrackingConfig(uri=uri))


@pytest.mark.parametrize("uri", ["sqlite:////no/such/folder/mlflow.db", "ftp://host/x", "mlflow.db"])
def test_an_unusable_store_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        check_tracking(TrackingConfig(uri=uri))


@pytest.fixture
def store_here(empty_store: Path, tmp_path: Path) -> Path:
    """A folder with a store in it."""
    (tmp_path / "here").mkdir()
    shutil.copy(empty_store, tmp_path / "here" / "mlflow.db")
    return tmp_path / "here"


def test_a_deleted_experiment_is_said_with_the_command_that_brings_it_back(store_here: Path) -> None:
    uri = f"sqlite:///{store_here}/mlflow.db"
    client = connect(uri)
    experiment_id = open_experiment(client, uri, "tumours")
    assert open_experiment(client, uri, "tumours") == experiment_id
    client.delete_experiment(experiment_id)
    with pytest.raises(ConfigError, match=r"tumours was deleted in MLflow; .* restore --experiment-id") as refused:
        open_experiment(client, uri, "tumours")
    assert "\n" not in str(refused.value)
    assert "SQL" not in str(refused.value)
    client.restore_experiment(experiment_id)
    assert open_experiment(client, uri, "tumours") == experiment_id


@pytest.mark.parametrize("copied", [False, True])
def test_a_store_that_was_moved_writes_nothing_where_it_was(store_here: Path, tmp_path: Path, copied: bool) -> None:
    uri = f"sqlite:///{store_here}/mlflow.db"
    client = connect(uri)
    run = client.create_run(open_experiment(client, uri, "tumours"))
    client.log_text(run.info.run_id, "x", "job.yaml")
    elsewhere = tmp_path / "my scans" / "there"
    shutil.copytree(store_here, elsewhere) if copied else (elsewhere.parent.mkdir(), store_here.rename(elsewhere))
    moved_uri = f"sqlite:///{elsewhere}/mlflow.db"
    client = connect(moved_uri)
    with pytest.raises(ConfigError, match=r"tumours keeps its artifacts in .*; the store was moved.*ln -s") as refused:
        open_experiment(client, moved_uri, "tumours")
    assert store_here.exists() == copied
    if not copied:  # the remedy, as it is said
        remedy = shlex.split(str(refused.value).partition("ln -s ")[2])
        assert remedy == [str(elsewhere / "mlruns" / "tumours"), str(store_here / "mlruns" / "tumours")]
        Path(remedy[1]).parent.mkdir(parents=True)
        Path(remedy[1]).symlink_to(remedy[0])
        open_experiment(client, moved_uri, "tumours")


def test_an_experiment_that_somebody_keeps_elsewhere_is_left_there(store_here: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{store_here}/mlflow.db"
    client = connect(uri)
    made = client.create_experiment("elsewhere", str(tmp_path / "artifacts"))
    assert open_experiment(client, uri, "elsewhere") == made
    run = client.create_run(made)
    client.log_text(run.info.run_id, "x", "job.yaml")
    assert open_experiment(client, uri, "elsewhere") == made
