"""Which ways to draw a model is measured in."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.config import EVALUATED, SamplingConfig, TradeoffConfig, TrainJob
from lwddpm.errors import ConfigError
from lwddpm.kinds.tradeoff.plan import TradeoffPlan, make_plan
from lwddpm.training.stored_guide import write_guide
from lwddpm.training.stored_presets import Preset, Presets

BASE = SamplingConfig(sampler="dpmsolver++", num_inference_steps=4, guidance=2.0)
PRESETS = Presets().with_presets({EVALUATED: Preset.of(BASE, 8, {}, "")})


def _planned(plan: TradeoffPlan) -> dict[str, SamplingConfig]:
    return {way.label: way.sampling for way in plan.ways}


def test_each_way_differs_from_the_preset_in_what_it_is_called_after(model_dir: Path) -> None:
    write_guide(model_dir, Path(shutil.copytree(model_dir, model_dir.parent / "weaker")))
    config = TradeoffConfig(guidance=(1.0, 2.0, 3.0), steps=(2, 4), eta=(0.5,), starts=("noise",))
    plan = make_plan(config, model_dir, PRESETS, 10)
    expected = {
        "preset evaluated": {},
        "unguided": {"guidance": 1.0},
        "guidance 3": {"guidance": 3.0},
        "guidance 2 from 0.2 to 2": {"guidance_interval": (0.2, 2.0)},
        "2 steps": {"num_inference_steps": 2},
        "unguided, 2 steps": {"num_inference_steps": 2, "guidance": 1.0},
        "start noise": {"start": "noise"},
        "sde-dpmsolver++": {"sampler": "sde-dpmsolver++"},
        "ddim, eta 0.5": {"sampler": "ddim", "eta": 0.5},
    }
    assert _planned(plan) == {label: BASE.model_copy(update=changes) for label, changes in expected.items()}
    calls = {way.label: way.network_calls for way in plan.ways}
    assert (calls["preset evaluated"], calls["unguided"], calls["unguided, 2 steps"]) == (8, 4, 2)
    assert plan.calls(10, 3) == 30 * sum(calls.values())


def test_a_conditional_model_is_led_away_from_each_source_that_it_has(conditional_dir: Path) -> None:
    none = {"guidance_intervals": (), "steps": (), "samplers": (), "eta": (), "starts": ()}
    config = TradeoffConfig.model_validate({**none, "guidance": (1.0, 2.0, 3.0)})
    plan = make_plan(
        config, conditional_dir, PRESETS, 10
    )  # the preset says nothing of the source, and no guide is there
    assert {label: sampling.guidance_from for label, sampling in _planned(plan).items()} == {
        "preset evaluated": "unconditional",
        "unguided": "unconditional",
        "guidance 3": "unconditional",
    }
    assert set(plan.left_out) == {
        f"guidance {weight} away from {source}"
        for weight in (2, 3)
        for source in ("the guide", "the guide told no class")
    }
    write_guide(conditional_dir, Path(shutil.copytree(conditional_dir, conditional_dir.parent / "weaker")))
    plan = make_plan(config, conditional_dir, PRESETS, 10)
    assert {way.varied: way.sampling.guidance_from for way in plan.ways} == {
        "preset": "guide",
        "guidance": "guide",
        "guidance_unconditional": "unconditional",
        "guidance_unconditional_guide": "unconditional_guide",
        "condition_guidance": "guide",
    }
    assert len(plan.ways) == 3 + 2 + 2 + 2
    assert len({way.label for way in plan.ways}) == 9
    both = {way.label: way.sampling for way in plan.ways if way.varied == "condition_guidance"}
    assert {label: (each.guidance, each.condition_guidance) for label, each in both.items()} == {
        "guidance of the conditions 3": (2, 3),
        "guidance of the conditions 5": (2, 5),
    }
    assert {way.network_calls for way in plan.ways if way.varied == "condition_guidance"} == {12}
    assert all(way.sampling.condition_guidance == 1 for way in plan.ways if way.varied != "condition_guidance")
    obeying = {**PRESETS.presets["evaluated"].sampling, "condition_guidance": 5.0}
    preset = PRESETS.presets["evaluated"].model_copy(update={"sampling": obeying})
    plan = make_plan(config, conditional_dir, PRESETS.model_copy(update={"presets": {"evaluated": preset}}), 10)
    assert {way.label: way.sampling.condition_guidance for way in plan.ways if way.varied == "condition_guidance"} == {
        "guidance of the conditions 1": 1,  # of which a preset that has some is to be seen without
        "guidance of the conditions 3": 3,
    }
    few = make_plan(config.model_copy(update={"guidance_from": ("guide",)}), conditional_dir, PRESETS, 10)
    assert {way.varied for way in few.ways} == {"preset", "guidance", "condition_guidance"}


def test_what_a_model_has_no_part_for_is_left_out_and_said(model_dir: Path) -> None:
    config = TradeoffConfig(guidance=(1.0, 2.0), guidance_intervals=(), steps=(5,), eta=(), starts=("gaussian",))
    plan = make_plan(config, model_dir, Presets(), 10)
    assert list(_planned(plan)) == ["dpmsolver++, 20 steps", "5 steps", "sde-dpmsolver++"]
    assert "no guide" in plan.left_out["guidance 2"]
    assert "no prior" in plan.left_out["start gaussian"]


def test_the_budget_leaves_the_dear_ones_out(model_dir: Path) -> None:
    config = TradeoffConfig(
        guidance=(), guidance_intervals=(), steps=(5, 500), samplers=(), eta=(0.0,), most_calls=4500
    )
    plan = make_plan(config, model_dir, Presets(), 10)  # 150 calls for a slice of each: 20 + 5 + 20
    assert list(_planned(plan)) == ["dpmsolver++, 20 steps", "5 steps", "start noise", "ddim, eta 0"]
    assert "beyond tradeoff.most_calls = 4,500" in plan.left_out["500 steps"]
    assert plan.calls(10, 3) <= 4500
    with pytest.raises(ConfigError, match="two ways to draw or more, got 1"):
        make_plan(config.model_copy(update={"most_calls": 600}), model_dir, Presets(), 10)


def test_snapshots_are_drawn_unguided_with_their_own_weights(model_dir: Path) -> None:
    run = model_dir.parent / "run"
    model = Path(shutil.copytree(model_dir, run / "model"))
    for name in ("snapshots/epoch_8", "snapshots/epoch_15", "averages/ema_0.05"):
        shutil.copytree(model_dir, run / name)
    none = {"guidance": (), "guidance_intervals": (), "steps": (5,), "samplers": (), "eta": (), "starts": ()}
    plan = make_plan(TradeoffConfig.model_validate(none), model, Presets(), 10)
    assert [(way.label, way.weights) for way in plan.ways if way.varied == "weights"] == [
        ("epoch 8", "snapshots/epoch_8"),
        ("epoch 15", "snapshots/epoch_15"),
        ("ema 0.05", "averages/ema_0.05"),
    ]
    assert len(make_plan(TradeoffConfig(**none, other_weights=False), model, Presets(), 10).ways) == 2


def test_points_of_ones_own_are_drawn_or_refused(model_dir: Path) -> None:
    points = ({"num_inference_steps": 3, "sampler": "unipc"},)
    plan = make_plan(TradeoffConfig(points=points), model_dir, Presets(), 10)
    assert _planned(plan)["num_inference_steps 3, sampler unipc"].sampler == "unipc"
    with pytest.raises(ConfigError, match=r"tradeoff.points: guidance 2: the model has no guide"):
        make_plan(TradeoffConfig(points=({"guidance": 2},)), model_dir, Presets(), 10)


@pytest.mark.parametrize(
    "setting", ["points=[{seed: 1}]", "points=[{sampler: euler}]", "sampling_seeds=[1, 1]", "sampling_seeds=[1]"]
)
def test_wrong_settings_are_refused(setting: str) -> None:
    from lwddpm.jobfile import load_job

    with pytest.raises(ConfigError, match=f"tradeoff.{setting.partition('=')[0]}"):
        load_job("tradeoff", [f"tradeoff.{setting}"])


def test_a_gan_is_drawn_with_less_and_less_of_its_latents(tiny_gan: Callable[..., TrainJob], tmp_path: Path) -> None:
    from lwddpm.models.build import build_model
    from lwddpm.training.stored_model import SavedModel, save_model

    job = tiny_gan("model.family=wgan")
    saved = SavedModel(
        model=job.model, diffusion=None, image_size=16, dataset_version="v", dataset_simulated=True,
        training_digest="d", step=1, epoch=1.0, parameters=1,
    )  # fmt: skip
    folder = save_model(tmp_path / "gan", build_model(job.model, 16), saved)
    ways = make_plan(TradeoffConfig(truncation=(0.5, 2.0)), folder, Presets(), 10).ways
    assert [(way.sampling.truncation, way.network_calls) for way in ways] == [(None, 1), (0.5, 1), (2.0, 1)]
    assert {way.sampling.sampler for way in ways} == {"generator"}
