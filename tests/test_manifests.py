"""The Kubernetes manifests, the container recipe and the cluster file: what can be known without a cluster."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from lwddpm import __version__
from lwddpm.config import EvaluateJob, SearchJob, TrainJob
from lwddpm.config.keys import known_keys
from lwddpm.jobfile import load_job

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "jobs" / "kubernetes"
SCHEMAS = ROOT.parent / "shared" / "schemas"  # of KubeRay 1.7: ray.io_rayclusters.yaml, ray.io_rayjobs.yaml
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
NOT_MANIFESTS = {"values.yaml"}
PODS = {"Deployment": 1, "StatefulSet": 1, "RayCluster": 3, "RayJob": 4}  # pod templates in each
Manifest = dict[str, Any]

needs_schemas = pytest.mark.skipif(
    not (SCHEMAS / "ray.io_rayjobs.yaml").exists(), reason=f"KubeRay's published schemas are not at hand in {SCHEMAS}"
)


sys.path.insert(0, str(FOLDER))  # the renderer is a script; its modules lie beside it
import parts  # noqa: E402
import render  # noqa: E402


def _load(text: str) -> list[Manifest]:
    return [part for part in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if part]


FILES = {path.name: _load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml")) if path.name not in NOT_MANIFESTS}
MANIFESTS = [manifest for parts in FILES.values() for manifest in parts]
RAY_JOBS = {name: FILES[f"rayjob-{name}.yaml"][0] for name in VALUES["jobs"]}


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _walk(inner, f"{path}.{key}")


def _pods(manifest: Manifest) -> list[Manifest]:
    """Every pod template of a manifest, wherever it is."""
    return [value for _, value in _walk(manifest) if isinstance(value, dict) and "containers" in value.get("spec", {})]


def _containers(manifest: Manifest) -> list[Manifest]:
    specs = [pod["spec"] for pod in _pods(manifest)]
    return [container for spec in specs for container in [*spec.get("initContainers", []), *spec["containers"]]]


def _named(kind: str) -> set[str]:
    return {manifest["metadata"]["name"] for manifest in MANIFESTS if manifest["kind"] == kind}


# --- one source of truth


def test_the_committed_manifests_are_what_the_values_render_to() -> None:
    rendered = render.current()
    assert set(rendered) == set(FILES)
    for name, text in rendered.items():
        assert (FOLDER / name).read_text() == text, f"{name}: run python jobs/kubernetes/render.py"


def test_values_reach_the_manifests() -> None:
    changed = yaml.safe_load((FOLDER / "values.yaml").read_text())
    changed |= {"namespace": "elsewhere", "image": "other:1"}
    changed["storage"] |= {"class": "nfs", "size": "1Ti"}
    changed["gpu_workers"] |= {"gpus": 2, "resource": "amd.com/gpu", "node_selector": {"gpu": "big"}}
    text = render.render(changed, "2.60.0")
    assert "namespace: lwddpm\n" not in "".join(text.values())
    assert "lwddpm:0.1.0" not in "".join(text.values())
    assert "nvidia.com" not in "".join(text.values())
    (claim,) = (part for part in _load(text["base.yaml"]) if part["kind"] == "PersistentVolumeClaim")
    assert (claim["spec"]["storageClassName"], claim["spec"]["resources"]["requests"]["storage"]) == ("nfs", "1Ti")
    (job,) = _load(text["rayjob-train.yaml"])
    gpu = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    assert gpu["replicas"] == 2  # 4 GPUs, 2 a pod
    assert gpu["template"]["spec"]["nodeSelector"] == {"gpu": "big"}
    assert "workers.cpus_per_worker=4" in job["spec"]["entrypoint"]


# --- required fields and cross-references


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_every_manifest_is_named_and_in_the_namespace(manifest: Manifest) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    assert len(manifest["metadata"]["name"]) <= 47  # KubeRay's limit for a RayJob
    if manifest["kind"] != "Namespace":
        assert manifest["metadata"]["namespace"] == VALUES["namespace"]
    assert len(_pods(manifest)) == PODS.get(manifest["kind"], 0)


def test_names_are_unique() -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in MANIFESTS]
    assert len(names) == len(set(names))


def test_there_is_one_image_of_the_platform_in_its_version() -> None:
    others = {VALUES["postgresql"]["image"], VALUES["s3"]["image"]}
    found = {container["image"] for manifest in MANIFESTS for container in _containers(manifest)}
    assert found == {VALUES["image"], *others}
    assert VALUES["image"].endswith(f":{__version__}")
    assert all(":" in image and not image.endswith(":latest") for image in found)


def test_every_secret_is_one_that_the_user_makes_and_the_documents_say_how() -> None:
    used: dict[str, set[str]] = {}
    for _, value in (found for manifest in MANIFESTS for found in _walk(manifest)):
        if isinstance(value, dict) and isinstance(reference := value.get("secretKeyRef"), dict):
            used.setdefault(reference["name"], set()).add(reference["key"])
        if isinstance(value, dict) and isinstance(volume := value.get("secret"), dict):
            used.setdefault(volume["secretName"], set())
    assert set(used) == set(parts.SECRETS)
    guide = (ROOT / "docs" / "cluster.md").read_text()
    for name, keys in parts.SECRETS.items():
        assert used[name] <= set(keys)
        (command,) = re.findall(rf"create secret generic {name} (.*?)(?:\n\n|\n```|\nkubectl)", guide, re.DOTALL)
        assert set(re.findall(r"--from-literal=([a-z-]+)=", command)) == set(keys), name


def test_every_volume_claim_config_map_and_service_exists() -> None:
    services = _named("Service")
    for manifest in MANIFESTS:
        for pod in _pods(manifest):
            volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
            own = {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
            for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
                mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
                assert mounted <= set(volumes) | own, container["name"]
            for volume in volumes.values():
                if claim := volume.get("persistentVolumeClaim"):
                    assert claim["claimName"] in _named("PersistentVolumeClaim")
                if config := volume.get("configMap"):
                    assert config["name"] in _named("ConfigMap")
            assert "serviceAccountName" not in pod["spec"]  # the operator makes the head's
        if manifest["kind"] == "StatefulSet":
            assert manifest["spec"]["serviceName"] in services
    text = "".join((FOLDER / name).read_text() for name in FILES)
    hosts = set(re.findall(r"(?:http://|@)([a-z][a-z0-9-]*):\d+", text))
    assert {"mlflow", "postgresql", "seaweedfs"} == hosts
    assert hosts <= services


def test_labels_match_selectors_and_ports_match_services() -> None:
    workloads = [manifest for manifest in MANIFESTS if manifest["kind"] in ("Deployment", "StatefulSet")]
    for workload in workloads:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in (manifest for manifest in MANIFESTS if manifest["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        (target,) = (w for w in workloads if selector <= w["spec"]["template"]["metadata"]["labels"].items())
        open_ports = {port["containerPort"] for container in _containers(target) for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports


def test_databases_that_are_named_are_created() -> None:
    text = "".join((FOLDER / name).read_text() for name in FILES)
    created = set(re.findall(r"CREATE DATABASE (\w+);", text)) | {parts.DATABASES[0]}
    assert set(re.findall(r"@postgresql:5432/(\w+)", text)) == created


def test_every_setting_that_the_guide_names_exists() -> None:
    values = {f"{name}.{key}" for name, inner in VALUES.items() if isinstance(inner, dict) for key in inner}
    known = {*known_keys(SearchJob), *values}
    sections = {key.partition(".")[0] for key in known if "." in key}
    named = set(re.findall(r"`([a-z0-9_]+\.[a-z0-9_]+)[`=]", (ROOT / "docs" / "cluster.md").read_text()))
    settings = {name for name in named if name.partition(".")[0] in sections} - {"mlflow.db"}
    assert {"workers.use_gpu", "search.storage", "cluster.min_gpu_workers", "s3.endpoint"} <= settings
    assert settings <= known, settings - known


# --- secrets and security


def test_no_manifest_holds_a_secret() -> None:
    for name in [*FILES, "values.yaml"]:
        assert not re.search(r"://[^/\s:@]+:[^@\s]+@", (FOLDER / name).read_text()), f"{name}: a password in a URI"
    for manifest in MANIFESTS:
        assert manifest["kind"] != "Secret"
        assert "runtimeEnvYAML" not in manifest.get("spec", {})  # anyone who reads a job reads its runtime_env
        for container in _containers(manifest):
            for variable in container.get("env", []):
                if re.search(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|USERNAME", variable["name"]):
                    given = variable.get("value", "")
                    assert given == "" or variable["name"].endswith("_FILE"), variable["name"]
            assert not re.search(r"password|token|secret", " ".join(container.get("args", [])), re.IGNORECASE)


def test_no_pod_has_rights_that_it_does_not_need() -> None:
    for manifest in MANIFESTS:
        for pod in _pods(manifest):
            security = pod["spec"]["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["runAsUser"] > 0
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            head = pod["spec"]["containers"][0]["name"] == "ray-head"
            assert pod["spec"].get("automountServiceAccountToken", True) is head  # its autoscaler asks for pods
        for container in _containers(manifest):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_tracking_server_is_closed() -> None:
    (server,) = (m for m in MANIFESTS if m["kind"] == "Deployment")
    (container,) = _containers(server)
    settings = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert settings["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert "--app-name=basic-auth" in container["args"]
    (hosts,) = (arg for arg in container["args"] if arg.startswith("--allowed-hosts="))
    assert "*" not in hosts.partition("=")[2].split(",")
    assert {"mlflow", "mlflow:*"} <= set(hosts.partition("=")[2].split(","))
    options = subprocess.run([sys.executable, "-m", "mlflow", "server", "--help"], capture_output=True, text=True)
    for argument in container["args"]:
        assert argument.partition("=")[0] in options.stdout, argument


def test_only_the_namespace_and_the_operator_reach_ray() -> None:
    policies = [m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"]
    (everywhere,) = (policy for policy in policies if policy["podSelector"] == {})
    assert everywhere["policyTypes"] == ["Ingress"]
    assert everywhere["ingress"] == [{"from": [{"podSelector": {}}]}]  # of this namespace: no namespaceSelector
    (exception,) = (policy for policy in policies if policy["podSelector"] != {})
    (rule,) = exception["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": VALUES["kuberay_namespace"]
    }


# --- Ray


def _clusters() -> list[Manifest]:
    specs = [manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "RayCluster"]
    return specs + [job["spec"]["rayClusterSpec"] for job in RAY_JOBS.values()]


def test_every_cluster_has_token_auth_an_idle_head_and_grows() -> None:
    pinned = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for spec in _clusters():
        assert spec["authOptions"] == {"mode": "token"}
        assert [spec["rayVersion"]] == pinned  # KubeRay wants it for token auth, and it is the image's
        assert spec["enableInTreeAutoscaling"] is True
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert {group["groupName"] for group in spec["workerGroupSpecs"]} == {"cpu", "gpu"}
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert (VALUES["gpu_workers"]["resource"] in limits) == (group["groupName"] == "gpu")
        mounts = [{mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]} for pod in _pods(spec)]
        assert all({VALUES["storage"]["path"], "/cache"} <= paths for paths in mounts)


@pytest.mark.parametrize("name", RAY_JOBS)
def test_a_ray_job_ends_its_cluster_and_is_tried_again(name: str) -> None:
    spec = RAY_JOBS[name]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    assert spec["submitterConfig"]["backoffLimit"] > 0
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(("name", "kind"), [("train", TrainJob), ("search", SearchJob), ("evaluate", EvaluateJob)])
def test_a_ray_job_runs_a_shipped_job_file_that_fits_its_cluster(name: str, kind: type) -> None:
    spec, value = RAY_JOBS[name]["spec"], VALUES["jobs"][name]
    words = shlex.split(spec["entrypoint"])
    command = words[words.index("python") :]
    assert command[:4] == ["python", "-m", "lwddpm", "run"]
    assert command[4] == value["file"]
    assert (ROOT / command[4]).is_file()
    assert command[5:7] == ["--address", "auto"]
    assert command[7:9] == ["--directory", VALUES["storage"]["path"]]
    assert set(command[9::2]) == {"--set"}
    job = load_job(str(ROOT / command[4]), command[10::2])
    assert isinstance(job, kind)
    assert job.workers.use_gpu is True  # auto would train on CPUs where GPUs are missing
    gpu = spec["rayClusterSpec"]["workerGroupSpecs"][1]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_pod = limits[VALUES["gpu_workers"]["resource"]]
    assert gpu["replicas"] * per_pod >= value["gpus"] >= job.workers.count
    assert job.workers.cpus_per_worker * per_pod <= limits["cpu"]  # a worker must fit beside its GPU
    shared = VALUES["storage"]["path"]
    assert job.data.source.startswith(shared)
    assert str(job.data.path).startswith(shared)
    if not isinstance(job, EvaluateJob):
        assert job.output.startswith(shared)


def _words(command: str) -> list[str]:
    """What a shell makes of a command: its words."""
    shell = ["sh", "-c", f"printf '%s\\0' {command}"]
    return subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.source", '/mnt/lwddpm/My Scans (2024)/it\'s $HOME `id` & "more"; *'),
        ("data.source", "/mnt/lwddpm/scans # 1: first"),
        ("data.subject_pattern", r"(sub-[0-9]+)/|patient_(\d+)"),
        ("data.splits", [0.7, 0.15, 0.15]),
        ("training.snapshot_epochs", []),
        ("training.keep_checkpoints", 4),
        ("training.lr", 1e-5),
        ("tracking.uri", None),
        ("name", "null"),
        ("name", "2024-01-01"),
        ("name", "1e5"),
        ("offline", True),
    ],
)
def test_a_rendered_command_gives_a_shell_the_job_that_was_meant(key: str, value: Any) -> None:
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    values["jobs"]["train"]["set"][key] = value
    values["storage"]["path"] = "/mnt/my storage (1)"
    (manifest,) = _load(render.render(values, "2.60.0")["rayjob-train.yaml"])
    words = _words(manifest["spec"]["entrypoint"])
    assert _words(shlex.join(words)) == words  # `ray job submit` quotes once more, for the head's shell
    assert words[:8] == ["python", "-m", "lwddpm", "run", "jobs/paper.yaml", "--address", "auto", "--directory"]
    assert words[8] == "/mnt/my storage (1)"
    assert set(words[9::2]) == {"--set"}
    job = load_job(str(ROOT / words[4]), words[10::2])
    given: Any = job.model_dump(mode="json")
    for part in key.split("."):
        given = given[part]
    assert given == value


@pytest.mark.parametrize("name", ["my_job", "Train", "-x", "x" * 41, "train.2", ""])
def test_a_name_that_kubernetes_would_refuse_is_said(name: str) -> None:
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    values["jobs"][name] = values["jobs"]["train"]
    with pytest.raises(ValueError, match=r"jobs: a name must have .* at most 40 .* rename the job"):
        render.render(values, "2.60.0")
    values["jobs"] = {"x" * 40: values["jobs"]["train"]}
    assert f"rayjob-{'x' * 40}.yaml" in render.render(values, "2.60.0")


# --- KubeRay's published schemas


def _strict(schema: Any) -> Any:
    """A structural schema of Kubernetes as JSON Schema in which an unknown field is an error, as `prune` is silent."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    closed = not schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and closed:
        strict.setdefault("additionalProperties", False)
    return strict


