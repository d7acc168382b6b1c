import numpy as np
import pytest
import torch
from scipy import stats

from lwddpm.config import DiffusionConfig
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.evaluation.noise import EDGES, noise_histograms, wasserstein


class Knowing(torch.nn.Module):
    """Sees the clean slice through the noise: predicts what the training would want, times a factor."""

    def __init__(self, process, image, factor):
        super().__init__()
        self.process, self.image, self.factor = process, image, factor

    def forward(self, given, timesteps):
        x_t = given / self.process.input_scales[timesteps][:, None, None, None]
        signal, noise = (v[timesteps][:, None, None, None] for v in (self.process.signal, self.process.noise))
        true = (x_t - signal * self.image) / noise
        return self.factor * self.process.target(self.image.expand_as(x_t), timesteps, true)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "edm", "flow"])
def test_a_model_that_knows_the_noise_has_its_histogram(prediction_type):
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type, num_train_timesteps=50))
    images = np.full((6, 16, 16), 255, np.uint8)
    timesteps = range(40, 0, -4)
    histograms = noise_histograms(Knowing(process, torch.ones(1, 1, 16, 16), 1.0), process, images, timesteps)
    assert histograms.true.shape == histograms.predicted.shape == (6, 100)
    assert (histograms.true.sum(1) == 256).all()
    assert wasserstein(histograms.edges, histograms.true.sum(0), histograms.predicted.sum(0)) < 0.01
    wrong = noise_histograms(Knowing(process, torch.ones(1, 1, 16, 16), 0.5), process, images, timesteps)
    assert np.array_equal(wrong.true, histograms.true)
    assert wasserstein(wrong.edges, wrong.true.sum(0), wrong.predicted.sum(0)) > 0.1


def test_the_model_is_asked_about_slices_in_its_own_tone():
    process = DiffusionProcess(DiffusionConfig(num_train_timesteps=50, intensity_gamma=0.5))
    images = np.full((4, 16, 16), 64, np.uint8)  # (64 / 255)^0.5 is 0.501: about the middle
    knowing = Knowing(process, torch.full((1, 1, 16, 16), 2 * (64 / 255) ** 0.5 - 1), 1.0)
    histograms = noise_histograms(knowing, process, images, range(8, 0, -4))
    assert wasserstein(histograms.edges, histograms.true.sum(0), histograms.predicted.sum(0)) < 0.01


def test_the_distance_is_scipys():
    draws = np.random.default_rng(0)
    first, second = (np.histogram(draws.normal(mean, 1, 500), EDGES)[0] for mean in (0, 0.4))
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    assert wasserstein(EDGES, first, second) == pytest.approx(
        stats.wasserstein_distance(centres, centres, first, second)
    )
    assert wasserstein(EDGES, first, 7 * first) == pytest.approx(0)
