"""LW-DDPM: lightweight denoising diffusion for 2D brain MRI synthesis, on Ray and MLflow."""

__version__ = "0.1.0"

import os

# No process of the platform, driver or worker, tells anybody that it runs. Before anything else is imported.
for _switch, _off in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # a head started by `ray start` reports even that it is off
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_switch, _off)
