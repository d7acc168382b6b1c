import socket
from pathlib import Path

import pytest

from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError
from lwddpm.tracking.store import check_tracking, tracking_uri


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
