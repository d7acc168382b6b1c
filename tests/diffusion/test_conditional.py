"""Drawing of a network with conditions: what each image is asked for, and what guidance leads away from."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lwddpm.conditions import NULL, Category, Combination, Vocabulary
from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig
from lwddpm.diffusion.denoiser import Denoiser
from lwddpm.diffusion.process import DiffusionProcess
from lwddpm.diffusion.sampling import denoising_trajectory, generate
from lwddpm.diffusion.timesteps import network_calls
from lwddpm.models.build import build_model
from lwddpm.models.precision import DrawingNetwork, Precision

pytestmark = pytest.mark.filterwarnings(
    # diffusers 0.42 wraps torch tensors by np.array; NumPy 2 finds torch's __array__ outdated.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
DIFFUSION = DiffusionConfig(prediction_type="v_prediction")
VOCABULARY = Vocabulary(
    conditions=(Category(name="label", values=("a", "b")),),
    combinations=(Combination(codes=(0,), count=3), Combination(codes=(1,), count=1)),
    dropout=0.1,
)
SIZE = 16


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model(ModelConfig(dim=8, dim_mults=(1, 2)), vocabulary=VOCABULARY)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network(0)


def draw(model: nn.Module, indices: range = range(4), guide: nn.Module | None = None, **settings: object) -> Tensor:
    sampling = SamplingConfig.model_validate({"num_inference_steps": 3} | settings)
    return generate(model, DIFFUSION, sampling, indices, SIZE, "cpu", guide=guide)


def test_each_image_is_of_its_class_and_depends_on_its_number_alone(model: nn.Module) -> None:
    mixture, a, b = draw(model), draw(model, conditions={"label": "a"}), draw(model, conditions={"label": "b"})
    codes = VOCABULARY.assigned({}, "train", range(4))[:, 0]
    assert set(codes.tolist()) == {0, 1}
    for i, code in enumerate(codes):
        assert torch.equal(mixture[i], (a, b)[int(code)][i])
        assert not torch.equal(a[i], b[i])
    assert torch.equal(draw(model, range(2, 4)), mixture[2:])
    assert torch.equal(draw(model, batch_size=1), mixture)
    drawing = DrawingNetwork(model, Precision("cpu", bf16=False, channels_last=False, compile=False), 4)
    assert torch.equal(draw(drawing), mixture)
    sampling = SamplingConfig(num_inference_steps=3)
    frames, _ = denoising_trajectory(model, DIFFUSION, sampling, range(4), SIZE, "cpu", 3)
    assert torch.equal(frames[:, -1], mixture)


def test_nothing_said_is_the_network_without_conditions(model: nn.Module) -> None:
    class Untold(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            return model(x, timesteps)

    assert torch.equal(draw(Untold().eval()), draw(model, conditions={"label": None}))


@pytest.mark.parametrize("away_from", ["unconditional", "guide", "unconditional_guide"])
def test_guidance_leads_away_from_what_it_names(model: nn.Module, away_from: str) -> None:
    """One step of the denoiser, by the equation of Ho & Salimans 2022, eq. 6, on clean slices."""
    process, guide, t = DiffusionProcess(DIFFUSION), network(1), 400
    x, given, null = torch.randn(2, 1, SIZE, SIZE), torch.tensor([[0.0], [1.0]]), torch.full((2, 1), NULL)
    calls: list[int] = []
    hook = model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    weak = {"unconditional": (model, null), "guide": (guide, given), "unconditional_guide": (guide, null)}[away_from]
    sampling = SamplingConfig(guidance=2.5)
    with torch.no_grad():
        found = Denoiser(model, process, sampling, weak[0], None, given, weak[1]).clean(x, t)
        hook.remove()

        def alone(network: nn.Module, told: Tensor) -> Tensor:
            times = torch.full((2,), t)
            return process.predict_x_0(x, times, network(x, times, given=told)).clamp(-1, 1)

        strong, away = alone(model, given), alone(*weak)
    torch.testing.assert_close(found, (away + 2.5 * (strong - away)).clamp(-1, 1), rtol=1e-4, atol=1e-5)
    assert calls == ([4] if away_from == "unconditional" else [2]), "two branches of one network are one batch"


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_guidance_of_the_conditions_is_added_to_that_by_a_guide(model: nn.Module, weight: float) -> None:
    """One step of the denoiser: two differences from the same strong estimate, each with its weight."""
    process, guide, t = DiffusionProcess(DIFFUSION), network(1), 400
    x, given, null = torch.randn(2, 1, SIZE, SIZE), torch.tensor([[0.0], [1.0]]), torch.full((2, 1), NULL)
    calls: list[int] = []
    hooks = [
        each.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0]))) for each in (model, guide)
    ]
    sampling = SamplingConfig(guidance=weight, condition_guidance=4)
    with torch.no_grad():
        weak = None if weight == 1 else guide
        found = Denoiser(model, process, sampling, weak, None, given, given).clean(x, t)
        for hook in hooks:
            hook.remove()

        def alone(network: nn.Module, told: Tensor) -> Tensor:
            times = torch.full((2,), t)
            return process.predict_x_0(x, times, network(x, times, given=told)).clamp(-1, 1)

        strong, away, nothing = alone(model, given), alone(guide, given), alone(model, null)
    expected = away + weight * (strong - away) + 3 * (strong - nothing)
    torch.testing.assert_close(found, expected.clamp(-1, 1), rtol=1e-4, atol=1e-5)
    assert calls == ([4] if weight == 1 else [4, 2]), "told and told nothing are one batch"


def test_guidance_of_the_conditions_alone_is_classifier_free_guidance(model: nn.Module) -> None:
    ordinary = draw(model, guidance=4, guidance_from="unconditional")
    torch.testing.assert_close(draw(model, condition_guidance=4).int(), ordinary.int(), rtol=0, atol=1)
    both = draw(model, guide=network(1), guidance=2, condition_guidance=4)
    assert torch.equal(both, draw(model, guide=network(1), guidance=2, guidance_from="guide", condition_guidance=4))
    assert not torch.equal(both, draw(model, guide=network(1), guidance=2))
    with pytest.raises(ValueError, match="takes a model that has a guide"):
        draw(model, guidance=2, condition_guidance=4)


@pytest.mark.parametrize("source", ["unconditional", "unconditional_guide"])
def test_nothing_leads_away_from_no_conditions_twice(source: str) -> None:
    with pytest.raises(ValueError, match="so does guidance_from"):
        SamplingConfig.model_validate({"guidance": 2, "guidance_from": source, "condition_guidance": 4})
    SamplingConfig.model_validate({"guidance_from": source, "condition_guidance": 4})  # there is no guidance by it


def test_a_network_without_conditions_has_none_to_be_guided_by() -> None:
    plain = build_model(ModelConfig(dim=8, dim_mults=(1, 2)))
    with pytest.raises(ValueError, match="condition_guidance takes a model that has conditions"):
        draw(plain, condition_guidance=2)


def test_what_auto_leads_away_from(model: nn.Module) -> None:
    guide = network(1)
    alone = draw(model, guidance=2)
    assert torch.equal(alone, draw(model, guidance=2, guidance_from="unconditional"))
    assert torch.equal(alone, draw(model, guide=guide, guidance=2, guidance_from="unconditional"))
    assert torch.equal(
        draw(model, guide=guide, guidance=2), draw(model, guide=guide, guidance=2, guidance_from="guide")
    )
    assert not torch.equal(draw(model, guide=guide, guidance=2), alone)
    with pytest.raises(ValueError, match="takes a model that has a guide, or conditions"):
        draw(model, guidance=2, guidance_from="guide")


def test_a_network_whose_null_token_is_its_class_is_not_moved(model: nn.Module) -> None:
    deaf = copy.deepcopy(model)
    nn.init.zeros_(deaf.condition_embedding.weight)  # type: ignore[union-attr,arg-type]
    torch.testing.assert_close(draw(deaf, guidance=3).int(), draw(deaf).int(), rtol=0, atol=1)


def test_guided_steps_count_twice_within_their_interval() -> None:
    sampling = SamplingConfig(num_inference_steps=4, guidance=2, guidance_interval=(0.2, 2))
    plain = network_calls(DIFFUSION, sampling.model_copy(update={"guidance": 1.0}), None)
    assert plain < network_calls(DIFFUSION, sampling, None) < 2 * plain


def test_guidance_of_the_conditions_is_one_more_call_within_the_interval() -> None:
    both = SamplingConfig(num_inference_steps=4, guidance=2, condition_guidance=3)
    assert network_calls(DIFFUSION, both, None) == 12
    assert network_calls(DIFFUSION, both.model_copy(update={"guidance": 1.0}), None) == 8
    some = both.model_copy(update={"guidance_interval": (0.2, 2)})
    one = some.model_copy(update={"condition_guidance": 1.0})
    assert network_calls(DIFFUSION, some, None) - 4 == 2 * (network_calls(DIFFUSION, one, None) - 4)


def test_compiled_networks_see_one_size_and_its_double(model: nn.Module) -> None:
    sizes = []

    class Seen(nn.Module):
        vocabulary = VOCABULARY

        def forward(self, x: Tensor, timesteps: Tensor, given: Tensor) -> Tensor:
            assert len(x) == len(timesteps) == len(given)
            sizes.append(len(x))
            return x

    drawing = DrawingNetwork(Seen(), Precision("cpu", bf16=False, channels_last=False, compile=False))
    drawing.batch_size = 4
    for num in (3, 4, 6, 8):
        drawing(torch.zeros(num, 1, 2, 2), torch.zeros(num).long(), torch.zeros(num, 1))
    assert sizes == [4, 4, 8, 8]
