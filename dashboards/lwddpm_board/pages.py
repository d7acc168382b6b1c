"""Pages from templates: every value is escaped, and numbers and times are written in one way."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from markdown_it import MarkdownIt
from markupsafe import Markup

from lwddpm import wording
from lwddpm.config import Metric

VIEWS = {  # path -> name, in the order of the navigation
    "runs": "Runs",
    "searches": "Search",
    "registry": "Registry",
    "generate": "Generate",
    "datasets": "Dataset",
    "readers": "Readers",
}
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def number(value: Any) -> str:
    """A number to read, as everywhere in the platform; a dash where there is none."""
    return "–" if value is None or isinstance(value, jinja2.Undefined) else wording.number(value)


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
    names = [name for name in get_args(Metric) if f"eval/{name}" in metrics]
    return [(name, metrics[f"eval/{name}"], metrics.get(f"eval/{name}_floor")) for name in names]


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
    "duration": duration,
    "size": size,
    "quality": quality,
    "markdown": markdown,
}
_templates = Jinja2Templates(env=_environment, context_processors=[_here])


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page."""
    return _templates.TemplateResponse(request, template, context, status)
