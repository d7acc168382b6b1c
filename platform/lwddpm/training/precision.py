"""Number format and memory layout: what makes a step fast on the device at hand."""

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lwddpm.config import ModelConfig, TrainingConfig

# On a CPU, from this width on channels_last pays in bf16 and not in float32; for narrower networks it is the reverse.
# bf16: below it, GroupNorm's slower backward pass costs more than the convolutions gain. float32 with AVX2: above it,
# the weights' gradients of large convolutions take 2 to 3 times as long (paper's step 0.87 times as fast; narrow 1.1).
_WIDE_DIM = 48
# Compiling takes minutes; a shorter run on a GPU ends sooner without it.
_MIN_STEPS_FOR_COMPILE = 5000


@dataclass(frozen=True)
class Precision:
    """How the forward pass runs. Weights and optimizer state stay float32 in every case."""

    device_type: str
    bf16: bool
    channels_last: bool
    compile: bool

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
    if device.type == "cuda":
        fast_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast_bf16 = _cpu_multiplies_bf16()
    else:
        fast_bf16 = False
    bf16 = fast_bf16 if training.precision == "auto" else training.precision == "bf16"
    pays = device.type == "cuda" or (model.dim >= _WIDE_DIM) == bf16
    channels_last = pays if training.channels_last == "auto" else training.channels_last
    has_compiler = any(map(shutil.which, ("cc", "gcc", "clang")))  # slim container images have none
    long_on_gpu = device.type == "cuda" and num_steps >= _MIN_STEPS_FOR_COMPILE
    compile_ = (long_on_gpu and has_compiler) if training.compile == "auto" else training.compile
    return Precision(device.type, bf16, channels_last, compile_)


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions that multiply bf16, in matrix (AMX) or in vector units.

    Measured against float32: 1.3 to 3 times the speed with AMX, 1.4 to 1.9 times with AVX-512 BF16, from dim 16 up.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older versions
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
