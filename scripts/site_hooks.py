"""Hooks of the documentation site (mkdocs.yml).

They add pages from outside `docs/`, rewrite the links of all pages, which are written for GitHub,
and generate the reference pages of the commands and the messages. A link that leads nowhere stays
as it is, and mkdocs warns of it.
"""

from __future__ import annotations

import logging
import posixpath
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from video_knet_core.messages.topics import OUTPUTS, ImageOutput
from video_knet_core.tasks import TASKS

REPO = Path(__file__).resolve().parents[1]
ROOT_PAGES = (
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "GOVERNANCE.md",
    "QUALITY_DECLARATION.md",
    "SECURITY.md",
)
ADDED = {name: name.lower() for name in ROOT_PAGES} | {
    f"models/{card.name}": f"models/{card.name}" for card in sorted(REPO.glob("models/*.md"))
}
"""Path in the repository -> path in the site of the pages from outside `docs/`."""
IN_REPO = {in_site: in_repo for in_repo, in_site in ADDED.items()}

LINK = re.compile(
    r"^ *(```+|~~~+).*?^ *\1"  # code, which stays as it is
    r"|`[^`\n]+`"
    r"|\[(?P<file>[\w/.-]+\.md)\]\((?P<page>[^)\s]+)\)"
    r"|(?<=\]\()(?P<target>[^)\s]+)",
    re.MULTILINE | re.DOTALL,
)

_log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs/` and the generated ones."""
    for in_repo, in_site in ADDED.items():
        if (REPO / in_repo).is_file():
            file = File.generated(config, in_site, abs_src_path=str(REPO / in_repo))
            file.edit_uri = f"../{in_repo}"
            files.append(file)
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/messages.md", content=messages_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page; one whose text is a file name gets the title of the page."""
    in_site = page.file.src_uri
    in_repo = IN_REPO.get(in_site, f"docs/{in_site}")
    pages = {file.url: file.src_uri for file in files.documentation_pages()}
    titles = {file.src_uri: file.page.title for file in files.documentation_pages() if file.page}

    def rewrite(match: re.Match[str]) -> str:
        given = match["target"] or match["page"]
        if not given:
            return match[0]
        target = link(given, in_site, in_repo, pages, config)
        if match["target"]:
            return target
        destination = posixpath.join(posixpath.dirname(in_site), target.partition("#")[0])
        title = titles.get(posixpath.normpath(destination)) or match["file"]
        return f"[{title}]({target})"

    page.meta.setdefault("description", first_sentence(markdown) or config.site_description)
    return LINK.sub(rewrite, markdown)


def first_sentence(markdown: str) -> str:
    """The first sentence of a page, without markup, for search engines and previews."""
    for part in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL).split("\n\n"):
        if part.strip() and part.strip()[0] not in "#|!<-*>[":
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(part.split()))
            return re.split(r"(?<=[^A-Z]\.)\s", re.sub(r"[*`]", "", plain))[0]
    return ""


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Keep the theme's script from asking GitHub for the number of stars."""
    return output.replace(' data-md-component="source"', "")


# --- links ---------------------------------------------------------------------------------------


def link(
    target: str, in_site: str, in_repo: str, pages: dict[str, str], config: MkDocsConfig
) -> str:
    """The target of a link on the site.

    Args:
        target: the target on GitHub.
        in_site: path of the page in the site.
        in_repo: its path in the repository.
        pages: URL below the root of the site -> path in the site, of all pages.
        config: the configuration of mkdocs.
    """
    name, hash_sign, anchor = target.partition("#")
    if config.site_url and name.startswith(config.site_url):  # of a generated page, as a rule
        url = name.removeprefix(config.site_url)
        if url not in pages:
            _log.warning("%s: the site has no page %s", in_repo, target)
            return target
        destination = pages[url]
    elif not name or ":" in name:
        return target
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repo), name))
        if path in ADDED:
            destination = ADDED[path]
        elif path.startswith("docs/"):
            destination = path.removeprefix("docs/")
        elif not path.startswith("..") and (REPO / path).exists():
            kind = "tree" if (REPO / path).is_dir() else "blob"
            return f"{config.repo_url}/{kind}/main/{path}{hash_sign}{anchor}"
        else:
            return target
    return posixpath.relpath(destination, posixpath.dirname(in_site) or ".") + hash_sign + anchor


