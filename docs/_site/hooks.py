"""What mkdocs does not do by itself: pages from outside docs/, and parts that follow the code.

- Pages of the repository that stand elsewhere (changes, security, benchmarks, the plain loop) become pages of the site.
- Links to files that are not on the site become plain text; all others have to be right, since warnings are errors.
- A list of the commands, the names of a module and a picture of the phases are made from the code.
- A link line that ends in `<!-- shown here on the site -->` is replaced by the section that it leads to.

On GitHub the same pages read without any of this.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs._site.commands import all_commands  # noqa: E402 - the repository has to be on the path first
from docs._site.picture import phases_as_svg, phases_as_table  # noqa: E402 - the same

BROUGHT = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/results.md": "benchmarks/results.md",
    "demos/plain_loop.py": "explanation/plain-loop.md",
    **{
        path.relative_to(ROOT).as_posix(): f"notebooks/{path.name}"
        for path in sorted((ROOT / "demos" / "notebooks").glob("*.ipynb"))
    },
}
"""Path in the repository -> path on the site, for what stands outside docs/."""

_ORIGIN = {place: path for path, place in BROUGHT.items()}
_SAME_AS = {"README.md": "index.md"}  # on the site, the index takes its place
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
_SHOWN_HERE = re.compile(r"^\[[^\]]*\]\((?P<target>[^)#]+)#(?P<anchor>[^)]+)\) <!-- shown here on the site -->$", re.M)
_ALL_OF = re.compile(r"^<!-- all of ([\w.]+) -->$", re.M)
_PHASES = re.compile(r"<!-- phases: begin -->\n.*?<!-- phases: end -->", re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/."""
    from mkdocs.structure.files import File

    for path, place in BROUGHT.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".py"):
            about = f"`{path}`: split training on one page, without heterofed."
            text = f"# The plain loop\n\n{about}\n\n```python\n{text}```\n"
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code, and point every link at the site."""
    origin = _ORIGIN.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    markdown = _SHOWN_HERE.sub(lambda found: _section(origin, found["target"], found["anchor"]), markdown)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", all_commands())
    markdown = _ALL_OF.sub(lambda found: _all_of(found[1]), markdown)
    markdown = _PHASES.sub(lambda _: f"{phases_as_svg()}\n\n{phases_as_table()}", markdown)
    return links_of_the_site(markdown, origin, page.file.src_uri, files)


def links_of_the_site(markdown: str, origin: str, place: str, files: Files) -> str:
    """Return a text that stands at `origin` in the repository with the links that it needs at `place` on the site."""

    def link(found: re.Match[str]) -> str:
        target, anchor = found["target"], found["anchor"] or ""
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if not (ROOT / path).exists():
            return found[0]  # mkdocs says that it is broken, unless it stands in a block of code
        there = BROUGHT.get(path) or _SAME_AS.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(there) is None:
            return found["text"]  # a test, a script: it is in the repository, not on the site
        anchor = "" if path in _SAME_AS else anchor
        near = posixpath.relpath(there, posixpath.dirname(place) or ".")
        return f"{found['image']}[{found['text']}]({near}{anchor})"

    return _LINK.sub(link, markdown)


def _all_of(module: str) -> str:
    """Return a directive of mkdocstrings for every public name of a module, in the order of the alphabet."""
    place = ROOT.joinpath(*module.split("."), "__init__.py")
    names = [
        name
        for node in ast.parse(place.read_text(encoding="utf-8")).body  # read, since to import it takes seconds
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.literal_eval(node.value)
    ]
    return "\n\n".join(f"::: {module}.{name}" for name in sorted(names, key=str.lower))


def _section(origin: str, target: str, anchor: str) -> str:
    """Return the text under a heading of another page, its links as the page at `origin` needs them."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    text = (ROOT / path).read_text(encoding="utf-8")
    for heading in re.finditer(r"^(#+) (.+)$", text, re.M):
        if re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-") == anchor:
            body = text[heading.end() :]
            end = re.search(rf"^#{{1,{len(heading[1])}}} ", body, re.M)
            break
    else:
        raise ValueError(f"{path} has no heading for #{anchor}")
    near = posixpath.relpath(posixpath.dirname(path) or ".", posixpath.dirname(origin))

    def link(found: re.Match[str]) -> str:
        if not found["target"] or re.match(r"[a-z]+:", found["target"]):
            return found[0]
        return f"{found['image']}[{found['text']}]({near}/{found['target']}{found['anchor'] or ''})"

    return _LINK.sub(link, (body[: end.start()] if end else body).strip())
