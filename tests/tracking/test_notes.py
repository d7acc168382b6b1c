from pathlib import Path

import mlflow

from lwddpm.tracking import notes


def test_mlflows_pages_still_read_the_tags_that_it_does_not_document() -> None:
    """They would be without effect, not an error: the columns of the runs' table, and the kind of experiment."""
    scripts = [path.read_text() for path in Path(mlflow.__file__).parent.glob("server/js/build/static/js/main.*.js")]
    assert scripts
    for name in ("mlflow.sharedViewState", "viewStateShareKey", "mlflow.experimentKind"):
        assert any(name in script for script in scripts), name
    assert any(notes.EXPERIMENT["mlflow.experimentKind"] in script for script in scripts)
