"""The figures of a report in order, each with a caption that says what is needed to read it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from matplotlib.figure import Figure

from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.figure_style import Theme
from lwddpm.report import by_class, pictures, plots
from lwddpm.report.data import Measurement, ReportData
from lwddpm.report.results import num_slices
from lwddpm.report.style import display_name
from lwddpm.wording import listed, number


class Drawing(NamedTuple):
    """A figure.

    Attributes:
        key: its file name and anchor.
        number: such as "Figure 5", as in the paper, or "Figure A" for one that the paper does not have.
        part: `paper` or `beyond`.
    """

    key: str
    number: str
    title: str
    caption: str
    part: str
    draw: Callable[[Theme], Figure]


def drawings(data: ReportData) -> list[Drawing]:
    """Those figures that there are data for."""
    report, images = data.report, data.images
    size = f"{report.image_size} x {report.image_size} px"
    source = "simulated slices" if report.simulated else "real slices"
    figures: list[Drawing] = []

    def add(key: str, number: str, title: str, caption: str, draw: Callable[..., Figure], part: str = "paper") -> None:
        figures.append(Drawing(key, number, title, caption, part, draw))

    schedule = report.settings["diffusion"]["beta_schedule"]
    if "forward" in images:
        caption = f"{source.capitalize()} of {size} under the {schedule} schedule, from none to all noising steps."
        add("noising", "Figure 1", "Forward noising", caption, partial(pictures.strip, data, "forward"))
    if "reverse" in images:
        caption = f"Samples of {_denoiser(data)} emerging from noise, {size}. Synthetic."
        add("recovery", "Figure 2", "Reverse recovery", caption, partial(pictures.strip, data, "reverse"))
    if any(name.startswith("class/") for name in images):
        caption = (
            f"Training slices of every class as the networks see them, {size}, evenly spread over the sorted files; "
            f"{report.dataset['splits']['train']} slices in all."
        )
        add("dataset", "Figure 4", "The dataset", caption, partial(pictures.classes, data))
    if any(name.startswith("samples/") for name in images):
        caption = (
            f"The first slices that every system draws with its first seed, none selected, {size}; above, {source}. "
            f"{_samplers(data)} {_same_noise(data)}Synthetic but for the first row."
        )
        add("samples", "Figure 5", "Samples of every system", caption, partial(pictures.samples, data))
    if report.noise:
        caption = (
            f"Pixels of the true noise in {len(report.noise[0].true)} held-out slices and of the noise that a network "
            "predicts, at the timesteps its sampler visits. W1: Wasserstein distance of the two histograms in standard "
            f"deviations of the noise, with its 95 % interval over slices. {_shared_weights(data)}"
        )
        add("noise", "Figure 6", "Predicted against true noise", caption, partial(plots.noise, data))
    if data.curves:
        caption = (
            "As logged while training, means of neighbouring steps; open marks: loss on validation slices. Losses of "
            "different kinds share no scale, and a GAN's does not fall as its samples get better."
        )
        add("losses", "Figure 7", "Loss curves", caption, partial(plots.losses, data))
    if any(name.startswith("epochs/") for name in images):
        caption = (
            "Every system drawing from the same noise at the same shares of its training, which in the paper's 250 "
            f"epochs are {listed([number(epoch) for epoch in report.settings['compare']['snapshot_epochs']])}. "
            f"{_samplers(data)} Synthetic."
        )
        add("epochs", "Figure 8", "Samples while training", caption, partial(pictures.epochs, data))
    if report.group("schedule"):
        caption = (
            f"Above: samples ({_sampler(report.group('schedule'))}; synthetic). Below: how much signal the schedules "
            f"leave, and Fréchet distances with intervals{_over(report.group('schedule'))}."
        )
        add("schedules", "Figure 9", "Linear against cosine schedule", caption, partial(plots.schedules, data))
    if report.group("system"):
        caption = (
            f"Table 1 drawn: means with 95 % intervals, n = {num_slices(report.group('system'))} slices."
            + (" Open marks: the same network from the other start." if report.other_starts else "")
            + _dashed(data)
        )
        add("quality", "Figure A", "Quality of every system", caption, partial(plots.quality, data), "beyond")
    if by_steps := report.group("steps"):
        caption = (
            f"{display_name(by_steps[0].system)} sampled with few and many steps, n = {num_slices(by_steps)}, one "
            f"seed. Dotted: as many real held-out slices.{_dashed(data)}"
        )
        add("steps", "Figure B", "Quality against sampling steps", caption, partial(plots.steps, data), "beyond")
    if by_epoch := report.group("epochs"):
        caption = (
            f"n = {num_slices(by_epoch)}, one seed. {_samplers(data)} Dotted: as many real held-out slices."
            f"{_dashed(data)}"
            + (" Below: the share of slices that are copies of training slices, by a cheap look." * _told(by_epoch))
        )
        add(
            "quality_epochs",
            "Figure C",
            "Quality and copying against training" if _told(by_epoch) else "Quality against training",
            caption,
            partial(plots.quality_by_epoch, data),
            "beyond",
        )
    if report.sample_sizes:
        caption = (
            f"Distance from {report.measurements[0].num_reference} training slices of n generated ones, and of n real "
            "held-out ones: what a perfect generator would score. Marks: single subsets. Both fall with n, so only "
            "values of equal n may be compared."
        )
        add("sample_size", "Figure D", "Distance against n", caption, partial(plots.sample_size, data), "beyond")
    if any(name.startswith("asked/") for name in images):
        caption = (
            f"The first slices that each system draws of every class with its first seed, none selected, {size}; "
            f"above, {source} of the class. {_samplers(data)} Synthetic but for the first row."
        )
        add("asked", "Figure E", "Samples by class", caption, partial(by_class.grid, data), "beyond")
    if by_class.confusions(data):
        caption = (
            "Rows: the class that was asked for (of real slices: the class they are of). Columns: what a classifier of "
            "real slices takes them for; shares of a row, means over the measurements of a system. The last matrix is "
            "of real slices that the classifier has not seen: the most that can be expected."
        )
        add("confusion", "Figure F", "What comes out", caption, partial(by_class.matrices, data), "beyond")
    return figures


def _told(measurements: list[Measurement]) -> bool:
    """Whether the copied share was measured."""
    return any(COPIED_SHARE in measurement.values for measurement in measurements)


def _denoiser(data: ReportData) -> str:
    name = next((s for s in data.report.systems if s.name in ("lw_ddpm", "ddpm")), None)
    if name is None:
        return ""
    return f"{display_name(name.name)} ({display_name(name.sampler or '')}, {name.inference_steps} steps)"


def _samplers(data: ReportData) -> str:
    """How each diffusion system is sampled."""
    return (
        listed(
            [
                f"{display_name(s.name)} in {s.inference_steps} {display_name(s.sampler)} steps"
                for s in data.report.systems
                if s.sampler
            ]
        )
        + "."
    )


def _same_noise(data: ReportData) -> str:
    if not data.report.other_starts:
        return ""
    return "Rows of a diffusion system's two starts, and of the Gaussian, begin with the same noise in each column. "


def _dashed(data: ReportData) -> str:
    return " Dashed: a Gaussian of the training slices, without a network." if data.report.group("baseline") else ""


def _sampler(measurements: list[Measurement]) -> str:
    return f"{display_name(measurements[0].sampler or '')}, {measurements[0].inference_steps} steps"


def _shared_weights(data: ReportData) -> str:
    names = {histogram.system for histogram in data.report.noise}
    return "DDPM and DDIM are the same network." if {"ddpm", "ddim"} <= names else ""


def _over(measurements: list[Measurement]) -> str:
    seeds, trainings = {m.sampling_seed for m in measurements}, {m.training_seed for m in measurements}
    if len(trainings) > 1:
        return f" over {len(trainings)} trainings"
    return f" over {len(seeds)} sampling seeds" if len(seeds) > 1 else ""
