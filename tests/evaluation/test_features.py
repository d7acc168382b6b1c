import functools
import hashlib
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
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


# Of the fixture's slices, computed once with efficientnet-lite-pytorch 0.1.0, unmaintained since 2020, in whose format
# the weights are published: the ten features that differ most between the slices, and the length of each vector.
EXPECTED_LITE0 = {
    32: [1.991474, 0.584040, 0.833008, 0.467078, 1.231843],
    198: [2.121429, 1.443822, 2.470125, 3.372584, 2.666048],
    399: [1.779608, 0.863501, 0.997633, 0.182108, 0.623974],
    478: [2.541751, 1.660578, 2.786665, 0.834927, 1.709369],
    539: [2.115487, 2.187230, 1.947553, 0.826037, 1.470100],
    726: [2.770126, 1.163446, 2.481580, 1.412590, 1.890990],
    786: [0.067643, 0.345722, 0.340121, 1.444656, 0.915407],
    989: [1.945394, 1.568890, 1.370429, 0.321567, 1.177901],
    1084: [3.627953, 2.972286, 3.626869, 1.752757, 2.832266],
    1270: [1.308959, 0.502479, 1.627985, 0.336873, 0.399683],
}
EXPECTED_LITE0_NORMS = [16.44564, 15.05918, 16.02817, 14.39147, 15.72261]
EXPECTED_LITE2 = {
    42: [2.660201, 2.012357, 2.818424, 3.120621, 1.755597],
    43: [0.547007, 1.716470, 1.945132, 2.204075, 0.497554],
    117: [0.911023, 1.733173, 1.388957, 0.658521, 1.985449],
    194: [2.600022, 3.969477, 2.812483, 3.419325, 3.638805],
    377: [1.959083, 1.486763, 1.237152, 2.517915, 2.462276],
    569: [3.454986, 2.645136, 2.110650, 2.438736, 2.849800],
    626: [2.272395, 1.981842, 3.259481, 2.288740, 2.994064],
    678: [1.939524, 2.420984, 3.469372, 2.248440, 2.445125],
    1154: [3.876668, 4.130394, 2.748235, 3.022782, 3.909515],
    1249: [0.098140, 0.399069, 0.217377, 1.293945, 0.084985],
}
EXPECTED_LITE2_NORMS = [16.93342, 18.10152, 17.95544, 17.27661, 18.34758]


@pytest.mark.parametrize(
    ("name", "expected", "norms"),
    [("fd_lite0", EXPECTED_LITE0, EXPECTED_LITE0_NORMS), ("fd_lite2", EXPECTED_LITE2, EXPECTED_LITE2_NORMS)],
)
def test_lite_features_are_those_of_the_package_that_published_the_weights(slices, name, expected, norms):
    extractor = load_extractor(name, inception_weights=None)
    features = extractor(slices)

    assert features.shape == (5, extractor.num_features)
    torch.testing.assert_close(features[:, list(expected)], torch.tensor(list(expected.values())).T, atol=1e-4, rtol=0)
    torch.testing.assert_close(features.norm(dim=1), torch.tensor(norms), atol=1e-3, rtol=0)


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
