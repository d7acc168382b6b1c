# The platform in one image: Ray nodes, drivers and the MLflow server, in the versions of constraints.txt.
#
#   docker build --tag lwddpm:0.1.0 .        for GPUs, and CPUs too: torch's default wheels bring CUDA
#   docker build --tag lwddpm:0.1.0-cpu --build-arg DEVICE=cpu --build-arg TORCH_INDEX=URL .
#                                            for CPUs only, and GB smaller; URL: PyTorch's index of CPU wheels
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt hatchling
COPY platform platform
COPY dashboards dashboards
COPY jobs jobs
COPY search_spaces search_spaces
RUN python -m hatchling build --target wheel --directory /dist

FROM python:${PYTHON}-slim
ARG DEVICE=cuda
ARG TORCH_INDEX=

# tini: ends what a container leaves running; rsync: `ray up` copies files with it; wget: KubeRay's health probes;
# gcc: torch.compile on GPUs needs a C compiler
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini rsync wget $(test "$DEVICE" = cpu || echo gcc libc6-dev) \
    && rm -rf /var/lib/apt/lists/*

# The dependencies before the project: a change of the code does not download them again.
WORKDIR /opt/lwddpm
COPY constraints.txt pyproject.toml ./
RUN case "$DEVICE" in \
        cuda) ;; \
        cpu) pip install --no-cache-dir --no-deps --constraint constraints.txt \
                 --index-url "${TORCH_INDEX:?DEVICE=cpu needs TORCH_INDEX, the index of CPU wheels}" torch torchvision ;; \
        *) echo "DEVICE must be cuda or cpu, got $DEVICE" >&2; exit 2 ;; \
    esac
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['server'], sep='\n')" > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY --from=wheel /dist ./
RUN pip install --no-cache-dir --no-deps ./*.whl

# Not root, with a home that can be written: Ray's token, MLflow's and matplotlib's caches.
RUN useradd --uid 1000 --user-group --create-home --shell /bin/bash ray
USER 1000:1000
WORKDIR /home/ray
# NVIDIA_...: what the container runtime makes visible where it gives the container a GPU
ENV HOME=/home/ray \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
ENTRYPOINT ["tini", "--"]
CMD ["lwddpm", "--help"]
