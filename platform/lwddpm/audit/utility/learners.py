"""Two learners: logistic regression on frozen features, and a small residual network from scratch."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.audit.utility.arms import Arm, real_rows, synthetic_rows
from lwddpm.config import UtilityConfig
from lwddpm.evaluation.linear import STRENGTH, Linear

_WIDTHS = (16, 32, 64)
_GRID = 16  # cells along a side after the first layer, whatever the size of the slices
_LR, _WEIGHT_DECAY = 3e-3, 0.01
_SHIFT = 16  # slices are shifted by up to 1 / 16 of their size


class Slices(NamedTuple):
    """N slices of known class.

    Attributes:
        images: uint8 [N, S, S].
        labels: int64 [N]; of synthetic ones the class that they were asked for, -1: none.
        groups: int64 [N]; slices of one group are one observation.
        features: float32 [N, D]; D = 0 where no learner needs them.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    features: np.ndarray

    def part(self, rows: np.ndarray) -> "Slices":
        return Slices(*(column[rows] for column in self))


class Fit(NamedTuple):
    """What a learner answers: a class for each test slice and each synthetic slice that it is tested on.

    Attributes:
        steps: optimizer steps taken; 0: to the optimum of a convex loss, which no number of steps changes.
    """

    on_real: np.ndarray
    on_synthetic: np.ndarray
    steps: int


def learn(
    arm: Arm, config: UtilityConfig, train: Slices, test: Slices, synthetic: Slices, num_classes: int, device: str
) -> Fit:
    """Learn from the mixture of an arm; answer for the test slices, and for as many synthetic ones.

    Args:
        synthetic: all that were drawn; those that answers are for are the first ones.
    """
    rows = real_rows(train.labels, train.groups, arm.share, arm.seed)
    beside = train.labels[rows] if arm.share > 0 else train.labels
    counts = np.round(arm.ratio * np.bincount(beside, minlength=num_classes)).astype(int)
    parts = [train.part(rows), synthetic.part(synthetic_rows(synthetic.labels, counts, arm.seed))]
    mixture = Slices(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    asked = first_asked(synthetic, len(test.labels))
    if arm.learner == "logistic":
        # the penalty weighs as much against the mean loss from every mixture: C is for a sum over slices
        strength = STRENGTH * len(train.labels) / len(mixture.labels)
        classifier = Linear.of(mixture.features, mixture.labels, num_classes, strength)
        told = [classifier(torch.from_numpy(slices.features)).numpy() for slices in (test, asked)]
        return Fit(told[0], told[1], 0)
    network, steps = _trained(mixture, num_classes, config, arm.seed, device)
    answers = [_answers(network, slices.images, device) for slices in (test, asked)]
    return Fit(answers[0], answers[1], steps)


def first_asked(synthetic: Slices, num: int) -> Slices:
    """The synthetic slices that learners from real ones are tested on: the first ones that were asked for a class."""
    return synthetic.part(np.flatnonzero(synthetic.labels >= 0)[:num])


class SmallResNet(nn.Module):
    """Three residual stages (He et al. 2015) on a grid of 16, 8 and 4 cells; slices float [B, 1, S, S] -> [B, K]."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        stride = max(1, image_size // _GRID)
        first = nn.Conv2d(1, _WIDTHS[0], 2 * stride + 1, stride, stride, bias=False)
        stages = [
            _Block(inner, outer, 1 if outer == inner else 2)
            for inner, outer in zip((_WIDTHS[0], *_WIDTHS), _WIDTHS, strict=False)
        ]
        self.stem, self.stages = nn.Sequential(first, nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU()), nn.Sequential(*stages)
        self.head = nn.Linear(_WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.stages(self.stem(images)).mean((2, 3)))
        return scores


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        same = inner == outer and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        return F.relu(self.body(values) + self.skip(values))


def _trained(slices: Slices, num_classes: int, config: UtilityConfig, seed: int, device: str) -> tuple[nn.Module, int]:
    """A network after `config.steps` steps, however many slices there are; every class counts alike in the loss."""
    images = torch.from_numpy(np.ascontiguousarray(slices.images)).to(device)
    labels = torch.from_numpy(slices.labels).to(device)
    counts = torch.bincount(labels, minlength=num_classes).double()
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
    weights = (weights * len(labels) / (counts > 0).sum()).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallResNet(num_classes, images.shape[-1]).to(device).train()
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    size = min(config.batch_size, len(labels))
    order, steps = torch.empty(0, dtype=torch.int64), 0
    for _ in range(config.steps):
        while len(order) < size:
            order = torch.cat([order, torch.randperm(len(labels), generator=draw)])
        rows, order = order[:size].to(device), order[size:]
        loss = F.cross_entropy(network(_moved(_scaled(images[rows]), draw)), labels[rows], weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        steps += 1
    return network.eval(), steps


def _scaled(images: Tensor) -> Tensor:
    return images[:, None].float() / 127.5 - 1


def _moved(images: Tensor, draw: torch.Generator) -> Tensor:
    """Each batch is shifted a little, and half of its slices are mirrored left to right."""
    limit = images.shape[-1] // _SHIFT
    down, right = torch.randint(-limit, limit + 1, (2,), generator=draw).tolist()
    mirrored = (torch.rand(len(images), generator=draw) < 0.5).to(images.device)
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return torch.roll(images, (down, right), (2, 3))


@torch.inference_mode()
def _answers(network: nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    parts = [torch.from_numpy(np.ascontiguousarray(images[i : i + 256])) for i in range(0, len(images), 256)]
    told = [network(_scaled(part.to(device))).argmax(1).cpu() for part in parts]
    return torch.cat([torch.empty(0, dtype=torch.int64), *told]).numpy()
