"""LW-DDPM: lightweight denoising diffusion for 2D brain MRI synthesis, on Ray and MLflow."""

__version__ = "0.1.0"
