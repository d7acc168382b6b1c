"""A report on disk: figures, Markdown, and one HTML file that needs nothing else. Drawn from its data alone.

figures/light/KEY.png  figures/dark/KEY.png  figures/print/KEY.pdf
report.md              shows figures/light
report.html            figures inside, light and dark; no script, no request
"""

from pathlib import Path
from typing import Any

from lwddpm.evaluation.figure_style import DARK, LIGHT, THEMES, render
from lwddpm.files import complete_folder, write_whole
from lwddpm.progress import bar
from lwddpm.report.data import ReportData
from lwddpm.report.html_page import TEMPLATES, html_page
from lwddpm.report.view import view
from lwddpm.templates import template_environment

HTML, MARKDOWN = "report.html", "report.md"


def draw(data: ReportData, folder: Path) -> Path:
    """Draw everything into a folder, replacing what an earlier drawing left there.

    Returns:
        The HTML file.
    """
    content = view(data)
    with complete_folder(folder / "figures") as figures:
        with bar("drawing figures", len(content["figures"])) as progress:
            for number, drawing in enumerate(content["figures"], start=1):
                for theme in THEMES:
                    _write(figures / theme.name / f"{drawing.key}.png", render(drawing.draw, theme))
                _write(figures / "print" / f"{drawing.key}.pdf", render(drawing.draw, LIGHT, "pdf"))
                progress.advance_to(number)
        markdown = _markdown(content)
        html = html_page("report.html", figures, content | {"themes": [LIGHT.name, DARK.name]})
    write_whole(folder / MARKDOWN, markdown)
    write_whole(folder / HTML, html)
    return folder / HTML


def _markdown(content: dict[str, Any]) -> str:
    environment = template_environment(TEMPLATES, escape=False)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template("report.md").render(content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
