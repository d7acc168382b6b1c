"""Pages from templates: every value is escaped, and numbers and times are written in one way."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeVar, get_args

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from markdown_it import MarkdownIt
from markupsafe import Markup

from lwddpm import wording
from lwddpm.config import CLASS_MEASURES, Metric

T = TypeVar("T")
VIEWS = {  # path -> name, in the order of the navigation
    "runs": "Runs",
    "searches": "Search",
    "registry": "Registry",
    "generate": "Generate",
    "datasets": "Dataset",
    "readers": "Readers",
}
METRIC_GROUPS = {  # heading -> metrics that answer one question
    "How far from real slices": ("fid", "fd_lite0", "fd_lite2", "fid_infinity", "fd_lite0_infinity", "kid", "kd_lite0"),
    "Do they look real": ("precision_lite0", "density_lite0"),
    "Are all kinds drawn": ("recall_lite0", "coverage_lite0"),
    "Brightness and contrast": ("out_of_band",),
    "Structural similarity": ("ssim_nearest", "ssim_pairs", "ssim_reconstruction"),
}
_GROUPS = METRIC_GROUPS | {"The class that was asked for": tuple(CLASS_MEASURES)}  # of models that are told one
_OTHERS = "Others"
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def number(value: Any) -> str:
    """A number to read, as everywhere in the platform; a dash where there is none."""
    return "–" if value is None or isinstance(value, jinja2.Undefined) else wording.number(value)


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage; small ones keep two digits that count."""
    value = 100 * share
    digits = 0 if value in (0, 100) else 1 if value >= 1 else 2
    return f"{value:.{digits}f} %"


def when(moment: float | str | None) -> Markup:
    """A moment, given in milliseconds since 1970 or in ISO 8601, as a `<time>` in UTC, which its title says."""
    if moment is None:
        return Markup("–")
    time = datetime.fromisoformat(moment) if isinstance(moment, str) else datetime.fromtimestamp(moment / 1000, UTC)
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(
        time.isoformat(timespec="seconds"), f"{time:%-d %b %Y, %H:%M}"
    )


def duration(seconds: float | None) -> str:
    """A time span in the two units that tell: "9.5 s", "3 min 07 s", "2 h 05 min"."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(num_bytes: int | None) -> str:
    """A file's size in decimal units."""
    if num_bytes is None:
        return "–"
    value = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def quality(metrics: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """(metric, value, real-versus-real floor) of what was evaluated, the most telling first."""
    names = [name for name in (*get_args(Metric), *CLASS_MEASURES) if f"eval/{name}" in metrics]
    return [(name, metrics[f"eval/{name}"], metrics.get(f"eval/{name}_floor")) for name in names]


def headline(metrics: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Of `quality` the first of each group."""
    shown = quality(metrics)
    return [scores[0] for _, scores in grouped(shown, of=lambda score: score[0])]


def grouped(scores: Iterable[T], of: Callable[[T], str] = attrgetter("name")) -> list[tuple[str, list[T]]]:
    """(heading, scores) of the groups that have any: those of METRIC_GROUPS, and that of conditional models.

    Args:
        of: the name of a score's metric; a name of another version of the platform stands under "Others".
    """
    heading_of = {name: heading for heading, names in _GROUPS.items() for name in names}
    groups: dict[str, list[T]] = {heading: [] for heading in (*_GROUPS, _OTHERS)}
    for score in scores:
        groups[heading_of.get(of(score), _OTHERS)].append(score)
    return [(heading, members) for heading, members in groups.items() if members]


def breakable(name: Any) -> Markup:
    """A name or key that a narrow page may break after its `_`, `.` and `/`, and nowhere else."""
    return Markup("<wbr>").join(Markup.escape(part) for part in re.split(r"(?<=[_./])", str(name)))


def markdown(text: str) -> Markup:
    """Markdown as HTML; HTML within it is shown, not obeyed, and nothing is loaded from elsewhere."""
    tokens = _MARKDOWN.parse(_FRONT_MATTER.sub("", text))
    for token in tokens:
        if "right" in str(token.attrs.pop("style", "")):  # inline styles are forbidden on our pages
            token.attrs["class"] = "num"
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def _here(request: Request) -> dict[str, Any]:
    return {"views": VIEWS, "here": request.url.path.split("/")[1] or "runs"}


_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("lwddpm_board"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_environment.filters |= {
    "number": number,
    "when": when,
    "percent": percent,
    "duration": duration,
    "size": size,
    "quality": quality,
    "headline": headline,
    "grouped": grouped,
    "breakable": breakable,
    "markdown": markdown,
}
_environment.globals["class_measures"] = CLASS_MEASURES
_templates = Jinja2Templates(env=_environment, context_processors=[_here])


def fragment(template: str, **context: Any) -> str:
    """A piece of a page."""
    return _environment.get_template(template).render(context)


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page."""
    return _templates.TemplateResponse(request, template, context, status)
