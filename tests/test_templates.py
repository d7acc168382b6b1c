from pathlib import Path

import pytest
from jinja2 import UndefinedError

from lwddpm.templates import template_environment


def test_names_are_escaped_for_html_alone_and_tags_leave_no_lines(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("{% for row in rows %}\n  {% if row %}\n{{ row }}\n  {% endif %}\n{% endfor %}\n")
    given = {"rows": ["<b>", "a|b"]}
    assert template_environment(tmp_path).get_template("page").render(given) == "&lt;b&gt;\na|b\n"
    assert template_environment(tmp_path, escape=False).get_template("page").render(given) == "<b>\na|b\n"


def test_a_name_that_is_not_given_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("{{ missing }}")
    with pytest.raises(UndefinedError, match="missing"):
        template_environment(tmp_path).get_template("page").render()
