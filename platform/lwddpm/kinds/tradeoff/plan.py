"""Which ways to draw a trade-off job measures: those that a model has the parts for, and that the budget pays."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lwddpm.config import (
    NO_PRESET,
    ONE_PASS,
    UNGUIDED,
    EvaluationConfig,
    RuleBroken,
    SamplingConfig,
    TradeoffConfig,
    check_steps,
    leads_away_from,
)
from lwddpm.errors import ConfigError
from lwddpm.evaluation.tradeoff import METRICS
from lwddpm.kinds.saved_model import calls_of, settled_guidance
from lwddpm.training.stored_guide import has_guide
from lwddpm.training.stored_model import SavedModel, read_saved_model
from lwddpm.training.stored_presets import Presets, words_of
from lwddpm.training.stored_prior import PRIOR_FILE

MODEL = "model"
# without guidance; what it would lead away from stays named, as in files of earlier versions
_PLAIN = {name: value for name, value in UNGUIDED.items() if name != "guidance_from"}
_NEVER_WITHOUT = "the model never learnt to draw without its conditions (training.condition_dropout)"
SOURCES = {"unconditional": "no class", "guide": "the guide", "unconditional_guide": "the guide told no class"}


@dataclass(frozen=True)
class PlannedWay:
    """A way to draw, see `evaluation.tradeoff.Way`; `model_dir` has the weights."""

    label: str
    varied: str
    sampling: SamplingConfig
    model_dir: Path
    weights: str
    network_calls: int

    def evaluation(self, config: TradeoffConfig, seed: int) -> EvaluationConfig:
        """How a sampling of it is measured."""
        settings = self.sampling.model_dump(exclude={"seed", "batch_size", "preset"})
        return EvaluationConfig(
            **settings,
            seed=seed,
            batch_size=config.batch_size,
            metrics=METRICS,
            num_samples=config.num_samples,
            num_reference=config.num_reference,
        )


@dataclass
class TradeoffPlan:
    """Attributes:
    ways: the preset first.
    left_out: the labels of others, with the reason.
    """

    ways: list[PlannedWay] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def calls(self, num_samples: int, num_seeds: int) -> int:
        """Network calls of all, each for one slice."""
        return sum(way.network_calls for way in self.ways) * num_samples * num_seeds


def make_plan(config: TradeoffConfig, model_dir: Path, presets: Presets, num_samples: int) -> TradeoffPlan:
    """Plan the ways to draw.

    Args:
        presets: of the model.
        num_samples: slices of a sampling.

    Raises:
        ConfigError: no such preset, a point that the model cannot draw, or a budget that pays none.
    """
    saved, plan = read_saved_model(model_dir), TradeoffPlan()
    name, base = _base(config, saved, model_dir, presets)
    seen: set[tuple[str, str]] = set()
    budget = config.most_calls // (num_samples * len(config.sampling_seeds))
    for label, varied, sampling, folder in _ways(config, name, base, saved, model_dir):
        reason = _why_not(sampling, saved, folder)
        if reason and varied == "points":
            raise ConfigError(f"tradeoff.points: {label}: {reason}")
        if reason:
            plan.left_out[label] = reason
            continue
        key = (sampling.model_dump_json(), str(folder))
        if key in seen:
            continue
        seen.add(key)
        if any(label == known.label for known in plan.ways):  # such as two weights that round to one
            label = f"{label} ({len(plan.ways) + 1})"
        weights = MODEL if folder == model_dir else f"{folder.parent.name}/{folder.name}"
        way = PlannedWay(label, varied, sampling, folder, weights, calls_of(sampling, folder))
        if sum(each.network_calls for each in plan.ways) + way.network_calls > budget:
            plan.left_out[label] = f"beyond tradeoff.most_calls = {config.most_calls:,}"
            continue
        plan.ways.append(way)
    if len(plan.ways) < 2:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in plan.left_out.items())
        raise ConfigError(f"tradeoff: must leave two ways to draw or more, got {len(plan.ways)} ({reasons})")
    return plan


def _base(config: TradeoffConfig, saved: SavedModel, model_dir: Path, presets: Presets) -> tuple[str, SamplingConfig]:
    """What the others differ from, and its label."""
    given = {} if config.preset is None else {"preset": config.preset}
    name, base = presets.resolved(SamplingConfig.model_validate(given), "tradeoff")
    if saved.diffusion is None:
        return f"preset {name}", base.model_copy(update=ONE_PASS)
    if name != NO_PRESET or config.preset:
        return f"preset {name}", settled_guidance(base, saved, model_dir)
    base = SamplingConfig(sampler="dpmsolver++", num_inference_steps=min(20, saved.diffusion.num_train_timesteps))
    return words_of(base), base


def _ways(
    config: TradeoffConfig, name: str, base: SamplingConfig, saved: SavedModel, model_dir: Path
) -> Iterator[tuple[str, str, SamplingConfig, Path]]:
    """(label, varied, sampling, folder) of all ways that are asked for."""

    def changed(**changes: Any) -> SamplingConfig:
        settings = base.model_dump(exclude={"timestep_spacing"} if "sampler" in changes else None) | changes
        return settled_guidance(SamplingConfig.model_validate(settings), saved, model_dir)

    yield name, "preset", base, model_dir
    if saved.diffusion is None:
        yield "whole latents", "truncation", changed(truncation=None), model_dir
        for limit in config.truncation:
            yield f"truncation {limit:g}", "truncation", changed(truncation=limit), model_dir
    else:
        guided = base.guidance if base.guidance != 1 else max((*config.guidance, 1.0))
        for weight in config.guidance:
            how = _PLAIN if weight == 1 else {"guidance": weight}
            label = "unguided" if weight == 1 else f"guidance {weight:g}"
            yield label, "guidance", changed(**how), model_dir
        for source in config.guidance_from if saved.conditions is not None else ():
            if source == leads_away_from(base, has_guide=has_guide(model_dir)):
                continue  # those above
            for weight in (weight for weight in config.guidance if weight != 1):
                label = f"guidance {weight:g} away from {SOURCES[source]}"
                how = {"guidance": weight, "guidance_from": source, "condition_guidance": 1.0}
                yield label, f"guidance_{source}", changed(**how), model_dir
        if saved.conditions is not None and leads_away_from(base, has_guide=has_guide(model_dir)) == "guide":
            for weight in config.condition_guidance:
                label = f"guidance of the conditions {weight:g}"
                yield label, "condition_guidance", changed(condition_guidance=weight), model_dir
        for low, high in config.guidance_intervals:
            label = f"guidance {guided:g} from {low:g} to {high:g}"
            yield label, "guidance_interval", changed(guidance=guided, guidance_interval=(low, high)), model_dir
        for steps in config.steps:
            yield f"{steps} steps", "num_inference_steps", changed(num_inference_steps=steps), model_dir
            if base.guided:
                plain = changed(num_inference_steps=steps, **_PLAIN)
                yield f"unguided, {steps} steps", "num_inference_steps", plain, model_dir
        for start in config.starts:
            yield f"start {start}", "start", changed(start=start), model_dir
        for sampler in config.samplers:
            yield sampler, "sampler", changed(sampler=sampler), model_dir
        for eta in config.eta:
            yield f"ddim, eta {eta:g}", "eta", changed(sampler="ddim", eta=eta), model_dir
    for point in config.points:
        label = ", ".join(f"{name} {value}" for name, value in point.items())
        try:
            yield label, "points", changed(**point), model_dir
        except ValidationError as error:
            raise ConfigError(f"tradeoff.points: {label}: {error.errors()[0]['msg']}") from None
    if config.other_weights and model_dir.name == "model":
        for kind in ("snapshots", "averages"):
            for folder in sorted((model_dir.parent / kind).glob("*"), key=lambda path: (len(path.name), path.name)):
                if (folder / "config.json").is_file():
                    alone = changed(start="auto", **_PLAIN)  # they have no prior or guide
                    yield folder.name.replace("_", " "), "weights", alone if saved.diffusion else base, folder


def _why_not(sampling: SamplingConfig, saved: SavedModel, folder: Path) -> str:
    """Why a model cannot draw so; nothing where it can."""
    if saved.diffusion is None:
        return ""
    try:
        check_steps(sampling, saved.diffusion, "sampling")
    except RuleBroken as broken:
        return str(broken)
    if sampling.condition_guidance != 1 and not saved.draws_without_conditions:
        return _NEVER_WITHOUT
    if sampling.guidance != 1:
        away_from = leads_away_from(sampling, has_guide=has_guide(folder))
        if ("guide" in away_from or saved.conditions is None) and not has_guide(folder):
            return "the model has no guide (training.guide_epoch)"
        if "unconditional" in away_from and saved.conditions is not None and not saved.draws_without_conditions:
            return _NEVER_WITHOUT
    if (sampling.start == "gaussian" or sampling.calibrate) and not (folder / PRIOR_FILE).exists():
        return "the model has no prior (lwddpm models calibrate)"
    return ""
