from collections.abc import Callable
from pathlib import Path

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.tracking.card import model_card
from lwddpm.training.stored_model import read_saved_model


def test_the_card_says_which_average_was_kept_and_of_which(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path
) -> None:
    saved = read_saved_model(model_dir)
    job = tiny_job("training.ema_decay=0.99", "training.ema_lengths=[0.05,0.1]", "training.adam_betas=[0.9,0.95]")
    chosen = "of decay 0.99, 0.05, 0.1 that with the least loss on validation slices"
    card = model_card(job, saved.model_copy(update={"ema_length": 0.05}), tiny_dataset, None, None)
    assert f"EMA over 0.05 of the training ({chosen})" in card
    assert f"EMA 0.99 ({chosen})" in model_card(job, saved, tiny_dataset, None, None)
    assert "Adam (betas 0.9 and 0.95)" in card
    by_muon = model_card(tiny_job("training.optimizer=muon"), saved, tiny_dataset, None, None)
    assert "Muon, and Adam for what is no matrix" in by_muon
    plain = model_card(tiny_job("training.ema_decay=0.99"), saved, tiny_dataset, None, None)
    assert "EMA 0.99, seed" in plain
    assert "betas" not in plain


def test_the_card_says_how_noise_levels_and_slices_were_changed(
    tiny_job: Callable[..., TrainJob], tiny_dataset: Dataset, model_dir: Path
) -> None:
    saved = read_saved_model(model_dir)
    recipe = ("diffusion.prediction_type=edm", "training.timestep_sampling=log_normal", "training.log_sigma_std=1.2")
    job = tiny_job(*recipe, "training.loss_weighting=learned", "training.augment=0.12")
    card = model_card(job, saved, tiny_dataset, None, None)
    assert "edm, l2 loss, ln sigma normal around -0.8 with 1.2, learned weights of noise levels" in card
    assert "augmented with probability 0.12, seed 0" in card
    plain = model_card(tiny_job(), saved, tiny_dataset, None, None)
    assert not any(word in plain for word in ("ln sigma", "learned", "augmented", "crops", "pixels lie"))
    crops = model_card(tiny_job("training.patches={share: 0.4, until: 0.8}"), saved, tiny_dataset, None, None)
    assert "told where pixels lie" in crops
    assert "40% of the steps on crops of 0.5 of the side of the first 80% of the training, seed 0" in crops