def _published(plural: str) -> Manifest:
    (definition,) = _load((SCHEMAS / f"ray.io_{plural}.yaml").read_text())
    (version,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
    found: Manifest = _strict(version["schema"]["openAPIV3Schema"])
    return found


@pytest.fixture(scope="module")
def schemas() -> dict[str, Manifest]:
    return {"RayCluster": _published("rayclusters"), "RayJob": _published("rayjobs")}


def _errors(value: Any, schema: Manifest) -> list[str]:
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(value)
    ]


@needs_schemas
def test_ray_objects_are_what_kuberay_publishes(schemas: dict[str, Manifest]) -> None:
    found = [manifest for manifest in MANIFESTS if manifest["kind"] in schemas]
    assert len(found) == 4
    for manifest in found:
        assert _errors(manifest, schemas[manifest["kind"]]) == []


@needs_schemas
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.rayClusterSpec.authOption", {"mode": "token"}),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.container", []),
        ("spec.submitterConfig.backOffLimit", 2),
        ("spec.ttlSecondsAfterFinished", "600"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.securityContext.runAsNonRoot", "yes"),
    ],
)
def test_the_schemas_find_a_wrong_field(schemas: dict[str, Manifest], path: str, value: Any) -> None:
    broken = json.loads(json.dumps(RAY_JOBS["train"]))
    *parents, last = path.split(".")
    inner = broken
    for part in parents:
        inner = inner[part]
    inner[last] = value
    assert len(_errors(broken, schemas["RayJob"])) == 1


