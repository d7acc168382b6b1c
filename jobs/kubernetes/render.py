"""Writes the Kubernetes manifests beside this file from `values.yaml`; a test compares.

Plain Python builds plain objects, PyYAML writes them: what several manifests share is written once.
"""

import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
Values = dict[str, Any]
Manifest = dict[str, Any]

# Secrets that the user makes, with their keys (docs/cluster.md has the commands). No manifest holds a secret.
POSTGRESQL = "lwddpm-postgresql"
MLFLOW = "lwddpm-mlflow"
S3 = "lwddpm-s3"
SECRETS = {
    POSTGRESQL: ["password"],
    MLFLOW: ["username", "password", "session-key"],
    S3: ["access-key-id", "secret-access-key"],
}

DATABASE_USER = "lwddpm"
STORAGE = "lwddpm-shared"  # the PersistentVolumeClaim
USER_ID = 1000  # of the image
DATABASES = ("mlflow", "mlflow_auth", "optuna")
FOLDERS = ("source", "datasets", "runs", "tmp", "torch")  # on the shared storage
HEADER = "# Written by jobs/kubernetes/render.py from values.yaml: change those, not this file.\n"


def render(values: Values, ray_version: str) -> dict[str, str]:
    """Content of every manifest by file name."""
    documents = {
        "base.yaml": base(values),
        "seaweedfs.yaml": seaweedfs(values),
        "mlflow.yaml": [*postgresql(values), *mlflow(values)],
        "raycluster.yaml": [ray_cluster(values, ray_version)],
        **{f"rayjob-{name}.yaml": [ray_job(name, values, ray_version)] for name in values["jobs"]},
    }
    return {
        name: HEADER + "---\n".join(yaml.dump(part, Dumper=_Dumper, sort_keys=False, width=120) for part in parts)
        for name, parts in documents.items()
    }


def base(values: Values) -> list[Manifest]:
    """Namespace, shared storage, and who may speak to whom."""
    namespace = manifest("v1", "Namespace", values, values["namespace"])
    del namespace["metadata"]["namespace"]
    namespace["metadata"]["labels"] |= {
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    # Token auth leaves Ray's metrics, node and worker ports open, and traffic is not encrypted: nobody outside the
    # namespace reaches them. The operator alone may ask the head for the state of a job.
    inside = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": values["kuberay_namespace"]}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    state = {
        "podSelector": {"matchLabels": {"ray.io/node-type": "head"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [operator], "ports": [{"protocol": "TCP", "port": 8265}]}],
    }
    storage = values["storage"]
    claim: Manifest = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": storage["size"]}}}
    if storage["class"]:
        claim["storageClassName"] = storage["class"]
    return [
        namespace,
        manifest("v1", "PersistentVolumeClaim", values, STORAGE, spec=claim),
        manifest("networking.k8s.io/v1", "NetworkPolicy", values, "only-this-namespace", spec=inside),
        manifest("networking.k8s.io/v1", "NetworkPolicy", values, "operator-to-ray-head", spec=state),
    ]


def postgresql(values: Values) -> list[Manifest]:
    """The database of MLflow and of the studies."""
    config = values["postgresql"]
    others = "\n".join(f"CREATE DATABASE {name};" for name in DATABASES[1:])
    scripts = manifest("v1", "ConfigMap", values, "postgresql-init", data={"databases.sql": f"{others}\n"})
    check = {"exec": {"command": ["pg_isready", "--username", DATABASE_USER, "--dbname", DATABASES[0]]}}
    container = {
        "name": "postgresql",
        "image": config["image"],
        "env": [
            {"name": "POSTGRES_USER", "value": DATABASE_USER},
            {"name": "POSTGRES_PASSWORD_FILE", "value": "/run/secrets/postgresql/password"},
            {"name": "POSTGRES_DB", "value": DATABASES[0]},
            {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},  # a volume's root may hold lost+found
        ],
        "ports": [{"name": "postgresql", "containerPort": 5432}],
        "readinessProbe": check | {"periodSeconds": 5},
        "livenessProbe": check | {"initialDelaySeconds": 60, "periodSeconds": 20},
        "resources": resources(1, "2Gi"),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/postgresql/data"},
            {"name": "init", "mountPath": "/docker-entrypoint-initdb.d", "readOnly": True},
            {"name": "password", "mountPath": "/run/secrets/postgresql", "readOnly": True},
        ],
    }
    volumes = [
        {"name": "init", "configMap": {"name": "postgresql-init"}},
        {"name": "password", "secret": {"secretName": POSTGRESQL}},
    ]
    return [
        scripts,
        *stateful(values, "postgresql", container, volumes, config["size"], user=999, port=5432),
    ]


