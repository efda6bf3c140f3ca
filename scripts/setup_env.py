#!/usr/bin/env python3
"""Set up this repository: `.venv` and the colcon overlay `install`, or another environment.

`setup_env.py run` is all the demo needs (no torch), `test` adds torch and the test tools, `check`
is a small environment of its own for the linters, `docs` one for the documentation site, `lowest`
one with the oldest version of each dependency. With a ROS 2 install sourced that one is used;
else ROS 2 Jazzy comes as wheels, or the distribution that the variable ROS names. A step whose
inputs have not changed is skipped.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = REPO / "scripts"
HAS_ROS = bool(os.environ.get("ROS_DISTRO") and os.environ.get("AMENT_PREFIX_PATH"))
TORCH = "torch==2.13.0"
"""Installed by itself and first, so that pip's configuration decides: CPU or CUDA."""

DISTROS = ("jazzy", "kilted")
"""ROS 2 distributions that exist as wheels; the first one is the default."""
DISTRO = os.environ.get("ROS") or (os.environ["ROS_DISTRO"] if HAS_ROS else DISTROS[0])
ROS_REQUIREMENTS = SCRIPTS / f"requirements_{DISTRO}.txt"
REQUIREMENTS = [REPO / "pyproject.toml", REPO / "package.xml"] + [ROS_REQUIREMENTS] * (not HAS_ROS)

INSTALLED = (
    "config",
    "examples",
    "foxglove",
    "launch",
    "models",
    "msg",
    "rqt",
    "rviz",
    "synthetic_street",
    "video_knet_core",
    "video_knet_ros",
)
"""The folders that CMakeLists.txt installs or generates from."""

ADVICE = (
    ("No space left on device", "The disk is full: free some space and run this again."),
    (
        "name resolution|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError",
        "pip cannot reach its package index: look at the network, the proxy and `pip config list`.",
    ),
    (
        "No matching distribution|Could not find a version",
        "pip's index lacks a package for this Python, or cannot be reached: see the lines above, "
        "or try another Python: `export PYTHON=python3.12` and run this again.",
    ),
    (
        "No CMAKE_CXX_COMPILER|No CMAKE_C_COMPILER|compiler identification is unknown",
        "expected a C++ compiler, got none: `sudo apt install g++`.",
    ),
    (
        "Python3_INCLUDE_DIR|Development.Module|Python.h: No such file",
        "Python's headers are missing: `sudo apt install python3-dev`.",
    ),
)


class SetupError(Exception):
    """A step that cannot be done; the message has the remedy."""


class Environment:
    """A virtual environment with a stamp for each step that is done in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"

    def is_done(self, step: str, key: str) -> bool:
        """Whether `step` was last done with the inputs that `key` stands for."""
        stamp = self._stamp(step)
        return stamp.is_file() and stamp.read_text() == key

    def mark_done(self, step: str, key: str) -> None:
        """Remember `step`; it will be skipped as long as its key stays the same."""
        self._stamp(step).parent.mkdir(exist_ok=True)
        self._stamp(step).write_text(key)

    def pip_install(self, *arguments: str) -> None:
        """Install with plain pip, so that the user's pip configuration applies."""
        command = [str(self.python), "-m", "pip", "install", "--no-input"]
        # packages of the user's own would hide those of ROS
        environment = os.environ | {"PYTHONNOUSERSITE": "1"}
        run([*command, "--disable-pip-version-check", *arguments], environment)

    def _stamp(self, step: str) -> Path:
        return self.path / "stamps" / step


IS_DEFAULT = HAS_ROS or DISTROS[0] == DISTRO
VENV = Environment(REPO / (".venv" if IS_DEFAULT else f".venv-{DISTRO}"))
OVERLAY = REPO if IS_DEFAULT else VENV.path / "overlay"
"""Where colcon puts `build` and `install`."""
LOG = REPO / "log" / f"setup_{'_'.join(sys.argv[1:2])}{VENV.path.name}.log"
"""One for each goal and distribution: several may be set up at the same time."""
CHECK_VENV = Environment(REPO / ".venv-check")
LOWEST_VENV = Environment(REPO / ".venv-lowest")
DOCS_VENV = Environment(REPO / ".venv-docs")


