"""The study's side of a search: what is handed to Ray Tune, in which order it is said, and when a trial may end."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from lwddpm.cluster.searcher import StudyScheduler, StudySearcher
from lwddpm.cluster.trial import TrialSettings
from lwddpm.config import SearchJob
from lwddpm.jobfile import load_job
from lwddpm.search.ranking import ranking
from lwddpm.search.space import load_space
from lwddpm.search.trials import records

SPACE = "training.lr:\n  float: {low: 1.0e-4, high: 1.0e-2, log: true}\n"


class Harness:
    """A study, its searcher and the events that they send; Ray Tune is played by the test."""

    def __init__(self, job: SearchJob, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._heard: list[tuple[Any, ...]] = []
        self.study = optuna.create_study(study_name=job.name, storage=job.search.storage)
        self.begin_session()

    def begin_session(self) -> None:
        self.events: Any = queue.Queue()
        settings = TrialSettings(
            self._job, self._folder, "data", (2, 6), "val/loss", self._folder / "stop", 1, self.events
        )
        self.searcher = StudySearcher(self.study, load_space(self._job.search.space, self._job), settings)
        self.scheduler = StudyScheduler(self.searcher)

    def heard(self) -> list[tuple[Any, ...]]:
        """What has been sent since the last call: number, event, and the first argument of all but `begin`."""
        sent = []
        while not self.events.empty():
            number, name, arguments = self.events.get()
            sent.append((number, name) if name == "begin" else (number, name, arguments[0]))
        return sent

    def heard_of(self, number: int) -> list[tuple[Any, ...]]:
        """The same of one trial, of all that was sent so far."""
        self._heard += self.heard()
        return [event for event in self._heard if event[0] == number]

    def reach(self, tune_id: str, step: int, loss: float, **more: float) -> bool:
        """What Ray Tune does with a result; whether it ends the trial."""
        result = {"step": step, "val/loss": loss, "seconds": 1.0} | more
        last = step == 6
        ends = last or self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=tune_id), result) == "STOP"
        if ends:
            self.searcher.on_trial_complete(tune_id, result)
        else:
            self.searcher.on_trial_result(tune_id, result)
        return ends

    def states(self) -> list[str]:
        return [record.state for record in records(self.study)]


@pytest.fixture
def search(search_overrides: Callable[[str], list[str]], tmp_path: Path) -> Harness:
    further = ["search.num_trials=3", "search.objectives=[val/loss]", "search.reduction_factor=3"]
    job = load_job("search_demo", [*search_overrides(SPACE), *further])
    assert isinstance(job, SearchJob)
    return Harness(job, tmp_path)


def test_trials_go_from_their_beginning_over_their_rungs_to_their_end(search: Harness) -> None:
    for tune_id, number in (("a", 0), ("b", 1), ("c", 2)):
        handed_out = search.searcher.suggest(tune_id)
        assert isinstance(handed_out, dict)
        assert handed_out["number"] == number
        search.searcher.run_opened(number, f"run-{number}")
    assert search.searcher.suggest("d") is None, "one of those at work may have to be handed out again"
    assert [search.reach("a", 2, 0.5), search.reach("b", 2, 0.9), search.reach("c", 2, 0.4)] == [False, True, False]
    assert [search.reach("a", 6, 0.3), search.reach("c", 6, 0.2)] == [True, True]
    assert search.searcher.suggest("d") == search.searcher.FINISHED
    assert search.heard() == [
        (0, "begin"), (1, "begin"), (2, "begin"),
        (0, "rung", 2), (1, "rung", 2), (1, "end", "pruned"), (2, "rung", 2),
        (0, "rung", 6), (0, "end", "complete"), (2, "rung", 6), (2, "end", "complete"),
    ]  # fmt: skip
    assert search.states() == ["complete", "pruned", "complete"]
    assert [record.run_id for record in records(search.study)] == ["run-0", "run-1", "run-2"]


def test_a_trial_that_copies_is_not_chosen_however_low_its_loss(
    search_overrides: Callable[[str], list[str]], tmp_path: Path
) -> None:
    further = ["search.num_trials=3", "search.objectives=[val/loss]", "search.scheduler=none"]
    limit = 'search.constraints={"audit/copied_share": 0.02}'
    job = load_job("search_demo", [*search_overrides(SPACE), *further, limit])
    assert isinstance(job, SearchJob)
    search = Harness(job, tmp_path)
    outcomes = {"a": (0.1, 0.6), "b": (0.3, 0.0), "c": (0.2, 0.02)}
    for number, (tune_id, (loss, copied)) in enumerate(outcomes.items()):
        search.searcher.suggest(tune_id)
        search.searcher.run_opened(number, f"run-{number}")
        search.reach(tune_id, 6, loss, **{"audit/copied_share": copied})
    assert search.states() == ["complete"] * 3
    assert [record.number for record in ranking(search.study)] == [2, 1]
    assert search.heard_of(0)[-1] == (0, "end", "complete")
    copier = records(search.study)[0]
    assert (copier.violates, copier.values) == (("audit/copied_share",), (0.1,))
    assert "audit/copied_share is 0.6, at most 0.02 is wanted" in copier.reason
    assert search.study.trials[0].user_attrs["lwddpm.metrics"]["audit/copied_share"] == 0.6


def test_no_trial_ends_in_the_study_before_its_run_is_known(search: Harness) -> None:
    search.searcher.suggest("a")
    tune = threading.Thread(target=search.reach, args=("a", 6, 0.3))
    tune.start()
    tune.join(0.5)
    assert tune.is_alive()
    assert search.states() == ["running"]
    search.searcher.run_opened(0, "run-0")
    tune.join(30)
    assert [(record.state, record.run_id) for record in records(search.study)] == [("complete", "run-0")]


def test_where_nobody_opens_runs_a_trial_is_left_to_the_next_session(search: Harness) -> None:
    search.searcher.suggest("a")
    search.searcher.release()
    search.reach("a", 6, 0.3)
    assert search.states() == ["running"]
    search.begin_session()
    handed_out = search.searcher.suggest("b")
    assert isinstance(handed_out, dict)
    assert handed_out["number"] == 0
    search.searcher.run_opened(0, "run-0")
    search.reach("b", 6, 0.3)
    assert search.states() == ["complete"]


def test_a_lost_process_is_handed_out_again_once_and_keeps_its_run(search: Harness) -> None:
    first = search.searcher.suggest("a")
    search.searcher.run_opened(0, "run-0")
    search.searcher.on_trial_complete("a", error=True)
    assert search.searcher.suggest("b") == first
    search.searcher.run_opened(0, "run-0")
    search.searcher.on_trial_complete("b", error=True)
    assert search.heard() == [(0, "begin"), (0, "begin"), (0, "end", "fail")]
    (record,) = records(search.study)
    assert (record.state, record.run_id) == ("failed", "run-0")
    assert "lost too often" in record.reason


FINITE = "model.se_reduction:\n  categorical: [2, 4]\nmodel.dim:\n  int: {low: 8, high: 16, step: 8}\n"


@pytest.fixture
def finite(search_overrides: Callable[[str], list[str]], tmp_path: Path) -> Callable[..., Harness]:
    """A search of more trials than its space has combinations, which are four."""

    def build(*overrides: str) -> Harness:
        further = ["search.num_trials=12", "search.objectives=[val/loss]", "search.reduction_factor=3", *overrides]
        job = load_job("search_demo", [*search_overrides(FINITE), *further])
        assert isinstance(job, SearchJob)
        return Harness(job, tmp_path)

    return build


def _run_to_the_end(search: Harness, sessions_of: int = 100) -> list[int]:
    """One trial at a time; the numbers of those that were handed out."""
    numbers: list[int] = []
    while (handed_out := search.searcher.suggest("a")) != search.searcher.FINISHED:
        assert isinstance(handed_out, dict)
        number, values = handed_out["number"], handed_out["values"]
        numbers.append(number)
        search.searcher.run_opened(number, f"run-{number}")
        loss = values["model.dim"] + values["model.se_reduction"]
        if not search.reach("a", 2, loss):
            search.reach("a", 6, loss / 2)
        if len(numbers) % sessions_of == 0:
            search.begin_session()
    return numbers


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_what_was_trained_is_not_trained_again(finite: Callable[..., Harness], sampler: str) -> None:
    search = finite(f"search.sampler={sampler}")
    trained = _run_to_the_end(search)
    found = records(search.study)
    parameters = [tuple(record.params.values()) for record in found]
    assert len(trained) == len({parameters[number] for number in trained}) == len(set(parameters))
    repeated = [record for record in found if record.number not in trained]
    assert repeated, "this search proposes nothing twice, so it shows nothing"
    for record in repeated:
        assert record.repeats in trained
        first = found[record.repeats]
        assert parameters[record.number] == parameters[first.number]
        assert (record.state, record.values, record.last) == (first.state, first.values, first.last)
        assert (record.run_id, record.seconds) == (first.run_id, 0.0)
        assert record.reason.startswith(f"repeats trial {first.number}")
        assert (record.number, "repeated", record.params) in search.heard_of(record.number)
    assert set(trained) >= {record.number for record in ranking(search.study)}
    assert len(found) == 12 or len(trained) == 4, "neither all trials nor all combinations"


def test_a_search_ends_once_every_combination_has_been_tried(finite: Callable[..., Harness]) -> None:
    search = finite("search.sampler=grid", "search.num_trials=12")
    assert _run_to_the_end(search) == [0, 1, 2, 3]
    random = finite("search.sampler=random", "search.num_trials=200", "name=random")
    assert len(_run_to_the_end(random)) == 4
    assert len(records(random.study)) < 100


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_repetitions_are_the_same_in_a_search_that_is_cut(finite: Callable[..., Harness], sampler: str) -> None:
    outcomes = []
    for name, sessions_of in (("whole", 100), ("cut", 1)):
        search = finite(f"search.sampler={sampler}", f"name={name}")
        _run_to_the_end(search, sessions_of)
        outcomes.append([(r.state, r.params, r.last, r.repeats) for r in records(search.study)])
    assert outcomes[0] == outcomes[1]


def test_a_repetition_of_a_trial_at_work_waits_for_it(finite: Callable[..., Harness]) -> None:
    search = finite("search.sampler=random")
    at_work = 0
    while (handed_out := search.searcher.suggest(f"tune-{at_work}")) is not None:
        assert isinstance(handed_out, dict)
        search.searcher.run_opened(handed_out["number"], f"run-{handed_out['number']}")
        at_work += 1
    assert set(search.states()) == {"running"}
    waiting = len(search.states()) - at_work
    assert waiting
    search.begin_session()  # the driver was killed: all are handed out again, repetitions wait again
    for index in range(at_work):
        handed_out = search.searcher.suggest(f"tune-{index}")
        assert isinstance(handed_out, dict)
        search.searcher.run_opened(handed_out["number"], f"run-{handed_out['number']}")
    assert search.searcher.suggest("none") is None
    for index in range(at_work):
        search.reach(f"tune-{index}", 6, 0.5)
    assert search.searcher.suggest("none") == search.searcher.FINISHED
    assert search.states() == ["complete"] * (at_work + waiting)
    assert sum(record.repeats is not None for record in records(search.study)) == waiting


def test_a_failed_trial_is_not_repeated_either(finite: Callable[..., Harness]) -> None:
    search = finite("search.sampler=random", "search.num_trials=200")
    while isinstance(handed_out := search.searcher.suggest("a"), dict):
        search.searcher.run_opened(handed_out["number"], f"run-{handed_out['number']}")
        search.searcher.on_trial_complete("a", {"step": 2, "error": "diverged at step 2", "done": True})
    found = records(search.study)
    assert {record.state for record in found} == {"failed"}
    assert {record.reason for record in found if record.repeats == 0} <= {"repeats trial 0: diverged at step 2"}
    assert sum(record.repeats is None for record in found) == 4