def seaweedfs(values: Values) -> list[Manifest]:
    """An S3 endpoint on one volume."""
    config = values["s3"]
    container = {
        "name": "seaweedfs",
        "image": config["image"],
        "args": [
            "server",
            "-dir=/data",
            "-s3",
            "-ip=seaweedfs-0.seaweedfs",  # by which its parts know each other: a pod's address changes
            "-ip.bind=0.0.0.0",
            "-volume.max=0",  # as many volumes as the disk holds
            "-master.volumeSizeLimitMB=1024",
            "-master.telemetry=false",
        ],
        "env": s3_credentials(),  # they become its administrator, who creates the bucket with the first upload
        "ports": [{"name": "s3", "containerPort": 8333}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "s3"}, "periodSeconds": 5},
        "resources": resources(1, "2Gi"),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return stateful(values, "seaweedfs", container, [], config["size"], user=1000, port=8333)


def mlflow(values: Values) -> list[Manifest]:
    """The tracking server: passwords, checked host names, no pickle, artifacts by way of the server."""
    name = "mlflow"
    config, namespace = values["mlflow"], values["namespace"]
    auth = "\n".join(
        [
            "[mlflow]",
            "default_permission = READ",
            f"database_uri = {database('mlflow_auth')}",
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
            "auth_cache_ttl_seconds = 60",  # else every request pays for hashing the password
            "",
        ]
    )
    names = [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", "localhost", "127.0.0.1", *config["allowed_hosts"]]
    container = {
        "name": name,
        "image": values["image"],
        "command": ["mlflow", "server"],
        "args": [
            "--host=0.0.0.0",
            "--port=5000",
            f"--workers={config['workers']}",
            "--app-name=basic-auth",
            f"--artifacts-destination=s3://{values['s3']['bucket']}",
            f"--allowed-hosts={','.join(f'{host},{host}:*' for host in names)}",
        ],
        "env": [
            {"name": "MLFLOW_BACKEND_STORE_URI", "value": database("mlflow")},
            secret_env("PGPASSWORD", POSTGRESQL, "password"),  # read by libpq: no URI holds it
            {"name": "MLFLOW_AUTH_CONFIG_PATH", "value": "/etc/mlflow/basic_auth.ini"},
            secret_env("MLFLOW_AUTH_ADMIN_USERNAME", MLFLOW, "username"),
            secret_env("MLFLOW_AUTH_ADMIN_PASSWORD", MLFLOW, "password"),
            secret_env("MLFLOW_FLASK_SERVER_SECRET_KEY", MLFLOW, "session-key"),
            {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
            {"name": "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "value": "false"},
            {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"},
            {"name": "MLFLOW_S3_ENDPOINT_URL", "value": values["s3"]["endpoint"]},
            {"name": "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "value": "path"},  # a bucket is no host name here
            {"name": "AWS_DEFAULT_REGION", "value": values["s3"]["region"]},
            {"name": "AWS_REQUEST_CHECKSUM_CALCULATION", "value": "when_required"},  # newer ones are not S3 everywhere
            *s3_credentials(),
        ],
        "ports": [{"name": "http", "containerPort": 5000}],
        # the first start creates tables
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10},
        "livenessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 30, "timeoutSeconds": 10},
        "resources": resources(1, config["memory"]),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "auth", "mountPath": "/etc/mlflow", "readOnly": True}],
    }
    labels = {"app.kubernetes.io/name": name}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # two servers would both migrate the tables
        "selector": {"matchLabels": labels},
        "template": pod(container, labels, [{"name": "auth", "configMap": {"name": "mlflow-auth"}}], user=USER_ID),
    }
    return [
        manifest("v1", "ConfigMap", values, "mlflow-auth", data={"basic_auth.ini": auth}),
        manifest("apps/v1", "Deployment", values, name, spec=deployment),
        service(values, name, 5000),
    ]


def ray_cluster(values: Values, ray_version: str) -> Manifest:
    """A cluster that stays, for interactive work and several jobs at a time."""
    config = values["cluster"]
    gpus = (config["min_gpu_workers"], config["max_gpu_workers"])
    spec = cluster_spec(values, ray_version, min_cpu_workers=config["min_cpu_workers"], gpu_workers=gpus)
    return manifest("ray.io/v1", "RayCluster", values, "lwddpm", spec=spec)


def ray_job(name: str, values: Values, ray_version: str) -> Manifest:
    """A job with a cluster of its own: of the size it needs, gone when the job ends."""
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
    return manifest("ray.io/v1", "RayJob", values, f"lwddpm-{name}", spec=spec)


def overrides(job: Manifest, values: Values) -> list[str]:
    """The `--set` arguments of a job: what it says itself, and the workers that its cluster has room for."""
    share = values["gpu_workers"]["cpu"] // values["gpu_workers"]["gpus"]
    workers = {"workers.count": job["workers"], "workers.use_gpu": "true", "workers.cpus_per_worker": share}
    return [f"{key}={value}" for key, value in (job["set"] | workers).items()]


def entrypoint(job: Manifest, values: Values) -> str:
    """The command of the driver."""
    run = f"python -m lwddpm run {job['file']} --address auto"
    if "model_uri" in job["set"]:  # a registered model is downloaded to TMPDIR, where workers on other nodes read it
        run = f"env TMPDIR={values['storage']['path']}/tmp {run}"
    return " ".join([run, *(f"--set {override}" for override in overrides(job, values))])


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


def stateful(
    values: Values, name: str, container: Manifest, volumes: list[Manifest], size: str, *, user: int, port: int
) -> list[Manifest]:
    """One server with a disk of its own, and the service of its name."""
    labels = {"app.kubernetes.io/name": name}
    spec = {
        "serviceName": name,
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": pod(container, labels, volumes, user=user),
        "volumeClaimTemplates": [
            {
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
            }
        ],
    }
    return [manifest("apps/v1", "StatefulSet", values, name, spec=spec), service(values, name, port, headless=True)]


def service(values: Values, name: str, port: int, *, headless: bool = False) -> Manifest:
    spec: Manifest = {
        "selector": {"app.kubernetes.io/name": name},
        "ports": [{"port": port, "protocol": "TCP", "targetPort": port}],
    }
    if headless:  # a name for the pod itself, which it uses before it is ready
        spec |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    return manifest("v1", "Service", values, name, spec=spec)


def pod(container: Manifest, labels: dict[str, str], volumes: list[Manifest], *, user: int) -> Manifest:
    """A pod without rights that it does not need."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            # large shared volumes: change ownership once, not at every start
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if volumes:
        spec["volumes"] = volumes
    return {"metadata": {"labels": labels | {"app.kubernetes.io/part-of": "lwddpm"}}, "spec": spec}


def manifest(api_version: str, kind: str, values: Values, name: str, **content: Any) -> Manifest:
    labels = {"app.kubernetes.io/part-of": "lwddpm"}
    metadata = {"name": name, "namespace": values["namespace"], "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def container_security() -> Manifest:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def resources(cpu: int | str, memory: str) -> Manifest:
    """Limits equal requests: Ray takes the limits for what a node has, so a pod must really have them."""
    amount = {"cpu": cpu, "memory": memory}
    return {"requests": dict(amount), "limits": dict(amount)}


def secret_env(variable: str, secret: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def s3_credentials() -> list[Manifest]:
    return [
        secret_env("AWS_ACCESS_KEY_ID", S3, "access-key-id"),
        secret_env("AWS_SECRET_ACCESS_KEY", S3, "secret-access-key"),
    ]


def database(name: str) -> str:
    return f"postgresql+psycopg://{DATABASE_USER}@postgresql:5432/{name}"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # anchors would save lines, and nobody reads them


def current() -> dict[str, str]:
    """What the values and the tested versions render to."""
    pins = (HERE.parents[1] / "constraints.txt").read_text()
    (ray_version,) = re.findall(r"^ray==(.+)$", pins, re.MULTILINE)
    return render(yaml.safe_load((HERE / "values.yaml").read_text()), ray_version)


def main() -> None:
    for name, text in current().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
