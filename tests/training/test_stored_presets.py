"""Presets on disk, and what settings of the user's own do to them."""

import json
from pathlib import Path

import pytest

from lwddpm.config import EVALUATED, NO_PRESET, EvaluationConfig, SamplingConfig
from lwddpm.errors import CheckpointError, ConfigError
from lwddpm.training.stored_presets import (
    PRESETS_FILE,
    Figure,
    Preset,
    Presets,
    read_presets,
    words_of,
    write_presets,
)

DRAWN = SamplingConfig(
    sampler="dpmsolver++", num_inference_steps=10, guidance=2.0, guidance_interval=(0.2, 2.0), start="gaussian", seed=7
)
FIGURE = Figure(value=44.8, floor=16.6, n=300)
KNOWN = Presets().with_presets(
    {
        EVALUATED: Preset.of(DRAWN, 18, {"fd_lite0": FIGURE}, "as evaluated"),
        "diverse": Preset.of(SamplingConfig(sampler="ddim", num_inference_steps=4, eta=1.0), 4, {}, ""),
    }
)


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_presets(tmp_path) == Presets()  # of an earlier version
    write_presets(tmp_path, KNOWN)
    assert read_presets(tmp_path) == KNOWN
    assert "seed" not in KNOWN.presets[EVALUATED].sampling


def test_what_is_not_given_is_the_presets_and_what_is_given_changes_that_alone() -> None:
    name, drawn = KNOWN.resolved(SamplingConfig(seed=3, batch_size=2, num_inference_steps=5), "sampling")
    expected = DRAWN.model_copy(update={"seed": 3, "batch_size": 2, "num_inference_steps": 5})
    assert (name, drawn) == (EVALUATED, expected)
    name, drawn = KNOWN.resolved(SamplingConfig(preset="diverse", eta=0.5), "sampling")
    assert (name, drawn) == ("diverse", SamplingConfig(sampler="ddim", num_inference_steps=4, eta=0.5))
    # a setting that is given at its default counts as given, one that is null does not
    assert KNOWN.resolved(SamplingConfig(guidance=1.0), "sampling")[1].guidance == 1
    assert KNOWN.resolved(SamplingConfig.model_validate({"guidance": None}), "sampling")[1].guidance == 2


def test_the_settings_of_an_evaluation_keep_what_is_measured() -> None:
    _, config = KNOWN.resolved(EvaluationConfig(num_samples=9, metrics=("fd_lite0",)), "evaluation")
    assert isinstance(config, EvaluationConfig)
    assert (config.num_samples, config.metrics, config.guidance) == (9, ("fd_lite0",), 2.0)


@pytest.mark.parametrize(
    ("presets", "asked"), [(Presets(), None), (KNOWN, NO_PRESET), (KNOWN.with_presets({}), NO_PRESET)]
)
def test_without_one_the_defaults_are_drawn_with(presets: Presets, asked: str | None) -> None:
    name, drawn = presets.resolved(SamplingConfig(preset=asked), "sampling")
    assert (name, drawn) == (NO_PRESET, SamplingConfig())


def test_one_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"sampling.preset: .*evaluated, diverse and plain.*, got balanced"):
        KNOWN.resolved(SamplingConfig(preset="balanced"), "sampling")


def test_settings_that_do_not_go_with_it_are_told() -> None:
    trailing = Preset.of(SamplingConfig(timestep_spacing="trailing"), 50, {}, "")
    with pytest.raises(ConfigError, match=r"sampling.timestep_spacing: must be karras.*preset evaluated"):
        Presets().with_presets({EVALUATED: trailing}).resolved(SamplingConfig(sampler="heun"), "sampling")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"presets": {"a": {"sampling": {"seed": 1}, "network_calls": 1}}},
        {"presets": {"a": {"sampling": {"sampler": "euler"}, "network_calls": 1}}},
        {"presets": {"a": {"sampling": {}, "network_calls": 0}}},
        {"presets": {"../a": {"sampling": {}, "network_calls": 1}}},
        {"presets": {"a": {"sampling": {}, "network_calls": 1, "figures": {"fd_lite0": {"value": "nan", "n": 2}}}}},
        {"more": 1},
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / PRESETS_FILE).write_text(json.dumps(json.loads(KNOWN.model_dump_json()) | change))
    with pytest.raises(CheckpointError, match=PRESETS_FILE):
        read_presets(tmp_path)


def test_another_prior_takes_the_figures_and_the_start() -> None:
    (evaluated, _) = KNOWN.unmeasured().presets.values()
    assert evaluated.figures == {}
    assert SamplingConfig.model_validate(evaluated.sampling) == DRAWN.model_copy(update={"start": "auto", "seed": 0})


def test_the_words_tell_what_differs_from_the_defaults() -> None:
    assert words_of(DRAWN) == "dpmsolver++, 10 steps, start gaussian, guidance 2, guidance interval 0.2 to 2"
    assert words_of(SamplingConfig()) == "ddim, 50 steps"
    assert words_of(SamplingConfig(sampler="generator", num_inference_steps=1, truncation=0.7)) == (
        "one pass of the generator, truncation 0.7"
    )
    assert words_of(SamplingConfig(calibrate=True, num_inference_steps=1)) == "ddim, 1 step, calibrate"
