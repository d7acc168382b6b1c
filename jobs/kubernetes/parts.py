"""What several manifests are made of: pods, services, Secrets, names."""

from typing import Any

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
FOLDERS = ("source", "datasets", "runs", "torch")  # on the shared storage


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
