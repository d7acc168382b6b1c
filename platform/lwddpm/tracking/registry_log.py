"""The log of a registered model, in MLflow: a hash chain (`tracking.chain`), which a tracking server shares.

Each entry is a parameter of a run in the experiment `registry-log`, one run for each model. MLflow's interface neither
changes nor deletes a parameter, and of two processes that write the same number at the same time it refuses one: that
one builds its entry anew, after the other's. The newest hash also stands in a tag of the registered model and in one of
each version that an entry is about, so that an entry which is cut off at the end is missed.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lwddpm.errors import ConfigError, JobError
from lwddpm.tracking.chain import Entry, canonical, next_entry, problems, signing_key
from lwddpm.tracking.store import open_experiment

EXPERIMENT = "registry-log"
KIND = "registry-log"
GATE = "lwddpm.gate"  # tag of a registered model: SHA-256 of the policy in force
HEAD = "lwddpm.log"  # tag of a registered model and of a version: number, hash and run of an entry, as JSON
OVERRIDE = "lwddpm.override"  # tag of a version that was promoted against its policy: who, when and why, as JSON
_LONGEST_ENTRY = 6000  # characters of an MLflow parameter
_LONGEST_TEXT = 1000
_SETTLED_S = 1.0  # after which a run that another process makes at the same time is seen
_ATTEMPTS = 20
_MODEL, _POLICIES = "lwddpm.model", "policies"


def entries(name: str) -> list[Entry]:
    """The log of a registered model, oldest first; empty where nothing was logged."""
    run = _find(MlflowClient(), name)
    return [] if run is None else _entries_of(run)


def of_registered(name: str) -> list[Entry]:
    """The same.

    Raises:
        ConfigError: no such registered model.
    """
    _model(MlflowClient(), name)
    return entries(name)


def last_of(name: str, kind: str) -> Entry | None:
    """The newest entry of a kind."""
    return next((entry for entry in reversed(entries(name)) if entry.get("kind") == kind), None)


def check_text(what: str, text: str) -> None:
    """Refuse a reason or a name that is empty or longer than an entry can hold.

    Raises:
        ConfigError: says which.
    """
    if not text.strip():
        raise ConfigError(f"{what}: must be given; the log keeps it")
    if len(text) > _LONGEST_TEXT:
        raise ConfigError(f"{what}: must have at most {_LONGEST_TEXT} characters, got {len(text)}")
    if not text.isprintable():
        raise ConfigError(f"{what}: must be one line of printable characters")


def append(name: str, kind: str, version: int | None, by: str, data: Mapping[str, Any]) -> Entry:
    """Add an entry to the log of a registered model.

    Args:
        version: the version that it is about, which gets the entry's hash as a tag; None: about the whole model.
        by: who says so.
        data: JSON values; texts that people give were looked at by `check_text`.

    Raises:
        ConfigError: no such registered model; the signing key cannot be used.
        JobError: the log was deleted, is damaged, or does not take the entry.
    """
    client, signer = MlflowClient(), signing_key()
    _model(client, name)
    for _ in range(_ATTEMPTS):
        run = _find(client, name) or _create(client, name)
        before = _entries_of(run)
        if broken := problems(before, name):
            raise JobError(f"{name}: its log is damaged ({broken[0]}); lwddpm models verify-log {name} says more")
        entry = next_entry(before[-1] if before else None, kind, name, version, by, data, signer)
        text = canonical(entry)
        if len(text) > _LONGEST_ENTRY:  # MLflow would cut it off
            raise JobError(f"{name}: an entry of its log may have {_LONGEST_ENTRY} characters, got {len(text)}")
        try:
            client.log_param(run.info.run_id, _key(entry["number"]), text)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            continue  # another process was quicker: its entry comes first
        _anchor(client, name, run.info.run_id, entry)
        return entry
    raise JobError(f"{name}: its log could not be written to, {_ATTEMPTS} times others were quicker; try again")


def _anchor(client: MlflowClient, name: str, run_id: str, entry: Entry) -> None:
    """Note the newest hash where the log is not, and, of the policy, what it says: as the log stands now."""
    while True:
        tag = json.dumps({"number": entry["number"], "hash": entry["hash"], "run": run_id})
        client.set_registered_model_tag(name, HEAD, tag)
        if entry["version"] is not None:
            client.set_model_version_tag(name, str(entry["version"]), HEAD, tag)
        if entry["kind"] == "policy":
            if entry["data"].get("removed"):
                client.delete_registered_model_tag(name, GATE)
            else:
                client.set_registered_model_tag(name, GATE, entry["data"]["sha256"])
        if entry["kind"] == "override":
            about = {key: entry["data"][key] for key in ("reason", "approver")}
            value = json.dumps(about | {"by": entry["by"], "at": entry["at"]})
            client.set_model_version_tag(name, str(entry["version"]), OVERRIDE, value)
        newest = _entries_of(client.get_run(run_id))[-1]
        if newest["number"] <= entry["number"]:
            return
        entry = newest  # another process has added one, whose tags may be older than these


def is_registered(name: str) -> bool:
    """Whether there is a registered model of this name."""
    try:
        _model(MlflowClient(), name)
    except ConfigError:
        return False
    return True


def gate_tag(name: str) -> str | None:
    """What the tag of a registered model says its policy is; None: it has none."""
    value = _model(MlflowClient(), name).tags.get(GATE)
    return None if value is None else str(value)


def store_policy(name: str, sha256: str, content: Mapping[str, Any]) -> None:
    """Keep the content of a policy with the log, under its hash."""
    client = MlflowClient()
    _model(client, name)
    run = _find(client, name) or _create(client, name)
    client.log_text(run.info.run_id, canonical(content), f"{_POLICIES}/{sha256}.json")


def stored_policy(name: str, sha256: str) -> dict[str, Any]:
    """The content of a policy that was kept.

    Raises:
        JobError: it is gone, or not what its hash says.
    """
    run = _find(MlflowClient(), name)
    file = f"{_POLICIES}/{sha256}.json"
    try:
        if run is None:
            raise OSError("the log's run is gone")
        text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{file}")
    except (MlflowException, OSError) as error:
        raise JobError(f"{name}: its policy cannot be read ({' '.join(str(error).split())}); set it anew") from None
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise JobError(f"{name}: {file} of its log was changed: it does not have its hash; set the policy anew")
    content: dict[str, Any] = json.loads(text)
    return content


def anchor_problems(name: str) -> list[str]:
    """What the tags of a registered model, of its versions and its aliases say that the log does not: entries cut off
    at the end, a policy, an alias or an override that was changed past the log."""
    client = MlflowClient()
    model, run = _model(client, name), _find(client, name)
    log = [] if run is None else _entries_of(run)
    by_number = {entry.get("number"): entry for entry in log}
    found = []
    versions = client.search_model_versions(f"name='{name}'")
    tags = [("the registered model", model.tags), *((f"version {each.version}", each.tags) for each in versions)]
    for what, values in tags:
        if HEAD not in values:
            continue
        try:
            anchor = json.loads(values[HEAD])
            number, known = anchor["number"], anchor["hash"]
        except (ValueError, TypeError, KeyError):
            found.append(f"the tag {HEAD} of {what} was changed: it is no anchor")
            continue
        if run is None:
            restore = f"mlflow runs restore --run-id {anchor.get('run')}"
            return [f"the log is gone: {what} knows entry {number} of run {anchor.get('run')}; try: {restore}"]
        if number not in by_number:
            found.append(f"entry {number} is missing at the end of the log: the tag of {what} has its hash")
        elif by_number[number].get("hash") != known:
            found.append(f"entry {number} was replaced: the tag of {what} has another hash")
    if log and HEAD not in model.tags:
        found.append(f"the tag {HEAD} of the registered model was removed")
    logged: dict[str, Any] = {}
    overridden = set()
    for entry in log:
        data = entry.get("data") or {}
        if entry.get("kind") == "policy":
            logged["policy"] = data.get("sha256")
        elif entry.get("kind") == "promotion":
            logged.setdefault("aliases", {})[data.get("alias")] = entry.get("version")
        elif entry.get("kind") == "override":
            overridden.add(str(entry.get("version")))
    if "policy" in logged and model.tags.get(GATE) != logged["policy"]:
        found.append(f"the tag {GATE} of the registered model is not the policy of the log")
    if logged.get("policy"):  # otherwise registering a new version moves an alias, and nothing is logged
        for alias, version in logged.get("aliases", {}).items():
            now = model.aliases.get(alias)
            if now is None or int(now) != version:
                found.append(f"alias {alias}: the log moved it to version {version}, it is at {now or 'none'}")
    for each in versions:
        if str(each.version) in overridden and OVERRIDE not in each.tags:
            found.append(f"the tag {OVERRIDE} of version {each.version} was removed")
    return found


def _key(number: int) -> str:
    return f"{number:08d}"


def _entries_of(run: Run) -> list[Entry]:
    found = []
    for key in sorted(key for key in run.data.params if key.isdigit()):
        try:
            found.append(json.loads(run.data.params[key]))
        except ValueError:
            found.append({"number": int(key), "text": run.data.params[key]})
    return found


def _find(client: MlflowClient, name: str) -> Run | None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    query = f"tags.`{_MODEL}` = '{name}' and tags.`lwddpm.kind` = '{KIND}'"
    order = ["attributes.start_time ASC"]
    found = client.search_runs([experiment.experiment_id], query, max_results=1, order_by=order)
    return found[0] if found else None


def _create(client: MlflowClient, name: str) -> Run:
    """The run of a new log: of two that are made at the same time, both processes take the older one.

    Raises:
        JobError: the model had a log, which is gone: a new one would hide that.
    """
    if HEAD in _model(client, name).tags:
        raise JobError(f"{name}: its log is gone; lwddpm models verify-log {name} says how to bring it back")
    uri = str(client.tracking_uri)
    try:
        experiment = open_experiment(client, uri, EXPERIMENT)
    except ConfigError:  # made by another process in this moment, or deleted: then it says so
        experiment = open_experiment(client, uri, EXPERIMENT)
    note = (
        f"The log of models:/{name}: promotions, gates, overrides, approvals and audits, an entry a parameter. "
        f"`lwddpm models verify-log {name}` checks that none was changed, removed or reordered."
    )
    tags = {"lwddpm.kind": KIND, _MODEL: name, "mlflow.note.content": note}
    made = client.create_run(experiment, run_name=f"log of {name}", tags=tags)
    client.set_terminated(made.info.run_id)
    time.sleep(_SETTLED_S)
    run = _find(client, name)
    assert run is not None
    if run.info.run_id != made.info.run_id:
        client.delete_run(made.info.run_id)
    return run


def _model(client: MlflowClient, name: str) -> Any:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ConfigError(f"{name}: no such registered model; lwddpm models list shows what there is") from None
