"""Optuna's proposals for Ray Tune, and Tune's outcomes for Optuna.

Ray's own OptunaSearch tells a trial that was ended early as COMPLETE with its low-budget value, and leaves one with a
NaN objective RUNNING; here a trial is COMPLETE at its full budget only, PRUNED before, FAIL with a reason. The study is
the only record: after a crash, trials that were running are handed out again first, under their old numbers.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from lwddpm.cluster.trial import TrialSettings
from lwddpm.errors import ConfigError
from lwddpm.search import study as record
from lwddpm.search.space import SearchSpace, decoded, infeasible

Notify = Callable[[optuna.Trial, str, tuple[Any, ...]], None]


class StudySearcher(Searcher):
    """Proposes the study's next trials until it has `num_trials`, infeasible ones included.

    Args:
        study: loaded by `open_study`.
        space: of the study.
        settings: shared by the trials.
        notify: called with (trial, "begin", "rung" or "end", arguments).
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, settings: TrialSettings, notify: Notify) -> None:
        super().__init__(metric=None, mode=None)
        self._study, self._space, self._settings, self._notify = study, space, settings, notify
        self._trials: dict[str, optuna.Trial] = {}
        known = study.get_trials(deepcopy=False)
        self._num_proposed = len(known)
        running = [trial for trial in known if trial.state == TrialState.RUNNING]
        self._interrupted = deque(optuna.Trial(study, trial._trial_id) for trial in running)
        self._handed_out_again: set[int] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        search = self._settings.job.search
        while not self._settings.stop_file.exists():
            if self._interrupted:
                trial = self._interrupted.popleft()
            elif self._num_proposed < search.num_trials:
                seed, objectives = self._settings.job.seed, len(search.objectives)
                self._study.sampler = record.sampler_for(search.sampler, seed, self._num_proposed, objectives)
                trial = self._study.ask()
                self._num_proposed += 1
            elif self._trials:
                return None  # one of those running may have to be handed out again
            else:
                break
            values = decoded(record.suggest(trial, self._space.distributions))
            try:
                job = self._settings.job_of(trial.number, values)
                reason = infeasible(job)
            except ConfigError as error:
                reason = str(error)
            if reason is None:
                self._trials[trial_id] = trial
                self._notify(trial, "begin", (job, values))
                return {"number": trial.number, "values": values}
            trial.set_user_attr(record.INFEASIBLE, True)
            trial.set_user_attr(record.REASON, reason)
            self._study.tell(trial.number, state=TrialState.PRUNED)
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._book(self._trials[trial_id], result)

    def _book(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        search = self._settings.job.search
        if search.pruned_on not in result:  # it failed, or was interrupted
            return
        step, value = result["step"], float(result[search.pruned_on])
        measured = {name: result[name] for name in (search.pruned_on, *search.objectives) if name in result}
        record.report(trial, step, value, measured, result["seconds"], single=len(search.objectives) == 1)
        self._notify(trial, "rung", (step, value))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._trials.pop(trial_id)
        result = result or {}
        self._book(trial, result)  # Tune tells the last result here only
        full = result.get("step") == self._settings.rungs[-1]
        if not error and (result.get("interrupted") or (self._settings.stop_file.exists() and not full)):
            self._notify(trial, "end", ("interrupted", ""))
            return  # stays RUNNING in the study: the next session continues it
        if error and self._settings.job.workers.max_failures > 0 and trial.number not in self._handed_out_again:
            # Tune retries a process lost while training, but gives up on one lost while it starts or changes trials
            self._handed_out_again.add(trial.number)
            self._interrupted.append(trial)  # its run stays open: an end would race with the second beginning
            return
        if error or "error" in result:
            reason = str(result.get("error", "its process was lost too often; see Ray's logs"))
            trial.set_user_attr(record.REASON, reason)
            state, values = TrialState.FAIL, None
        elif full:
            reason, state = "", TrialState.COMPLETE
            values = [float(result[name]) for name in self._settings.job.search.objectives]
        else:
            reason, state, values = f"ended by {self._settings.job.search.scheduler}", TrialState.PRUNED, None
        self._study.tell(trial.number, values, state=state)
        self._notify(trial, "end", (state.name.lower(), reason))

    # Tune copies and pickles searchers to restore experiments, which never happens here: the study has it all.
    def __deepcopy__(self, memo: dict[int, Any]) -> "StudySearcher":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _PastTrial:
    """Stands for a trial of an earlier session in a scheduler's books."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def make_scheduler(study: optuna.Study, settings: TrialSettings) -> TrialScheduler:
    """The early stopping of the job, knowing every result that the study has: Tune itself forgets rungs on restore."""
    search, rungs = settings.job.search, settings.rungs
    if search.scheduler == "none":
        return FIFOScheduler()
    mode = "max" if record.maximised(search.pruned_on) else "min"
    shared = {"time_attr": "step", "metric": search.pruned_on, "mode": mode, "grace_period": rungs[0]}
    scheduler = (
        ASHAScheduler(**shared, max_t=rungs[-1], reduction_factor=search.reduction_factor)
        if search.scheduler == "asha"
        else MedianStoppingRule(**shared)
    )
    for trial in study.get_trials(deepcopy=False):
        past = _PastTrial(f"study-{trial.number}")
        for step, value in sorted(record.curve(trial).items()):
            if trial.state != TrialState.RUNNING:  # those report again, under a new id
                scheduler.on_trial_add(None, past)
                scheduler.on_trial_complete(None, past, {"step": step, search.pruned_on: value})
    return scheduler
