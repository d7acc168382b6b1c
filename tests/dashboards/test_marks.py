"""What leaves the board as a file says that it is synthetic; in a reader study it must not say more."""

import io
import time
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from lwddpm.config import TrackingConfig
from lwddpm.kinds.verify import verify_files
from lwddpm.tracking.store import connect
from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.stores import Stores

from .world import MODEL, World

pytestmark = pytest.mark.timeout(600)  # the world that it reads is trained first


def _texts(content: bytes) -> dict[str, str]:
    texts: dict[str, str] = Image.open(io.BytesIO(content)).info
    return texts


def test_a_slice_that_was_drawn_on_the_board_is_confirmed(world: World, tmp_path: Path) -> None:
    connect(world.tracking)
    board = create_app(Stores(world.tracking, world.storage, (), tmp_path), Access(None, frozenset({"127.0.0.1"})))
    with TestClient(board, base_url="http://127.0.0.1") as client:
        wanted = {"model": f"models:/{MODEL}/1", "count": 3, "steps": 3, "seed": 9, "nearest": False}
        drawing = client.post("/api/drawings", json=wanted).json()
        until = time.monotonic() + 120
        while drawing["state"] == "running" and time.monotonic() < until:
            time.sleep(0.1)
            drawing = client.get(f"/api/drawings/{drawing['id']}").json()
        assert drawing["state"] == "done", drawing
        file = tmp_path / "saved.png"
        file.write_bytes(client.get(f"/drawings/{drawing['id']}/2.png").content)
    (found,) = verify_files([str(file)], TrackingConfig(uri=world.tracking))
    assert found["state"] == "confirmed", found
    assert "seed 9, index 2" in found["message"]
    assert _texts(file.read_bytes())["Description"].startswith("SYNTHETIC")
