"""Pages as one file: a template, with the figures embedded."""

import base64
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lwddpm.templates import template_environment

TEMPLATES = Path(__file__).with_name("templates")


def html_page(template: str, figures: Path, content: dict[str, Any]) -> str:
    """Render a template of this room; it calls `embedded(key, theme)` for the address of a figure.

    Args:
        figures: folder of THEME/KEY.png.
        content: what the template names.
    """
    environment = template_environment(TEMPLATES)

    def embedded(key: str, theme: str) -> Markup:
        data = base64.b64encode((figures / theme / f"{key}.png").read_bytes()).decode()
        return Markup("data:image/png;base64,") + data

    environment.globals["embedded"] = embedded
    return environment.get_template(template).render(content)
