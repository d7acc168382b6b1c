"""The dashboards: what Grafana is given is consistent, and a real Prometheus has data for every panel."""

import configparser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from lwddpm.cluster.exported import COUNTERS, GAUGES, LABELS, PREFIX
from lwddpm.head import monitoring
from lwddpm.search.storage import find_study
from lwddpm.search.trials import records
from lwddpm.tracking.store import connect

from .processes import clean_environment

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "dashboards" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}
RAYS_OWN = {"ray_node_gpus_utilization", "ray_node_gram_used"}
EXPORTED = {
    *(f"{PREFIX}{name}" for name in GAUGES),
    *(f"{PREFIX}{name}_total" for name in COUNTERS),
    *RAYS_OWN,
}


def _build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def _panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def _queries() -> Iterator[tuple[str, str]]:
    for name, dashboard in DASHBOARDS.items():
        for panel in _panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


def test_the_dashboards_are_those_that_the_source_builds() -> None:
    build = _build()
    assert set(build.DASHBOARDS) == set(DASHBOARDS)
    for name, dashboard in DASHBOARDS.items():
        assert build.build(name) == dashboard, f"run dashboards/grafana/build.py: {name}.json is out of date"


def test_every_metric_is_shown_and_every_query_names_an_exported_one() -> None:
    named = {name for _, query in _queries() for name in re.findall(r"\bray_\w+", query)}
    grouped = {f"{PREFIX}{name}" for _, query in _queries() for name in _alternatives(query)}
    assert (named - {PREFIX}) | grouped == EXPORTED


def _alternatives(query: str) -> list[str]:
    """Names behind the prefix in `__name__=~"ray_lwddpm_(a|b)"`."""
    found = re.search(rf'__name__=~"{PREFIX}\(([a-z_|]+)\)"', query)
    return found[1].split("|") if found else []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_consistent(name: str) -> None:
    dashboard = DASHBOARDS[name]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job", "run", "trial"}
    text = json.dumps(dashboard)
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used - {"__all", "__rate_interval", "__range"} <= variables
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in _panels(dashboard):
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
    for a, b in combinations(dashboard["panels"], 2):
        a, b = a["gridPos"], b["gridPos"]
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], "two panels overlap"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])


def test_provisioning_resolves_and_grafana_keeps_to_itself() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    for dashboard in DASHBOARDS.values():
        chosen = next(v for v in dashboard["templating"]["list"] if v["name"] == "datasource")
        assert chosen["current"]["value"] == source["uid"]
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(FOLDER / "grafana.ini")
    assert ini["server"]["http_addr"] == "127.0.0.1"
    assert not any(ini["analytics"].getboolean(key) for key in ini["analytics"])
    assert not ini["auth.anonymous"].getboolean("enabled")
    assert not ini["users"].getboolean("allow_sign_up")
    given = {"LWDDPM_GRAFANA", "LWDDPM_GRAFANA_STATE", "LWDDPM_GRAFANA_PASSWORD", "LWDDPM_PROMETHEUS_URL"}
    asked = set(re.findall(r"\$(?:__env\{)?(LWDDPM_\w+)", (FOLDER / "grafana.ini").read_text()))
    providers = (FOLDER / "provisioning" / "dashboards" / "lwddpm.yaml").read_text()
    asked |= set(re.findall(r"\$(LWDDPM_\w+)", providers)) | set(re.findall(r"\$(LWDDPM_\w+)", source["url"]))
    assert asked == given | {"LWDDPM_RAY_SESSION"}
    for value in ini["security"].values():
        assert "$__file{$" not in value, "Grafana expands nothing within another expansion"


