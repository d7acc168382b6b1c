"""The Ray cluster for interactive work, and jobs with a cluster of their own (KubeRay)."""

import json
import re
import shlex
from typing import Any

import yaml
from parts import (
    FOLDERS,
    MLFLOW,
    POSTGRESQL,
    STORAGE,
    USER_ID,
    Manifest,
    Values,
    container_security,
    manifest,
    pod,
    resources,
    secret_env,
)

_LONGEST_NAME = 47  # KubeRay's limit: it makes other names from a RayJob's


def ray_cluster(values: Values, ray_version: str) -> Manifest:
    """A cluster that stays, for interactive work and several jobs at a time."""
    config = values["cluster"]
    gpus = (config["min_gpu_workers"], config["max_gpu_workers"])
    spec = cluster_spec(values, ray_version, min_cpu_workers=config["min_cpu_workers"], gpu_workers=gpus)
    return manifest("ray.io/v1", "RayCluster", values, "lwddpm", spec=spec)


def ray_job(name: str, values: Values, ray_version: str) -> Manifest:
    """A job with a cluster of its own: of the size it needs, gone when the job ends.

    Raises:
        ValueError: KubeRay or Kubernetes would refuse the name.
    """
    full_name = f"lwddpm-{name}"
    if len(full_name) > _LONGEST_NAME or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        raise ValueError(
            f"values.yaml: jobs: a name must have lower-case letters, digits and inner hyphens, at most "
            f"{_LONGEST_NAME - len('lwddpm-')} of them, got {name!r} ({len(name)}); rename the job"
        )
    job, limits = values["jobs"][name], values["job_limits"]
    pods = -(-job["gpus"] // values["gpu_workers"]["gpus"])
    spec = {
        "entrypoint": entrypoint(job, values),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": limits["keep_cluster_s"],
        "backoffLimit": limits["retries"],
        "submitterConfig": {"backoffLimit": 2},
        "submitterPodTemplate": submitter(values),
        "rayClusterSpec": cluster_spec(values, ray_version, min_cpu_workers=0, gpu_workers=(pods, pods)),
    }
    return manifest("ray.io/v1", "RayJob", values, full_name, spec=spec)


def overrides(job: Manifest, values: Values) -> list[str]:
    """The `--set` arguments of a job, unquoted: what it says itself, and the workers that its cluster has room for."""
    share = values["gpu_workers"]["cpu"] // values["gpu_workers"]["gpus"]
    workers = {"workers.count": job["workers"], "workers.use_gpu": True, "workers.cpus_per_worker": share}
    return [f"{key}={_as_override(value)}" for key, value in (job["set"] | workers).items()]


def _as_override(value: Any) -> str:
    """A value as `--set` reads it, which is as YAML; text that YAML would take for something else is in quotes."""
    if isinstance(value, str):
        return value if _read_back(value) == value else json.dumps(value)
    flow: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return flow.removesuffix("...\n").strip()


def _read_back(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None


def entrypoint(job: Manifest, values: Values) -> str:
    """The command of the driver, quoted for a shell: two read it one after the other, the submitter's and the head's,
    and Ray quotes it again in between.
    """
    sets = [word for override in overrides(job, values) for word in ("--set", override)]
    storage = values["storage"]["path"]
    run = ["python", "-m", "lwddpm", "run", job["file"], "--address", "auto", "--directory", storage, *sets]
    return shlex.join(run)


def cluster_spec(values: Values, ray_version: str, *, min_cpu_workers: int, gpu_workers: tuple[int, int]) -> Manifest:
    cpu, gpu = values["cpu_workers"], values["gpu_workers"]
    fewest, most = gpu_workers
    head = {
        "rayStartParams": {"num-cpus": "0"},  # no tasks or actors here: losing the head loses the job
        "template": ray_pod("ray-head", values, values["head"], head=True),
    }
    return {
        "rayVersion": ray_version,
        "authOptions": {"mode": "token"},  # the operator makes the token, a Secret of the cluster's name
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": values["cluster"]["idle_timeout_s"],
            "securityContext": container_security(),
            "resources": resources("500m", "1Gi"),
        },
        "headGroupSpec": head,
        "workerGroupSpecs": [
            group("cpu", (min_cpu_workers, cpu["max"]), ray_pod("ray-worker", values, cpu)),
            group("gpu", (fewest, most), ray_pod("ray-worker", values, gpu)),
        ],
    }


def group(name: str, replicas: tuple[int, int], template: Manifest) -> Manifest:
    fewest, most = replicas
    return {
        "groupName": name,
        "replicas": fewest,
        "minReplicas": fewest,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": template,
    }


def ray_pod(name: str, values: Values, config: Manifest, *, head: bool = False) -> Manifest:
    """A Ray node. It reaches the shared storage, and MLflow with the password of the Secret."""
    storage = values["storage"]["path"]
    limits = resources(config["cpu"], config["memory"])
    env = [
        {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"},
        secret_env("MLFLOW_TRACKING_USERNAME", MLFLOW, "username"),
        secret_env("MLFLOW_TRACKING_PASSWORD", MLFLOW, "password"),
        {"name": "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "value": "false"},
        {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        {"name": "LWDDPM_CACHE", "value": "/cache"},
        {"name": "LWDDPM_STORAGE", "value": storage},  # where relative paths of submitted jobs start
        {"name": "TORCH_HOME", "value": f"{storage}/torch"},  # weights of the metrics, put there once
    ]
    if head:
        env += [
            secret_env("PGPASSWORD", POSTGRESQL, "password"),  # of a search's storage
            {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "120"},  # to save a checkpoint; Ray gives a job 3 seconds
        ]
    mounts = [{"name": "shared", "mountPath": storage}, {"name": "cache", "mountPath": "/cache"}]
    container = {
        "name": name,
        "image": values["image"],
        "env": env,
        "resources": limits,
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    volumes = [
        {"name": "shared", "persistentVolumeClaim": {"claimName": STORAGE}},
        {"name": "cache", "emptyDir": {"sizeLimit": values["cache"]}},
    ]
    template = pod(container, {"app.kubernetes.io/name": "lwddpm"}, volumes, user=USER_ID)
    spec = template["spec"]
    if head:
        container["ports"] = [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
        ]
        del spec["automountServiceAccountToken"]  # the autoscaler asks the API server for pods
        spec["initContainers"] = [folders(values)]
    if gpus := config.get("gpus"):
        limits["limits"][config["resource"]] = limits["requests"][config["resource"]] = gpus
        spec["tolerations"] = [{"key": config["resource"], "operator": "Exists", "effect": "NoSchedule"}]
        if config["node_selector"]:
            spec["nodeSelector"] = config["node_selector"]
    return template


def folders(values: Values) -> Manifest:
    """Creates the folders of the shared storage before anything looks for them."""
    storage = values["storage"]["path"]
    return {
        "name": "folders",
        "image": values["image"],
        "command": ["mkdir", "--parents", *(f"{storage}/{folder}" for folder in FOLDERS)],
        "resources": resources("100m", "64Mi"),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "shared", "mountPath": storage}],
    }


def submitter(values: Values) -> Manifest:
    """The pod that hands the job to the cluster and follows its log; the operator fills in the command."""
    container = {
        "name": "submitter",
        "image": values["image"],
        "resources": resources("500m", "1Gi"),
        "securityContext": container_security(),
    }
    template = pod(container, {"app.kubernetes.io/name": "lwddpm-submitter"}, [], user=USER_ID)
    template["spec"]["restartPolicy"] = "Never"
    return template
