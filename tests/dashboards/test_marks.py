"""What leaves the board as a file says that it is synthetic; in a reader study it must not say more."""

import io
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from lwddpm.config import TrackingConfig
from lwddpm.kinds.verify import verify_files

from .conftest import drawn
from .world import MODEL, World

pytestmark = pytest.mark.timeout(600)  # the world that it reads is trained first


def _texts(content: bytes) -> dict[str, str]:
    texts: dict[str, str] = Image.open(io.BytesIO(content)).info
    return texts


def test_a_slice_that_was_drawn_on_the_board_is_confirmed(world: World, visitor: httpx2.Client, tmp_path: Path) -> None:
    wanted = {"model": f"models:/{MODEL}/1", "count": 3, "steps": 3, "seed": 9, "nearest": False}
    drawing = drawn(visitor, "/api/drawings", wanted)
    file = tmp_path / "saved.png"
    file.write_bytes(visitor.get(f"/drawings/{drawing['id']}/2.png").content)
    (found,) = verify_files([str(file)], TrackingConfig(uri=world.tracking))
    assert found["state"] == "confirmed", found
    assert "seed 9, index 2" in found["message"]
    assert _texts(file.read_bytes())["Description"].startswith("SYNTHETIC")
