from pathlib import Path

import pytest
import torch

from lwddpm.data.store import Dataset
from lwddpm.models.build import build_model
from lwddpm.training.checkpoint import read_saved_model, save_model
from lwddpm.training.vocabulary import vocabulary_of


@pytest.fixture(autouse=True)
def store_is_there(store: str) -> None:
    """The MLflow store that `tiny_job` and the searches name."""


@pytest.fixture
def conditional_dir(tiny_dataset: Dataset, model_dir: Path, tmp_path: Path) -> Path:
    """An untrained network that is told the class."""
    vocabulary = vocabulary_of(tiny_dataset, ("label",), 0.1)
    saved = read_saved_model(model_dir)
    config = saved.model.model_copy(update={"conditions": ("label",)})
    torch.manual_seed(2)
    network = build_model(config, vocabulary=vocabulary)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return save_model(
        tmp_path / "conditional", network, saved.model_copy(update={"model": config, "conditions": vocabulary})
    )
