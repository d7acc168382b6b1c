"""The utility curve: what is learnt from real slices alone, and with synthetic ones beside them."""

from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from lwddpm.audit.utility.result import ArmResult, LearnerResult, UtilityResult
from lwddpm.evaluation.figure_style import SMALL_PT, TITLE_PT, Theme, new_figure

NAMES = {"logistic": "logistic regression on features", "resnet": "residual network from scratch"}


def curve(result: UtilityResult, theme: Theme) -> Figure:
    """Balanced accuracy against the number of real slices, a line for each ratio of synthetic ones, a panel for each
    learner. A cross marks where real slices alone are as good as synthetic ones alone: so many these are worth."""
    figure = new_figure(3.4 * len(result.learners) + 0.2)
    for axes, each in zip(figure.subplots(len(result.learners), squeeze=False)[:, 0], result.learners, strict=True):
        ratios = sorted({arm.ratio for arm in each.arms if arm.share > 0})
        for place, ratio in enumerate(ratios):
            line = [arm for arm in each.arms if arm.share > 0 and arm.ratio == ratio]
            x = [arm.num_real * (1 + 0.02 * (place - len(ratios) / 2)) for arm in line]  # intervals side by side
            y = [arm.accuracy.value for arm in line]
            ends = [[max(0.0, a.accuracy.value - a.accuracy.low) for a in line]]
            ends.append([max(0.0, a.accuracy.high - a.accuracy.value) for a in line])
            color = theme.real if ratio == 0 else theme.cycle[(place - 1) % len(theme.cycle)]
            label = "real slices alone" if ratio == 0 else f"and {ratio:g} synthetic for each"
            axes.errorbar(
                x, y, yerr=ends, fmt="o-", color=color, label=label, markersize=4, capsize=3, linewidth=1.4,
                elinewidth=0.8,
            )  # fmt: skip
        alone = each.synthetic
        axes.axhline(alone.accuracy.value, color=theme.ink, linestyle=":", linewidth=1, label=_alone(alone))
        if not alone.worth_beyond:
            axes.plot(alone.worth, alone.accuracy.value, "x", color=theme.ink, markersize=8, markeredgewidth=1.6)
        axes.axhline(1 / len(result.classes), color=theme.ink, linewidth=0.6, alpha=0.5, label="chance")
        axes.set_xscale("log")
        ticks = sorted({arm.num_real for arm in each.arms if arm.share > 0})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_title(f"{NAMES.get(each.learner, each.learner)}, {result.num_seeds} seeds", fontsize=TITLE_PT)
        axes.set_xlabel("real training slices")
        axes.set_ylabel("balanced accuracy")
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: not isinstance(handles[i], ErrorbarContainer))
        axes.legend(
            [handles[i] for i in order], [labels[i] for i in order],
            fontsize=SMALL_PT, loc="center left", bbox_to_anchor=(1.01, 0.5),
        )  # fmt: skip
    return figure


def _alone(arm: ArmResult) -> str:
    return f"{arm.num_synthetic:,} synthetic slices alone:\n{worth_of(arm)}"


def worth_of(arm: ArmResult) -> str:
    """In words, what a mixture is worth in real slices."""
    number = f"{arm.worth:,.0f} real slices alone"
    match arm.worth_beyond:
        case "<":
            return f"worth fewer than {number}"
        case ">":
            return f"better than {number}"
        case _:
            return f"worth {number}"


def how_learnt(each: LearnerResult) -> str:
    """In words, how long a learner learns."""
    if each.steps:
        return f"{each.steps:,} optimizer steps from every mixture"
    return "fitted to the optimum of a convex loss, whatever the number of slices"


def sentences(each: LearnerResult) -> list[str]:
    """What a learner has shown, in words."""
    real, alone = each.real.accuracy, each.synthetic
    lines = [
        f"Learnt from all {each.real.num_real:,} real slices: balanced accuracy {real.value:.3f} ({real.low:.3f} to "
        f"{real.high:.3f}). From {alone.num_synthetic:,} synthetic slices alone: {alone.accuracy.value:.3f} "
        f"({alone.accuracy.low:.3f} to {alone.accuracy.high:.3f}), {alone.accuracy.value / real.value:.0%} of that; "
        f"{worth_of(alone)}."
        if real.value > 0
        else "Nothing was learnt from real slices."
    ]
    for word in ("help", "harm"):
        told = ", ".join(
            f"{arm.ratio:g} for each of {arm.num_real:,} ({arm.gain.value:+.3f})"
            for arm in each.arms
            if arm.gain is not None and arm.verdict == word
        )
        lines.append(f"Mixtures in which synthetic slices {word} (p < 0.05 after Holm): {told or 'none'}.")
    return lines
