"""Taking part in a reader study: joining, answering, and what is logged once the last answer is given."""

import time

from mlflow.entities import Metric, RunTag

from lwddpm.errors import ConfigError
from lwddpm_board.class_reading import ClassOutcome
from lwddpm_board.reader_outcome import Outcome, outcome, review
from lwddpm_board.reader_study import ANSWERS, KIND, Reader, Study, readers
from lwddpm_board.stores import Stores

_SECONDS = "reader/seconds"


def join(stores: Stores, study: Study, name: str) -> Reader:
    """The reader of this name, who begins now or goes on."""
    for known in readers(stores, study):
        if known.name.casefold() == name.casefold():
            return known
    experiment = stores.client.get_run(study.run_id).info.experiment_id
    tags = {
        "mlflow.parentRunId": study.run_id,
        "lwddpm.kind": KIND,
        "lwddpm.question": study.question,
        "lwddpm.reader": name,
        "lwddpm.model": study.model,
        "lwddpm.model_version": str(study.version),
    }
    run = stores.client.create_run(experiment, run_name=f"reader {name}", tags=tags)
    return Reader(run.info.run_id, name, "RUNNING", {})


def answer(stores: Stores, study: Study, reader: Reader, position: int, said: int, seconds: float) -> Reader:
    """Keep an answer; the last one that is missing ends the reader's run and logs what came out.

    Args:
        said: 1 for synthetic and 0 for real, or the number of a class.

    Raises:
        ConfigError: the reader has finished, or has not come to this position yet; no such answer.
    """
    if not 0 <= said < study.num_answers:
        raise ConfigError(f"said: must be from 0 to {study.num_answers - 1}, got {said}")
    if reader.finished:
        raise ConfigError("this reader has finished: the answers stand")
    if not 0 <= position <= len(reader.answers) or position >= study.num:
        raise ConfigError(f"position: the next one is {len(reader.answers)}, got {position}")
    now = int(time.time() * 1000)
    kept = [Metric(ANSWERS[study.question], float(said), now, position), Metric(_SECONDS, seconds, now, position)]
    stores.client.log_batch(reader.run_id, metrics=kept)
    answers = reader.answers | {position: int(said)}
    reader = Reader(reader.run_id, reader.name, reader.status, answers)
    if len(answers) == study.num:
        _finish(stores, study, reader)
        return Reader(reader.run_id, reader.name, "FINISHED", answers)
    return reader


def _finish(stores: Stores, study: Study, reader: Reader) -> None:
    client = stores.client
    right = outcome(stores, study, [reader])
    client.log_batch(reader.run_id, metrics=_metrics(right, 0))
    client.log_dict(reader.run_id, {"answers": review(stores, study, reader)}, "answers.json")
    client.set_terminated(reader.run_id)
    done = [other for other in readers(stores, study) if other.finished]
    tags = [RunTag("lwddpm.readers", str(len(done)))]
    client.log_batch(study.run_id, metrics=_metrics(outcome(stores, study, done), len(done)), tags=tags)


def _metrics(result: Outcome | ClassOutcome, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(key, value, now, step) for key, value in result.metrics().items()]
