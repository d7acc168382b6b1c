"""Number format and memory layout: what makes training and drawing fast on the device at hand."""

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.conditions import Vocabulary
from lwddpm.config import ModelConfig, TrainingConfig

NumberFormat = Literal["fp32", "bf16"]

# On a CPU, from this width on channels_last pays in bf16 and not in float32; for narrower networks it is the reverse.
# bf16: below it, GroupNorm's slower backward pass costs more than the convolutions gain. float32 with AVX2: above it,
# the weights' gradients of large convolutions take 2 to 3 times as long (paper's step 0.87 times as fast; narrow 1.1).
_WIDE_DIM = 48
# Compiling takes minutes; a shorter run on a GPU ends sooner without it.
_MIN_STEPS_FOR_COMPILE = 5000
_MIN_CALLS_FOR_COMPILE = 10_000  # of a network that draws: some minutes of a large one without compiling


@dataclass(frozen=True)
class Precision:
    """How the forward pass runs. Weights and optimizer state stay float32 in every case."""

    device_type: str
    bf16: bool
    channels_last: bool
    compile: bool

    @property
    def number_format(self) -> NumberFormat:
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device_type, torch.bfloat16) if self.bf16 else nullcontext()

    def place(self, model: nn.Module) -> nn.Module:
        """Give the weights the memory format that the convolutions want."""
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def place_input(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def choose_precision(
    training: TrainingConfig, model: ModelConfig, device: torch.device, num_steps: int = 0
) -> Precision:
    """Settle every `auto` for this device and this network.

    Args:
        training: `precision`, `channels_last` and `compile`, each fixed or `auto`.
        model: its width decides whether channels_last pays on a CPU.
        device: where the steps run.
        num_steps: length of the run; decides whether compiling pays on a GPU.
    """
    bf16 = multiplies_bf16(device) if training.precision == "auto" else training.precision == "bf16"
    pays = _channels_last_pays(model, device, bf16)
    channels_last = pays if training.channels_last == "auto" else training.channels_last
    long_on_gpu = device.type == "cuda" and num_steps >= _MIN_STEPS_FOR_COMPILE
    compile_ = (long_on_gpu and _has_compiler()) if training.compile == "auto" else training.compile
    return Precision(device.type, bf16, channels_last, compile_)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bf16: where `auto` takes it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_multiplies_bf16()


class DrawingNetwork(nn.Module):
    """A diffusion network as samplers call it: float32 in and out, in a number format and layout of its own in between.

    What surrounds the network, the scheduler's arithmetic above all, stays float32.

    Args:
        network: on its device, its weights float32.
        precision: how it runs.
        batch_size: a compiled network sees no other size and its multiples, since each size is compiled by itself.

    Attributes:
        vocabulary: of the network's conditions; None: it has none.
    """

    def __init__(self, network: nn.Module, precision: Precision, batch_size: int | None = None) -> None:
        super().__init__()
        self.network, self.precision = precision.place(network), precision
        self.vocabulary: Vocabulary | None = getattr(network, "vocabulary", None)
        self.train(network.training)  # samplers put a network back into the mode that it was in
        self.batch_size = batch_size if precision.compile else None
        if precision.compile and batch_size is not None:
            self.network.compile()

    def forward(self, x: Tensor, timesteps: Tensor, given: Tensor | None = None) -> Tensor:
        """x float [B, 1, H, W], timesteps long [B] and conditions float32 [B, C] to the prediction, float32
        [B, 1, H, W]."""
        missing = -len(x) % (self.batch_size or 1)
        padded, times = F.pad(x, (0, 0, 0, 0, 0, 0, 0, missing)), F.pad(timesteps, (0, missing))
        conditions = {} if given is None else {"given": F.pad(given, (0, 0, 0, missing))}
        with self.precision.autocast():
            predicted = self.network(self.precision.place_input(padded), times, **conditions)
        return predicted[: len(x)].float()


def drawing_precision(
    precision: NumberFormat, model: ModelConfig, device: torch.device, num_calls: int = 0
) -> Precision:
    """How a diffusion network draws. fp32 is the arithmetic of versions before there was a choice, in their layout.

    Args:
        precision: settled, see `settled_precision`.
        model: its width decides whether channels_last pays on a CPU.
        device: where it draws.
        num_calls: of the network; decides whether compiling pays on a GPU.
    """
    bf16 = precision == "bf16"
    long_on_gpu = device.type == "cuda" and num_calls >= _MIN_CALLS_FOR_COMPILE
    return Precision(
        device.type, bf16, bf16 and _channels_last_pays(model, device, bf16), bf16 and long_on_gpu and _has_compiler()
    )


def settled_precision(asked: Literal["auto", NumberFormat], device: torch.device) -> NumberFormat:
    """The number format of a drawing on this device; what `auto` comes to."""
    if asked != "auto":
        return asked
    return "bf16" if multiplies_bf16(device) else "fp32"


def _channels_last_pays(model: ModelConfig, device: torch.device, bf16: bool) -> bool:
    return device.type == "cuda" or (model.dim >= _WIDE_DIM) == bf16


def _has_compiler() -> bool:
    return any(map(shutil.which, ("cc", "gcc", "clang")))  # slim container images have none


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions that multiply bf16, in matrix (AMX) or in vector units.

    Measured against float32: 1.3 to 3 times the speed with AMX, 1.4 to 1.9 times with AVX-512 BF16, from dim 16 up.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older versions
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
