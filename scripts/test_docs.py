#!/usr/bin/env python3
"""Run the ```bash blocks of docs/tutorials/*.md and README.md, or of the pages that are named.

    python scripts/test_docs.py [--limit SECONDS] [PAGE ...]

The blocks of a page run in order, in one shell and one scratch folder, which is also HOME. All
pages share a virtual environment that is empty at first: in it, `pip install video_knet_ros`
installs a wheel of this checkout. `git clone https://github.com/video-knet-ros/video_knet_ros`
clones this checkout with its uncommitted changes.

A block whose title begins with "Needs" is skipped where what it needs (see `NEEDS`) is missing:

    ```bash title="Needs ROS 2"
    ```bash title="Needs ROS 2 and a camera"

A block of README.md whose commands a page before it has run is not run again.

A command that is shown but not run, as a whole test suite, is in a ```console block. Where a page
names `drive.mp4`, the reader's own video, the scratch folder has one of the synthetic street.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[1]
HOME_PAGE = "https://github.com/video-knet-ros/"
"""Clones from below this URL are clones of this checkout."""
LIMIT = 900
"""Seconds that a block may take."""
SECONDS = 8
"""Length of the video that is made."""
TORCH = "torch==2.13.0"
"""Installed by itself and first, so that pip's configuration decides: CPU or CUDA."""
TORCH_EXTRAS = {"train", "export", "baselines"}

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^ *(?P=fence)`* *$",
    re.MULTILINE | re.DOTALL,
)
MAKE_VIDEO = f"""
from video_knet_core.data.frames import open_frames
from video_knet_core.overlay_video import OverlayVideo
source = open_frames("synthetic")
with OverlayVideo("drive.mp4", source.fps) as video:
    for image, stamp in source:
        if stamp >= {SECONDS}e9:
            break
        video.write(image, stamp)
"""


def succeeds(*command: str) -> bool:
    """Whether there is this command, and it exits with 0."""
    if not shutil.which(command[0]):
        return False
    return not subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode


NEEDS: dict[str, Callable[[], bool]] = {
    # its Python cannot have the NumPy of the virtual environment that the blocks run in
    "ROS 2": lambda: False,
    "Nav2": lambda: False,
    "Docker": lambda: succeeds("docker", "info"),
    "a camera": lambda: Path("/dev/video0").exists(),
    "a GPU": lambda: succeeds("nvidia-smi", "-L"),
}
"""What a block may need, and whether it is here."""


class Block(NamedTuple):
    """A ```bash block of a page."""

    line: int
    """Number of its first line of code in the page."""
    code: str
    needs: tuple[str, ...] = ()
    """Keys of `NEEDS`."""


class PageError(ValueError):
    """A page that cannot be tested."""


class Failure(NamedTuple):
    """The block that ended a page, the reason, and what it has printed."""

    block: Block
    reason: str
    output: str


def bash_blocks(text: str) -> list[Block]:
    """The ```bash blocks of a page, in order; PageError for what is not known to `NEEDS`."""
    blocks = []
    for match in FENCE.finditer(text):
        language, _, attributes = match["info"].strip().partition(" ")
        if language != "bash":
            continue
        line = text.count("\n", 0, match.start("code")) + 1
        title = re.search(r'title="([^"]*)"', attributes)
        needs: tuple[str, ...] = ()
        if title and title[1].startswith("Needs "):
            needs = tuple(re.split(", | and ", title[1].removeprefix("Needs ")))
        for need in needs:
            if need not in NEEDS:
                raise PageError(f"line {line - 1}: expected one of {list(NEEDS)}, got {need!r}")
        blocks.append(Block(line, textwrap.dedent(match["code"]), needs))
    return blocks


def run_blocks(
    blocks: list[Block], folder: Path, environment: dict[str, str], limit: float
) -> Failure | None:
    """Run `blocks` in one bash, in `folder`; returns what ended them early.

    ROS 2's setup files read variables that are not set, so bash is without `-u`.
    """
    scripts = folder.with_suffix(".blocks")
    scripts.mkdir()
    lines = ["set -eo pipefail"]
    for number, block in enumerate(blocks):
        (scripts / f"{number}.sh").write_text(block.code)
        lines.append(f"exec > {scripts}/{number}.log 2>&1; source {scripts}/{number}.sh")
    (scripts / "all").write_text("\n".join([*lines, f"touch {scripts}/complete"]))
    process = subprocess.Popen(
        ["bash", str(scripts / "all")],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    begun, start, reason = 0, time.monotonic(), ""
    try:
        while process.poll() is None and not reason:
            logs = len(list(scripts.glob("*.log")))
            if logs > begun:
                begun, start = logs, time.monotonic()
            elif time.monotonic() - start > limit:
                reason = f"took longer than {limit:g} s"
            time.sleep(0.05)
    finally:  # also what the blocks have left in the background
        stop_session(process)
    if (scripts / "complete").exists():
        return None
    last = len(list(scripts.glob("*.log"))) - 1
    output = (scripts / f"{last}.log").read_text(errors="replace")
    return Failure(blocks[last], reason or f"exit code {process.returncode}", output)


def stop_session(process: subprocess.Popen[bytes]) -> None:
    """End all processes of the group that `process` leads."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        time.sleep(1)
    process.wait()


# --- preparation ---------------------------------------------------------------------------------


class Sandbox:
    """A folder with what the pages need: a copy of the checkout, its wheel, a video."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = folder / "github" / "video_knet_ros"
        self.wheels = folder / "wheels"
        self._copy_checkout()
        self._python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self._pip("wheel", "--no-deps", "--wheel-dir", str(self.wheels), str(self.sources))
        (wheel,) = self.wheels.glob("*.whl")
        # of two equal versions pip takes that with a build number, in place of a published one
        wheel.rename(self.wheels / wheel.name.replace("-py3-", "-1-py3-"))

    def scratch(self, name: str, blocks: list[Block]) -> tuple[Path, dict[str, str]]:
        """A new scratch folder with the reader's files, and the environment for its shell."""
        folder = self.folder / name
        folder.mkdir()
        code = "\n".join(block.code for block in blocks)
        if "drive.mp4" in code:
            shutil.copy(self._video(), folder)
        extras = re.findall(r"video_knet_ros\[([\w,]+)\]", code)
        if TORCH_EXTRAS.intersection(",".join(extras).split(",")):
            self._pip("install", TORCH)
        return folder, self._environment() | {"HOME": str(folder)}

    def _copy_checkout(self) -> None:
        """A git repository with the files of this checkout as they are now."""
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
        listing = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.check_output([*git, *listing], cwd=REPO, text=True).split("\0")
        for name in filter(None, names):
            if (REPO / name).is_file():
                (self.sources / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / name, self.sources / name)
        for command in (
            ["init", "--quiet", "--initial-branch=main"],
            ["add", "--all", "--force"],
            ["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", "checkout"],
        ):
            subprocess.run([*git, *command], cwd=self.sources, check=True)

    def _environment(self) -> dict[str, str]:
        """The variables for a shell in the virtual environment."""
        home = Path.home()
        users = {
            "PIP_CACHE_DIR": home / ".cache/pip",
            "PIP_CONFIG_FILE": home / ".config/pip/pip.conf",
        }
        environment = {name: str(path) for name, path in users.items() if path.exists()}
        environment |= os.environ
        for name in ("VIRTUAL_ENV", "PYTHONHOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            environment.pop(name, None)
        paths = {"PATH", "PYTHONPATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"}
        for name in paths & environment.keys():  # without what scripts/env.sh has added
            parts = environment[name].split(os.pathsep)
            environment[name] = os.pathsep.join(p for p in parts if not p.startswith(str(REPO)))
        return environment | {
            "PATH": f"{self._python.parent}{os.pathsep}{environment['PATH']}",
            "PIP_FIND_LINKS": f"{environment.get('PIP_FIND_LINKS', '')} {self.wheels}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{self.sources.parent}/.insteadOf",
            "GIT_CONFIG_VALUE_0": HOME_PAGE,
        }

    def _pip(self, command: str, *arguments: str) -> None:
        words = [str(self._python), "-m", "pip", command, "-qq", *arguments]
        subprocess.run(words, env=self._environment(), check=True)

    def _video(self) -> Path:
        """drive.mp4, made on the first call."""
        video = self.folder / "drive.mp4"
        if not video.exists():
            self._pip("install", "video_knet_ros")
            subprocess.run([str(self._python), "-c", MAKE_VIDEO], cwd=self.folder, check=True)
        return video


# --- report --------------------------------------------------------------------------------------


def default_pages() -> list[Path]:
    """The tutorials and README.md."""
    return [*sorted(REPO.glob("docs/tutorials/*.md")), REPO / "README.md"]


def commands_of(block: Block) -> str:
    """The code of a block without comments."""
    return re.sub(r"\s+#.*", "", block.code).strip()


def named(page: Path, block: Block) -> str:
    """A block in the report: its page, its line, and its first command."""
    return f"{page}:{block.line}: {block.code.strip().splitlines()[0]}"


def main(argv: list[str] | None = None) -> int:
    """Test the pages; returns the exit code, 1 if a block has failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that a block may take")
    options = parser.parse_args(argv)
    pages = options.pages or default_pages()
    found: dict[Path, list[Block]] = {}
    try:
        for page in pages:
            found[page] = bash_blocks(page.read_text())
    except (OSError, PageError) as error:
        print(f"{page}: {error}", file=sys.stderr)
        return 2
    here = {
        need: NEEDS[need]()
        for need in sorted({need for blocks in found.values() for b in blocks for need in b.needs})
    }
    skipped, failed = [], 0
    done: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="test_docs_", ignore_cleanup_errors=True) as folder:
        sandbox = Sandbox(Path(folder))
        for number, (page, blocks) in enumerate(found.items()):
            run = []
            for block in blocks:
                missing = [need for need in block.needs if not here[need]]
                if missing:
                    skipped.append(f"{named(page, block)}: needs {', '.join(missing)}")
                elif page.name == "README.md" and commands_of(block) in done:
                    skipped.append(f"{named(page, block)}: run on another page")
                else:
                    run.append(block)
            done.update(map(commands_of, run))
            start = time.monotonic()
            failure = run and run_blocks(run, *sandbox.scratch(str(number), run), options.limit)
            if failure:
                failed += 1
                print(f"{failure.output}\nFAILED {named(page, failure.block)}: {failure.reason}")
            else:
                print(f"passed {page}: {len(run)} blocks, {time.monotonic() - start:.0f} s")
            sys.stdout.flush()
    for line in skipped:
        print(f"skipped {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
