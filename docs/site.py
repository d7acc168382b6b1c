"""MkDocs hooks: the documents lie in the site as they do in the repository, so that their links work in both.

What a document links to is in the site too: other documents as pages, code as the API page of its room, any other file
as it is. API pages are made from the docstrings.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("*.md", "docs/*.md", "docs/images/*", "dashboards/*.md", "dashboards/grafana/*.md", "search_spaces/*.md")
PACKAGES = {"lwddpm": ROOT / "platform" / "lwddpm", "lwddpm_board": ROOT / "dashboards" / "lwddpm_board"}
LINK = re.compile(r"(?<=\]\()[^)#\s]+")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the API pages to the navigation."""
    assert config.nav is not None
    config.nav.append({"API": [{title: page} for title, page, _ in _api_pages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All that the site consists of, under paths relative to the repository."""
    paths = {path for pattern in DOCUMENTS for path in ROOT.glob(pattern)}
    linked = {target for path in paths if path.suffix == ".md" for target in _linked_files(path)}
    site = Files([file for file in files if not (file.abs_src_path or "").startswith(config.docs_dir)])  # the theme's
    for path in sorted(paths | linked):
        site.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for _, page, content in _api_pages():
        site.append(File.generated(config, page, content=content))
    return site


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to code lead to its API page."""
    folder = posixpath.dirname(page.file.src_uri)

    def to_api(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[0]))
        room = re.match(r"platform/lwddpm/(\w+)", target)
        return posixpath.relpath(f"api/{room[1]}.md", folder or ".") if room else link[0]

    return LINK.sub(to_api, markdown)


def _linked_files(document: Path) -> set[Path]:
    """Existing files that a document links to, without code that has an API page."""
    targets = {(document.parent / link).resolve() for link in LINK.findall(document.read_text()) if "://" not in link}
    return {path for path in targets if path.is_file() and PACKAGES["lwddpm"] not in path.parents}


def _api_pages() -> list[tuple[str, str, str]]:
    """Title, path and content of each page: one for each room, one for the modules that stand alone."""
    package = PACKAGES["lwddpm"]
    rooms = sorted(path.parent.name for path in package.glob("*/__init__.py"))
    pages = [_api_page("single modules", "lwddpm", package, "*.py")]
    pages += [_api_page(room, f"lwddpm.{room}", package / room, "**/*.py") for room in rooms]
    return [*pages, _api_page("board", "lwddpm_board", PACKAGES["lwddpm_board"], "*.py")]


def _api_page(title: str, package: str, folder: Path, pattern: str) -> tuple[str, str, str]:
    modules = [path.relative_to(folder).with_suffix("") for path in sorted(folder.glob(pattern))]
    names = [".".join((package, *module.parts)) for module in modules if not module.name.startswith("__")]
    return title, f"api/{title.replace(' ', '_')}.md", f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names)
