"""What a study was made with, also by earlier and later versions of this code."""

from dataclasses import asdict, replace

import optuna
import pytest

from lwddpm.errors import ConfigError
from lwddpm.search.definition import DEFINITION, Definition, open_study
from lwddpm.search.ranking import describe
from lwddpm.search.trials import records


def test_what_a_study_compares_cannot_change(url: str, definition: Definition) -> None:
    open_study(url, "s", definition)
    open_study(url, "s", definition)
    other = {"training.lr": {"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 1e-1}}}
    with pytest.raises(ConfigError) as error:
        open_study(url, "s", replace(definition, space=other, sampler="random", max_steps=100))
    assert "search.sampler was tpe, is random" in str(error.value)
    assert "search.max_steps was 90, is 100" in str(error.value)
    assert "training.lr was float (low 1e-05, high 0.01), is float (low 1e-05, high 0.1)" in str(error.value)
    optuna.create_study(study_name="foreign", storage=url)
    with pytest.raises(ConfigError, match="not made by lwddpm"):
        open_study(url, "foreign", definition)


def _made_by_another_version(url: str, name: str, attribute: dict[str, object]) -> optuna.Study:
    study = optuna.create_study(study_name=name, storage=url)
    study.set_user_attr(DEFINITION, attribute)
    return study


def test_the_format_of_a_definition_is_kept_with_it(url: str, definition: Definition) -> None:
    assert open_study(url, "s", definition).user_attrs[DEFINITION]["format"] == 1


def test_a_study_made_before_formats_had_numbers_is_continued(url: str, definition: Definition) -> None:
    made = _made_by_another_version(url, "before", asdict(definition))
    trial = made.ask()
    trial.report(4.0, 30)
    for name, value in {"step": 30, "metrics": {"eval/fd_lite0": 4.0}, "seconds": 1.5, "run_id": "abc"}.items():
        trial.set_user_attr(f"lwddpm.{name}", value)
    study = open_study(url, "before", definition)
    (record,) = records(study)
    assert (record.state, record.step, record.last, record.seconds, record.run_id) == ("running", 30, 4.0, 1.5, "abc")
    assert describe(study)["definition"]["max_steps"] == 90
    with pytest.raises(ConfigError, match=r"search\.max_steps was 90, is 100"):
        open_study(url, "before", replace(definition, max_steps=100))


def test_a_study_of_a_version_without_constraints_has_none(url: str, definition: Definition) -> None:
    kept = {name: value for name, value in asdict(definition).items() if name != "constraints"}
    _made_by_another_version(url, "unconstrained", kept)
    open_study(url, "unconstrained", definition)
    with pytest.raises(ConfigError, match=r"search\.constraints was \{\}, is \{'audit/copied_share': 0\.02\}"):
        open_study(url, "unconstrained", replace(definition, constraints={"audit/copied_share": 0.02}))


def test_a_study_is_known_by_the_digest_that_0_1_0_had_for_its_job(url: str, definition: Definition) -> None:
    made = _made_by_another_version(url, "earlier", asdict(definition) | {"job": "0.1.0"})
    with pytest.raises(ConfigError, match=r"data, model, diffusion or training was 0\.1\.0"):
        open_study(url, "earlier", definition)
    with pytest.raises(ConfigError, match=r"search\.max_steps was 90, is 100"):
        open_study(url, "earlier", replace(definition, max_steps=100), earlier_job="0.1.0")
    assert made.user_attrs[DEFINITION]["job"] == "0.1.0"
    open_study(url, "earlier", definition, earlier_job="0.1.0")
    open_study(url, "earlier", definition)


def test_a_study_made_before_a_field_existed_is_refused_with_a_remedy(url: str, definition: Definition) -> None:
    attribute = asdict(definition)
    del attribute["proxy"], attribute["reduction_factor"]
    study = _made_by_another_version(url, "older", attribute)
    with pytest.raises(ConfigError, match=r"did not keep reduction_factor, proxy.*another name, or use --fresh"):
        open_study(url, "older", definition)
    assert describe(study)["name"] == "older", "it can still be looked at"


def test_a_study_of_a_newer_version_is_refused_with_a_remedy(url: str, definition: Definition) -> None:
    _made_by_another_version(url, "newer", asdict(definition) | {"format": 2, "warmth": 0.5})
    with pytest.raises(ConfigError, match=r"format 1 or lower, got 2.*or use --fresh"):
        open_study(url, "newer", definition)