# --- generated pages -----------------------------------------------------------------------------


def commands_page() -> str:
    """Every command of `video-knet` with its options, as typer describes them.

    Typer cuts the summaries in the lists of commands; they become links with whole first sentences.
    """
    command = [sys.executable, "-m", "typer", "video_knet_core.cli", "utils", "docs"]
    command += ["--name", "video-knet", "--title", "Commands and options"]
    page = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout
    summaries = dict(re.findall(r"^##+ `([^`]+)`\n\n(.+)$", page, re.MULTILINE))
    parts = re.split(r"^(?=##+ `)", page, flags=re.MULTILINE)

    def linked(parent: str, name: str) -> str:
        words = f"{parent} {name}"
        return f"* [`{name}`](#{words.replace(' ', '-')}): {summaries[words]}"

    for number, part in enumerate(parts):
        before, title, rest = part.partition("**Commands**:")
        parent = re.match(r"##+ `([^`]+)`", part)
        name = parent[1] if parent else "video-knet"
        rest = re.sub(r"^\* `([^`]+)`:.*$", lambda m, p=name: linked(p, m[1]), rest, flags=re.M)
        parts[number] = before + title + rest
    return re.sub(r"^\$ (?=video-knet)", "", "".join(parts), flags=re.MULTILINE)


class Section(NamedTuple):
    """Fields of a message below one comment."""

    comment: str
    fields: list[list[str]]
    """Type, name (of a constant with its value) and comment."""


def read_message(text: str) -> list[Section]:
    """The sections of a .msg file; the first has the comment of the message."""
    sections = [Section("", [])]
    comment: list[str] = []
    for line in text.splitlines():
        before, hash_sign, remark = (part.strip() for part in line.partition("#"))
        if before:
            if comment:
                sections.append(Section(" ".join(comment), []))
                comment = []
            sections[-1].fields.append([*before.split(maxsplit=1), remark])
        elif line.startswith(" ") and hash_sign and sections[-1].fields:
            sections[-1].fields[-1][2] += f" {remark}"  # continues the comment of the field above
        elif hash_sign:
            comment.append(remark)
        elif len(sections) == 1 and comment:  # the empty line below the comment of the message
            sections = [Section(" ".join(comment), [])]
            comment = []
    return sections


def messages_page() -> str:
    """The messages of `msg/`, and the outputs of a frame."""
    messages = {path.stem: read_message(path.read_text()) for path in REPO.glob("msg/*.msg")}
    lines = ["# Messages", "", "Definitions of the package `video_knet_ros`, from `msg/*.msg`.", ""]
    for name, sections in sorted(messages.items()):
        lines += [f"## {name}", ""]
        for comment, fields in sections:
            lines += [comment, ""]
            if fields:
                cells = [(typed(kind, messages), f"`{name}`", text) for kind, name, text in fields]
                lines += [*table(("type", "field", "meaning"), cells), ""]
    rows = []
    for name, output in OUTPUTS.items():
        encoding = output.encoding if isinstance(output, ImageOutput) else ""
        kind = typed(output.type.replace("/msg/", "/"), messages)
        tasks = ", ".join(task.name for task in TASKS.values() if name in task.outputs)
        rows.append((f"`{name}`", f"`~/{output.topic}`", kind, encoding, tasks))
    lines += [
        "## Outputs of a frame",
        "",
        "Names for `video-knet replay --outputs`, in the order of publishing. The tasks are those "
        "of models that have the output; [topics.md](topics.md#out) describes the topics.",
        "",
        *table(("name", "topic", "type", "encoding", "tasks"), rows),
    ]
    return "\n".join(lines) + "\n"


def typed(kind: str, messages: dict[str, list[Section]]) -> str:
    """A type of a field or topic, as a link if it is described on this page."""
    name = kind.removeprefix("video_knet_ros/").partition("[")[0]
    return f"[`{kind}`](#{name.lower()})" if name in messages else f"`{kind}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *escaped)]
