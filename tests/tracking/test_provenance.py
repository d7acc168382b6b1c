import platform
import sys

import pytest

from lwddpm.tracking.provenance import environment_tags


def test_the_tags_name_code_machine_and_command_but_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/lwddpm", "run", "--set", "tracking.uri=http://ada:secret@tracking:5000"])
    monkeypatch.setenv("LWDDPM_COMMIT", "f" * 40)
    tags = environment_tags()
    assert tags["lwddpm.command"] == "lwddpm run --set tracking.uri=http://tracking:5000"
    assert tags["mlflow.source.git.commit"] == "f" * 40
    assert tags["lwddpm.host"] == platform.node()
    assert {"lwddpm.version.torch", "lwddpm.version.mlflow"} <= tags.keys()


def test_code_that_was_uploaded_from_outside_a_checkout_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LWDDPM_COMMIT", "")
    assert "mlflow.source.git.commit" not in environment_tags()
