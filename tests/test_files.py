from pathlib import Path

import pytest

from lwddpm.errors import JobError
from lwddpm.files import complete_folder, write_whole


def test_an_interrupted_write_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def interrupted() -> None:
        with complete_folder(tmp_path / "step_1") as folder:
            (folder / "model.safetensors").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with complete_folder(tmp_path / "model") as folder:
            (folder / name).write_text(name)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert (tmp_path / "model" / "new").read_text() == "new"


def test_a_disk_that_refuses_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match=r"cannot be written \(Not a directory\).*same command continues"):
        write_whole(tmp_path / "file" / "run.json", "{}")