class _Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=20) as response:
            return json.load(response)["data"]

    def series(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        found = self.get("query_range", query=query, start=str(start), end=str(end), step="1")["result"]
        return list(found)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[_Prometheus, Path]]:
    """A running Prometheus that is told of the nodes of a Ray session to come, and the folder of that session."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed here (apt-get install prometheus); CI runs this test")
    temp_dir = Path(tempfile.mkdtemp(prefix="lwddpm-"))  # short: it becomes part of socket names
    programs = monitoring.monitoring_commands(tmp_path / "state", temp_dir / "session_latest", 19090)
    config = tmp_path / "state" / "prometheus" / "prometheus.yml"
    config.write_text(config.read_text().replace("10s", "1s"))  # the jobs of the test last seconds
    with (tmp_path / "prometheus.log").open("w") as log, subprocess.Popen(programs[0].argv, stderr=log) as process:
        yield _Prometheus(programs[0].url), temp_dir
        process.terminate()
    shutil.rmtree(temp_dir, ignore_errors=True)


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_every_panel_has_data_from_real_jobs(
    prometheus: tuple[_Prometheus, Path],
    tiny_overrides: tuple[str, ...],
    tiny_gan_overrides: tuple[str, ...],
    tiny_data: str,
    store: str,
    tmp_path: Path,
) -> None:
    server, temp_dir = prometheus
    storage = f"sqlite:///{tmp_path}/optuna.db"
    (tmp_path / "space.yaml").write_text("training.lr:\n  float: {low: 1.0e-4, high: 1.0e-2, log: true}\n")
    tiny = [*tiny_overrides, f"data.path={tiny_data}", f"output={tmp_path / 'runs'}", f"tracking.uri={store}"]
    tiny += ["training.checkpoint_every_epochs=5"]
    two = ["workers.count=2", "training.max_steps=100", "evaluation=null"]
    train = [*tiny, *two]
    gan = [*tiny, *tiny_gan_overrides, *two, "model.family=lsgan", "name=lsgan"]
    search = [o for o in tiny if "snapshot" not in o]
    search += [f"search.space={tmp_path / 'space.yaml'}", f"search.storage={storage}", "search.num_trials=2"]
    search += ["search.objectives=[val/loss]", "search.max_steps=60", "search.grace_steps=20", "search.finish=none"]
    search += ["training.max_steps=60"]
    evaluate = [o for o in tiny if o.startswith(("data.", "evaluation.", "tracking."))]
    evaluate += ["model_uri=models:/lw-ddpm-demo@candidate"]
    start = time.time()
    jobs = [("demo", gan), ("demo", train), ("search_demo", search), ("evaluate", evaluate)]
    script = str(Path(__file__).parent / "cluster" / "exporting.py")
    driver = subprocess.run(
        [sys.executable, script, str(temp_dir), json.dumps(jobs)],
        env=clean_environment() | {"RAY_metrics_report_interval_ms": "1000"},
        capture_output=True,
        text=True,
        timeout=500,
        cwd=tmp_path,
    )
    assert driver.returncode == 0, driver.stderr
    _, trained, searched, _ = json.loads(driver.stdout.splitlines()[-1])
    end = time.time()

    empty = []
    for panel, query in _queries():
        for variable in ("job", "run", "trial"):
            query = query.replace(f"${variable}", ".*")  # as Grafana does where all are chosen
        query = query.replace("$__rate_interval", "4s").replace("$__range", "10m")
        if not server.series(query, start, end):
            empty.append(f"{panel}: {query}")
    assert not empty, "\n".join(empty)

    found = {
        label: set(server.get(f"label/{label}/values", **{"match[]": f'{{__name__=~"{PREFIX}.+"}}'}))
        for label in LABELS
    }
    assert found["job_name"] == {"demo", "lsgan", "search-demo", "evaluate", "on-a-gpu"}
    assert {"0", "1"} <= found["trial"]
    run_id = trained["run_id"]
    assert run_id[:8] in found["run"]

    history = connect(store).get_metric_history(run_id, "val/loss")
    (exported,) = server.series(f'max by (run) ({PREFIX}val_loss{{run="{run_id[:8]}"}})', start, end)
    assert {float(value) for _, value in exported["values"]} <= {metric.value for metric in history}
    trials = records(find_study(storage, searched["name"]))
    finished = server.series(f'sum(max by (state) ({PREFIX}trials{{state=~"complete|pruned"}}))', start, end)
    assert float(finished[0]["values"][-1][1]) == len(trials) == 2