@needs_schemas
def test_parts_of_other_objects_are_what_kubernetes_knows(schemas: dict[str, Manifest]) -> None:
    """KubeRay's schemas hold those of pods, services, claims and policy rules."""
    cluster = schemas["RayCluster"]["properties"]["spec"]["properties"]
    head = cluster["headGroupSpec"]["properties"]
    pod = head["template"]["properties"]["spec"]
    volume = pod["properties"]["volumes"]["items"]["properties"]
    claim = volume["ephemeral"]["properties"]["volumeClaimTemplate"]["properties"]["spec"]
    rules = cluster["networkPolicy"]["properties"]["head"]["properties"]["ingressRules"]
    checked = 0
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        parts = {
            "Deployment": lambda spec: [(spec["template"]["spec"], pod)],
            "StatefulSet": lambda spec: [
                (spec["template"]["spec"], pod),
                *((template["spec"], claim) for template in spec["volumeClaimTemplates"]),
            ],
            "Service": lambda spec: [(spec, head["headService"]["properties"]["spec"])],
            "PersistentVolumeClaim": lambda spec: [(spec, claim)],
            "NetworkPolicy": lambda spec: [(spec["ingress"], rules)],
        }.get(manifest["kind"], lambda _: [])
        for value, schema in parts(spec):
            assert _errors(value, schema) == [], manifest["metadata"]["name"]
            checked += 1
    assert checked == 11


