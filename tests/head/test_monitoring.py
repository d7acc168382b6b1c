"""Starting Prometheus and Grafana beside a head: what can be known without either."""

import stat
from pathlib import Path

import pytest
import yaml

from lwddpm.head import monitoring


def _install(folder: Path, *names: str) -> None:
    """Executables that do nothing, and what Grafana's server keeps beside its own."""
    (folder / "bin").mkdir()
    for name in names:
        (folder / "bin" / name).write_text("#!/bin/sh\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "conf").mkdir()
    (folder / "conf" / "defaults.ini").write_text("")


def test_what_is_missing_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert monitoring.find_monitoring() == {"prometheus": None, "grafana": None}
    assert [line.split()[0] for line in monitoring.missing_monitoring()] == ["Prometheus", "Grafana"]
    assert monitoring.monitoring_commands(tmp_path / "state", tmp_path / "session") == []
    assert not (tmp_path / "state").exists()


def test_both_are_started_with_configuration_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "prometheus", "grafana")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    state = tmp_path / "state"
    prometheus, grafana = monitoring.monitoring_commands(state, Path("/tmp/ray/session_x"), grafana_port=3210)
    config = yaml.safe_load((state / "prometheus" / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["file_sd_configs"][0]["files"] == [
        "/tmp/ray/session_x/prom_metrics_service_discovery.json"
    ]
    assert prometheus.url.startswith("http://127.0.0.1:9")
    assert f"--web.listen-address={prometheus.url.removeprefix('http://')}" in prometheus.argv
    assert grafana.argv[:4] == (str(tmp_path / "bin" / "grafana"), "server", "--homepath", str(tmp_path))
    assert grafana.env["LWDDPM_PROMETHEUS_URL"] == prometheus.url
    password = state / "grafana" / "admin_password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    first = password.read_text()
    assert len(first) >= 16
    monitoring.monitoring_commands(state, Path("/tmp/ray/session_y"))
    assert password.read_text() == first, "a person has noted it"
    assert first not in str(grafana), "it would show in the list of processes"