# --- steps: each returns whether there was something to do ---------------------------------------


def look_at_tools() -> bool:
    """The programs that pip does not bring."""
    if sys.version_info < (3, 10):  # noqa: UP036 - an older Python gets this far, and a reason
        raise SetupError(
            f"Python 3.10 or newer is needed, this is {platform.python_version()}: "
            "`export PYTHON=python3.12` and run this again."
        )
    if HAS_ROS and os.environ["ROS_DISTRO"] != DISTRO:
        raise SetupError(
            f"ROS: expected {os.environ['ROS_DISTRO']}, whose setup.bash is sourced, got {DISTRO}"
        )
    if not HAS_ROS and DISTRO not in DISTROS:
        raise SetupError(f"ROS: expected one of {', '.join(DISTROS)}, got {DISTRO}")
    if not HAS_ROS and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"ROS 2 wheels exist for Linux on x86_64, this is {sys.platform} on "
            f"{platform.machine()}: install ROS 2 Jazzy, source its setup.bash and run this again."
        )
    for program, package in (("cmake", "cmake"), ("c++", "g++"), ("make", "make")):
        if not shutil.which(program):
            raise SetupError(f"{program} is not installed: `sudo apt install {package}`.")
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        raise SetupError(
            f"The headers of {sys.executable} are missing: `sudo apt install python3-dev`."
        )
    return True


def create_venv() -> bool:
    """`.venv`; what was built with another one does not fit and goes."""
    if not make_venv(VENV, with_system_packages=HAS_ROS):
        return False
    for folder in ("build", "install"):
        shutil.rmtree(OVERLAY / folder, ignore_errors=True)
    return True


def install_packages() -> bool:
    """What the node and the demo need; without a ROS 2 install ROS itself, too."""
    return install("packages", *ros_requirements(), "-e", str(REPO), inputs=REQUIREMENTS)


def install_torch() -> bool:
    """Only training, export and their tests need it."""
    return install("torch", TORCH, inputs=[])


def install_test_tools() -> bool:
    """Training, export and tests; of a further distribution what the tests of the node need."""
    extras = "train,export,test" if IS_DEFAULT else "test-base"
    if not HAS_ROS and IS_DEFAULT:
        extras += ",rerun"  # needs NumPy 2, which the messages of an installed ROS 2 cannot take
    project = f"{REPO}[{extras}]"
    return install("test", *ros_requirements(), "-e", project, inputs=REQUIREMENTS)


def build_overlay() -> bool:
    """The messages, and the package as `ros2 launch` finds it; Python files become links."""
    key = digest([REPO / "CMakeLists.txt", REPO / "package.xml", *sorted((REPO / "msg").iterdir())])
    key += digest_names(INSTALLED)
    build, prefix = OVERLAY / "build", OVERLAY / "install"
    executable = prefix / "video_knet_ros/lib/video_knet_ros/camera_node"  # a link to build/
    if VENV.is_done("overlay", key) and executable.exists():
        return False
    built = prefix / "video_knet_ros/share/video_knet_ros/msg"
    if any(not (REPO / "msg" / file.name).exists() for file in built.glob("*.msg")):
        shutil.rmtree(build, ignore_errors=True)  # it still has removed messages
    shutil.rmtree(prefix, ignore_errors=True)  # links to removed files stay there
    environment = build_environment()
    colcon = shutil.which("colcon", path=environment["PATH"])
    if not colcon:
        raise SetupError("colcon is missing: `sudo apt install python3-colcon-common-extensions`.")
    arguments = ["build", "--symlink-install", "--event-handlers", "console_direct+"]
    arguments += ["--build-base", str(build), "--install-base", str(prefix)]
    cmake = [f"-DPython3_EXECUTABLE={VENV.python}", "-DBUILD_TESTING=OFF", "--no-warn-unused-cli"]
    run([colcon, *arguments, "--cmake-args", *cmake], environment)
    VENV.mark_done("overlay", key)
    return True


