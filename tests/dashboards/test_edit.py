"""A region of a slice drawn anew on the board: what leaves it says so, and outside of the region it is the slice."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from lwddpm.config import TrackingConfig
from lwddpm.data.store import open_dataset
from lwddpm.kinds.verify import source_of, verify_files

from .conftest import drawn
from .world import MODEL, SIZE, World

pytestmark = pytest.mark.timeout(600)  # the world that it reads is trained first


def test_a_painted_region_is_drawn_and_a_strangers_picture_is_brought_to_size(
    world: World, visitor: httpx2.Client, workspace: Path, tmp_path: Path
) -> None:
    slices = open_dataset(str(world.folder / "dataset")).images("test")
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:20, 8:17] = True
    painted = "".join("1" if value else "0" for value in mask.flat)

    def source(**wanted: Any) -> Any:
        return visitor.post("/api/edit-sources", json={"model": f"models:/{MODEL}/1"} | wanted)

    row = source(dataset=world.dataset_version, split="test", row=2).json()
    shown = np.asarray(Image.open(io.BytesIO(visitor.get(f"/edit-sources/{row['id']}.png").content)))
    assert (shown == slices[2]).all()
    wanted = {"model": f"models:/{MODEL}/1", "count": 2, "steps": 2, "source": row["id"], "mask": painted}
    for mask_given in ("0" * SIZE**2, "10"):
        refused = visitor.post("/api/edits", json=wanted | {"mask": mask_given})
        assert "paint on the slice" in refused.json()["error"]
    drawing = drawn(visitor, "/api/edits", wanted | {"nearest": False})
    file = tmp_path / "edited.png"
    file.write_bytes(visitor.get(f"/drawings/{drawing['id']}/1.png").content)
    picture = Image.open(world.folder / "scans" / "glioma_tumor" / "000.png")
    stream = io.BytesIO()
    picture.save(stream, "TIFF")
    uploaded = source(picture=base64.b64encode(stream.getvalue()).decode()).json()
    assert uploaded["brought"] == f"from 64 x 64 pixels to {SIZE} x {SIZE}"
    refused = source(picture=base64.b64encode(b"not an image").decode())
    assert refused.status_code == 422
    assert str(workspace) not in refused.json()["error"]
    assert "below the" in source(dataset=world.dataset_version, split="test", row=999).json()["error"]
    assert list(workspace.rglob(f"{drawing['id']}"))
    assert not list(workspace.rglob("upload-*"))
    result = np.asarray(Image.open(file))
    assert (result[~mask] == slices[2][~mask]).all()
    assert (result[mask] != slices[2][mask]).any()
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    given = source_of(f"{world.folder / 'dataset'}/test/2", str(tmp_path / "mask.png"))
    (found,) = verify_files([str(file)], TrackingConfig(uri=world.tracking), None, given)
    assert found["state"] == "confirmed", found