# --- the container recipe and the cluster file


def test_the_container_recipe_copies_what_is_there_and_what_its_context_lets_in() -> None:
    recipe = (ROOT / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", recipe, re.MULTILINE) for word in line.split()[:-1]}
    assert {"constraints.txt", "pyproject.toml", "platform", "jobs", "search_spaces"} <= copied
    context = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in context
    assert {line.removeprefix("!") for line in context if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists(), name
    stages = re.findall(r"^FROM \S+(?: AS (\w+))?$", recipe, re.MULTILINE)
    assert set(re.findall(r"--from=(\w+)", recipe)) <= set(stages)


def test_the_container_recipe_is_pinned_and_does_not_run_as_root() -> None:
    recipe = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install (.*?)(?= &&|;;|\n)", recipe)
    assert len(installs) == 4
    assert all("--constraint constraints.txt" in line or "--no-deps" in line for line in installs)
    (user,) = re.findall(r"^USER (\d+):\d+$", recipe, re.MULTILINE)
    assert int(user) == parts.USER_ID
    assert recipe.index("\nUSER ") < recipe.index("\nENTRYPOINT ")


def test_the_cluster_file_is_what_ray_up_reads() -> None:
    config = yaml.safe_load((ROOT / "jobs" / "ray_up" / "cluster.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[key][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "ray start" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    options = subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "start", "--help"], capture_output=True)
    for option in re.findall(r" (--[a-z-]+)", " ".join(config["head_start_ray_commands"])):
        assert option in options.stdout.decode(), option