def install_linters() -> bool:
    """A small environment of their own: quick to make, and the same with and without torch."""
    return install_pinned(CHECK_VENV, SCRIPTS / "requirements_check.txt")


def install_site_tools() -> bool:
    """mkdocs, and the package, whose commands and messages the site describes."""
    return install_pinned(DOCS_VENV, SCRIPTS / "requirements_docs.txt", "-e", str(REPO))


def install_lowest() -> bool:
    """The oldest versions that pyproject.toml allows, for the tests without torch and ROS."""
    made = make_venv(LOWEST_VENV, with_system_packages=False)
    command = [str(LOWEST_VENV.python), str(SCRIPTS / "lowest_versions.py")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    key = f"{listed}{digest([REPO / 'pyproject.toml'])}"
    if LOWEST_VENV.is_done("lowest", key):
        return made
    requirements = LOWEST_VENV.path / "lowest.txt"
    requirements.write_text(listed)
    LOWEST_VENV.pip_install("-r", str(requirements))
    LOWEST_VENV.pip_install("--no-deps", "-e", str(REPO))
    LOWEST_VENV.mark_done("lowest", key)
    return True


class Step(NamedTuple):
    """One numbered line of the set-up."""

    title: str
    do: Callable[[], bool]


RUN: list[Step] = [
    Step("Look at the tools of this machine", look_at_tools),
    Step(f"Create {VENV.path.name}" + " on top of the sourced ROS 2" * HAS_ROS, create_venv),
    Step("Install Python packages" + f" and ROS 2 {DISTRO}" * (not HAS_ROS), install_packages),
    Step("Build the messages and the overlay", build_overlay),
]
TEST: list[Step] = [
    *RUN[:-1],
    *([Step(f"Install {TORCH} (large)", install_torch)] if IS_DEFAULT else []),
    Step("Install the tools for tests", install_test_tools),
    RUN[-1],
]
GOALS: dict[str, list[Step]] = {
    "run": RUN,
    "test": TEST,
    "check": [Step("Install the linters", install_linters)],
    "docs": [Step("Install the tools of the documentation site", install_site_tools)],
    "lowest": [Step("Install the oldest versions of all dependencies", install_lowest)],
}


# --- their parts ---------------------------------------------------------------------------------


def make_venv(venv: Environment, with_system_packages: bool) -> bool:
    """Create or replace `venv` unless it belongs to this Python and this kind of ROS."""
    # the path belongs to it: an environment cannot be moved, nor can the overlay built with it
    key = f"{venv.path} {sys.base_prefix} {platform.python_version()} {with_system_packages}"
    if venv.python.exists() and venv.is_done("venv", key):
        return False
    try:
        import ensurepip
        import venv as builder
    except ImportError:
        raise SetupError("Python's venv is missing: `sudo apt install python3-venv`.") from None
    del ensurepip  # only its presence matters: Debian ships venv without it
    builder.create(
        venv.path,
        clear=True,
        with_pip=True,
        symlinks=True,
        system_site_packages=with_system_packages,
    )
    venv.mark_done("venv", key)
    return True


def install_pinned(venv: Environment, requirements: Path, *project: str) -> bool:
    """Install `requirements` into `venv`, with the `project` if its arguments for pip are given."""
    made = make_venv(venv, with_system_packages=False)
    key = digest([requirements, *([REPO / "pyproject.toml"] if project else [])])
    if venv.is_done("requirements", key):
        return made
    venv.pip_install("-r", str(requirements), *project)
    venv.mark_done("requirements", key)
    return True


def install(step: str, *arguments: str, inputs: list[Path]) -> bool:
    """pip-install `arguments` into `.venv` unless that was done with these arguments and inputs."""
    key = " ".join([*arguments, digest(inputs)])
    if VENV.is_done(step, key):
        return False
    VENV.pip_install(*arguments)
    if not HAS_ROS:
        point_cmake_files_at_this_python()
    VENV.mark_done(step, key)
    return True


def ros_requirements() -> list[str]:
    """pip arguments that bring ROS 2, or a NumPy that the sourced ROS 2 was compiled for."""
    if not HAS_ROS:
        return ["-r", str(ROS_REQUIREMENTS)]
    code = "import numpy, rclpy; print(numpy.__version__)"
    # -s: not the user's own NumPy, which may be another one than that of ROS
    found = subprocess.run([sys.executable, "-s", "-c", code], capture_output=True, text=True)
    if found.returncode:
        raise SetupError(
            f"{sys.executable} cannot import the rclpy of the sourced ROS 2 "
            f"{os.environ['ROS_DISTRO']}; it needs the system's Python: "
            "`export PYTHON=/usr/bin/python3` and run this again.\n" + found.stderr.strip()
        )
    version = found.stdout.strip()
    return [f"numpy>={version},<{int(version.partition('.')[0]) + 1}"]


def point_cmake_files_at_this_python() -> None:
    """The wheels' CMake files name the Python of the machine that they were built on."""
    code = (
        "import numpy, sysconfig as s; print(s.get_path('include'), numpy.get_include(), sep='|')"
    )
    found = subprocess.run([VENV.python, "-c", code], capture_output=True, text=True, check=True)
    python_include, numpy_include = found.stdout.strip().split("|")
    for file in (VENV.path / "share").rglob("*.cmake"):
        text = file.read_text()
        new = re.sub(r'/opt/python/[^;"]+/numpy/(_core|core)/include', numpy_include, text)
        new = re.sub(r'/opt/python/[^;"/]+/include/python3\.\d+', python_include, new)
        if new != text:
            file.write_text(new)


def build_environment() -> dict[str, str]:
    """The variables that colcon builds with."""
    environment = os.environ.copy()
    environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)  # it would be that of another Python
    environment["PATH"] = f"{VENV.path / 'bin'}{os.pathsep}{environment['PATH']}"
    if not HAS_ROS:
        environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(VENV.path)
    return environment


