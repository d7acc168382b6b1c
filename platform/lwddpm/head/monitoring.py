"""Prometheus and Grafana beside a head: which are installed, and how to start them as its children.

Nothing is downloaded and nothing is written outside the head's state folder. Both listen on this machine only.
"""

import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from lwddpm.files import write_private, write_whole
from lwddpm.jobfile import shipped

PROMETHEUS_PORT, GRAFANA_PORT = 9090, 3000
_RETENTION = "30d"
_DISCOVERY = "prom_metrics_service_discovery.json"  # Ray's list of nodes, in its session folder
_REMEDIES = {
    "prometheus": "Prometheus is not installed (apt-get install prometheus, brew install prometheus, or "
    "https://prometheus.io/download): no dashboards, jobs run all the same",
    "grafana": "Grafana is not installed (https://grafana.com/grafana/download): "
    "the metrics can be queried in Prometheus meanwhile",
}


@dataclass(frozen=True)
class Program:
    """A process to start.

    Attributes:
        env: to be added to the environment.
        url: where it answers once started.
        note: for the person who started it, such as how to log in.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    url: str
    note: str = ""


def find_monitoring() -> dict[str, Path | None]:
    """The executables of `prometheus` and `grafana`, None where not installed."""
    grafana = shutil.which("grafana") or shutil.which("grafana-server")
    if grafana is not None and _grafana_home(Path(grafana)) is None:
        grafana = None  # not the server, or without its files
    prometheus = shutil.which("prometheus")
    return {
        "prometheus": Path(prometheus) if prometheus else None,
        "grafana": Path(grafana) if grafana else None,
    }


def missing_monitoring() -> list[str]:
    """One line for each that is not installed: what is missed and how to get it."""
    return [_REMEDIES[name] for name, path in find_monitoring().items() if path is None]


def monitoring_commands(
    state: Path, session_dir: Path, prometheus_port: int = PROMETHEUS_PORT, grafana_port: int = GRAFANA_PORT
) -> list[Program]:
    """What to start for a head, as far as it is installed; writes the configuration into `state`.

    Args:
        state: folder of the head; time series, Grafana's database and its password are kept there.
        session_dir: of the running Ray head, such as /tmp/ray/session_latest.
        prometheus_port, grafana_port: the next free one is taken where another program listens.
    """
    installed = find_monitoring()
    programs = []
    url = f"http://127.0.0.1:{_free_port(prometheus_port)}"
    if installed["prometheus"] is not None:
        programs.append(_prometheus(installed["prometheus"], state / "prometheus", session_dir, url))
        if installed["grafana"] is not None:
            port = _free_port(grafana_port)
            programs.append(_grafana(installed["grafana"], state / "grafana", session_dir, url, port))
    return programs


def _prometheus(executable: Path, state: Path, session_dir: Path, url: str) -> Program:
    state.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((shipped("dashboards") / "prometheus" / "prometheus.yml").read_text())
    discovery = config["scrape_configs"][0]["file_sd_configs"][0]
    discovery["files"] = [str(session_dir.absolute() / _DISCOVERY)]
    write_whole(state / "prometheus.yml", yaml.safe_dump(config, sort_keys=False))
    arguments = (
        f"--config.file={state / 'prometheus.yml'}",
        f"--storage.tsdb.path={state / 'data'}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--log.level=warn",
    )
    return Program("prometheus", (str(executable), *arguments), {}, url)


def _grafana(executable: Path, state: Path, session_dir: Path, prometheus_url: str, port: int) -> Program:
    state.mkdir(parents=True, exist_ok=True)
    password = state / "admin_password"
    if not password.exists():
        write_private(password, secrets.token_urlsafe(16))
    folder = shipped("dashboards") / "grafana"
    subcommand = () if executable.name == "grafana-server" else ("server",)
    argv = (str(executable), *subcommand, "--homepath", str(_grafana_home(executable)))
    env = {
        "LWDDPM_GRAFANA": str(folder),
        "LWDDPM_GRAFANA_STATE": str(state.absolute()),
        "LWDDPM_GRAFANA_PASSWORD": f"$__file{{{password.absolute()}}}",  # Grafana reads the file: not in `ps e`
        "LWDDPM_PROMETHEUS_URL": prometheus_url,
        "LWDDPM_RAY_SESSION": str(session_dir.absolute()),
        "GF_SERVER_HTTP_PORT": str(port),
    }
    note = f"user admin, password in {password}"
    argv = (*argv, "--config", str(folder / "grafana.ini"))
    return Program("grafana", argv, env, f"http://127.0.0.1:{port}", note)


def _grafana_home(executable: Path) -> Path | None:
    """The folder with Grafana's defaults and web pages: that of a package, of an archive or of Homebrew."""
    beside = executable.resolve().parents[1]
    for home in (beside, beside / "share" / "grafana", Path("/usr/share/grafana")):
        if (home / "conf" / "defaults.ini").exists():
            return home
    return None


def _free_port(wanted: int) -> int:
    """The wanted port of this machine, or the next that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {wanted} and {wanted + 99}")
