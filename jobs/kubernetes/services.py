"""What a Ray cluster stands on: namespace, shared storage, network policy, PostgreSQL, artifact store, MLflow."""

from parts import (
    DATABASE_USER,
    DATABASES,
    MLFLOW,
    POSTGRESQL,
    STORAGE,
    USER_ID,
    Manifest,
    Values,
    container_security,
    database,
    manifest,
    pod,
    resources,
    s3_credentials,
    secret_env,
    service,
    stateful,
)


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