def digest(files: list[Path]) -> str:
    """A hash of the contents of `files`."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def digest_names(folders: tuple[str, ...]) -> str:
    """A hash of the names of all files in `folders`; their contents are linked, not copied."""
    files = (file for folder in folders for file in (REPO / folder).rglob("*"))
    names = sorted(str(f.relative_to(REPO)) for f in files if "__pycache__" not in f.parts)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run `command` with its output in the log; on a terminal its latest line is shown too."""
    lines = []
    process = subprocess.Popen(
        command,
        cwd=REPO,
        env=environment,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with LOG.open("a") as log:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            print(lines[-1], file=log, flush=True)
            show_progress(lines[-1])
    show_progress("")
    if process.wait():
        raise SetupError("\n".join([*lines[-25:], "", advice("\n".join(lines))]))


def advice(output: str) -> str:
    """What to do about a failed command with this output."""
    for pattern, text in ADVICE:
        if re.search(pattern, output):
            return text
    return f"The whole output is in {LOG.relative_to(REPO)}."


def show_progress(line: str) -> None:
    """Overwrite the current line of the terminal; nothing where output is not a terminal."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r\033[K" + line.strip()[:width], end="", flush=True)


def main() -> int:
    """Do the steps of the goal named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in GOALS:
        print(f"usage: setup_env.py {{{','.join(GOALS)}}}", file=sys.stderr)
        return 2
    steps = GOALS[sys.argv[1]]
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    for number, step in enumerate(steps, 1):
        heading = f"[{number}/{len(steps)}] {step.title}"
        print(heading, flush=True)
        start = time.monotonic()
        try:
            changed = step.do()
        except (SetupError, OSError, subprocess.CalledProcessError) as error:
            print(f"{error}\n\n{heading}: failed, see above.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"\n{heading}: interrupted; the next run begins here.", file=sys.stderr)
            return 130
        took = time.monotonic() - start
        print(f"      done in {took:.1f} s" if changed else "      up to date", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
