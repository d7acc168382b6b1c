"""Optuna's proposals for Ray Tune, and Tune's outcomes for Optuna.

Ray's own OptunaSearch tells a trial that was ended early as COMPLETE with its low-budget value, and leaves one with a
NaN objective RUNNING; here a trial is COMPLETE at its full budget only, PRUNED before, FAIL with a reason. The study is
the only record: after a crash, trials that were running are handed out again first, under their old numbers.
"""

import threading
from collections import deque
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from lwddpm.cluster.trial import TrialSettings
from lwddpm.errors import ConfigError
from lwddpm.search.proposals import sampler_for, suggest
from lwddpm.search.space import SearchSpace, decoded, infeasible, num_trials
from lwddpm.search.stopping import StoppingRule
from lwddpm.search.trials import (
    INFEASIBLE,
    REASON,
    RUN_ID,
    constrain,
    earlier_equal,
    exhausted,
    report,
    resumed_trial,
    take_over,
)


class StudySearcher(Searcher):
    """Proposes the study's next trials until it has `num_trials`, infeasible ones and repetitions included, or every
    combination of its space.

    A proposal that repeats an earlier trial is not handed out: it would be trained with the same seeds, so it takes
    over that trial's outcome, once there is one.

    Tune calls it in its own thread. What happens goes as events into `settings.events`, in line with the reports of the
    trials: `begin` before a trial is handed out, so before anything that it reports.

    Args:
        study: loaded by `open_study`.
        space: of the study.
        settings: shared by the trials.
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, settings: TrialSettings) -> None:
        super().__init__(metric=None, mode=None)
        self._study, self._space, self._settings = study, space, settings
        self._rule = StoppingRule.of(settings.job)
        self._trials: dict[str, optuna.Trial] = {}  # at work, by Tune's ids
        self._handed_out: dict[int, optuna.Trial] = {}
        stored = study.get_trials(deepcopy=False)
        self._num_proposed = len(stored)
        running = [trial.number for trial in stored if trial.state == TrialState.RUNNING]
        self._interrupted = deque(resumed_trial(study, number) for number in running)
        self._handed_out_again: set[int] = set()
        self._repetitions: dict[int, list[optuna.Trial]] = {}  # by the number of the trial at work that they repeat
        self._num_trials = num_trials(settings.job, space)
        self._runs_opened = threading.Condition()
        self._with_run: set[int] = set()
        self._released = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        search = self._settings.job.search
        while not self._settings.stop_file.exists():
            if self._interrupted:
                trial = self._interrupted.popleft()
            elif self._num_proposed < self._num_trials and not exhausted(self._study, self._space):
                seed, objectives = self._settings.job.seed, len(search.objectives)
                self._study.sampler = sampler_for(
                    search.sampler, seed, self._num_proposed, objectives, self._space.distributions
                )
                trial = self._study.ask()
                self._num_proposed += 1
            elif self._trials:
                return None  # one of those running may have to be handed out again
            else:
                break
            values = decoded(suggest(trial, self._space.distributions))
            try:
                reason = infeasible(self._settings.job_of(trial.number, values))
            except ConfigError as error:
                reason = str(error)
            if reason is None and (earlier := earlier_equal(trial)) is not None:
                if earlier.state.is_finished():
                    self._take_over(trial, earlier)
                else:
                    self._repetitions.setdefault(earlier.number, []).append(trial)
                continue
            if reason is None:
                self._trials[trial_id] = self._handed_out[trial.number] = trial
                self._send(trial, "begin", values)
                return {"number": trial.number, "values": values}
            trial.set_user_attr(INFEASIBLE, True)
            trial.set_user_attr(REASON, reason)
            self._study.tell(trial.number, state=TrialState.PRUNED)
        return Searcher.FINISHED

    def _take_over(self, trial: optuna.Trial, earlier: FrozenTrial) -> None:
        take_over(trial, earlier)
        self._send(trial, "repeated", decoded(trial.params), earlier.number)

    def run_opened(self, number: int, run_id: str) -> None:
        """Keep the id of a trial's MLflow run in the study; called by whoever handles the event `begin`."""
        with self._runs_opened:
            if number not in self._with_run:
                self._handed_out[number].set_user_attr(RUN_ID, run_id)
                self._with_run.add(number)
            self._runs_opened.notify_all()

    def release(self) -> None:
        """Nobody handles events any more: do not wait for runs."""
        with self._runs_opened:
            self._released = True
            self._runs_opened.notify_all()

    def ends(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether early stopping ends a trial that has reached a rung; Tune asks before `on_trial_result`."""
        name = self._settings.job.search.pruned_on
        return name in result and self._rule.ends(self._trials[trial_id], result["step"], float(result[name]))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(self._trials[trial_id], result)

    def _report(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        search = self._settings.job.search
        if search.pruned_on not in result:  # it failed, or was interrupted
            return
        step, value = result["step"], float(result[search.pruned_on])
        measured = {name: result[name] for name in search.named if name in result}
        report(trial, step, value, measured, result["seconds"], single=len(search.objectives) == 1)
        self._send(trial, "rung", step, value)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self._trials.pop(trial_id)
        with self._runs_opened:  # Optuna takes no attribute, so no run id, for a trial that has ended
            self._runs_opened.wait_for(lambda: trial.number in self._with_run or self._released)
            if trial.number not in self._with_run:
                return  # stays RUNNING in the study: the next session continues it, with a run
        self._end(trial, result or {}, error)

    def _end(self, trial: optuna.Trial, result: dict[str, Any], error: bool) -> None:
        self._report(trial, result)  # Tune tells the last result to `on_trial_complete` only
        full = result.get("step") == self._settings.rungs[-1]
        if not error and (result.get("interrupted") or (self._settings.stop_file.exists() and not full)):
            self._send(trial, "end", "interrupted", "")
            return  # stays RUNNING in the study: the next session continues it
        if error and self._settings.job.workers.max_failures > 0 and trial.number not in self._handed_out_again:
            # Tune retries a process lost while training, but gives up on one lost while it starts or changes trials
            self._handed_out_again.add(trial.number)
            self._interrupted.append(trial)  # its run stays open: an end would race with the second beginning
            return
        if error or "error" in result:
            reason = str(result.get("error", "its process was lost too often; see Ray's logs"))
            trial.set_user_attr(REASON, reason)
            state, values = TrialState.FAIL, None
        elif full:
            reason, state = constrain(trial, self._settings.job.search.limits, result), TrialState.COMPLETE
            values = [float(result[name]) for name in self._settings.job.search.objectives]
        else:
            reason, state, values = f"ended by {self._settings.job.search.scheduler}", TrialState.PRUNED, None
        self._study.tell(trial.number, values, state=state)
        self._send(trial, "end", state.name.lower(), reason)
        earlier = self._study.get_trials(deepcopy=False)[trial.number]
        for repetition in self._repetitions.pop(trial.number, []):
            self._take_over(repetition, earlier)

    def _send(self, trial: optuna.Trial, name: str, *arguments: Any) -> None:
        self._settings.events.put((trial.number, name, arguments))

    # Tune copies and pickles searchers to restore experiments, which never happens here: the study has it all.
    def __deepcopy__(self, memo: dict[int, Any]) -> "StudySearcher":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class StudyScheduler(FIFOScheduler):
    """Ends trials as the study says: Tune's own schedulers keep books beside it, and forget them when restored."""

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self.STOP if self._searcher.ends(trial.trial_id, result) else self.CONTINUE
