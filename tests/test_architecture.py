"""The architecture: imports run one way, and the node needs little.

Imports inside functions and module names in registries count as imports.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import pytest

REPO = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("size", REPO / "scripts" / "size.py")
assert SPEC is not None and SPEC.loader is not None
size = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(size)

MODULES = size.module_files()
IMPORTS = [found for name in MODULES for found in size.imports_of(name, MODULES[name], MODULES)]

TORCH_LIBRARIES = {"torch", "safetensors", "onnx", "onnxscript", "tensorboard"}
"""What a robot that runs an exported model does not have."""
TORCH_MODULES = (
    "video_knet_core.model",
    "video_knet_core.training",
    "video_knet_core.engine.export",
    "video_knet_core.engine.torch_runtime",
    *(
        f"baselines.{name}"
        for name in (
            *("baseline", "boxes", "centers", "decoder", "flow", "motion_deeplab"),
            *("panoptic_deeplab", "tcb", "vip_deeplab", "vpsnet"),
        )
    ),
)
"""The modules, with all below them, that may need those libraries."""
ROS_PACKAGES = {"rclpy", "launch", "launch_ros", "cv_bridge", "rosbag2_py", "video_knet_ros"}

NODE_MODULES, NODE_LINES = 66, 13_000
"""The most that the node may be able to import, without the torch backend. What a robot needs may
raise it."""


def within(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of `packages` or lies below one."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def core(*names: str) -> tuple[str, ...]:
    return tuple(f"video_knet_core.{name}" for name in names)


def described(imports: list) -> list[str]:
    return [f"{found.importer} imports {found.target}" for found in imports]


ROBOT_MODULES = [name for name in MODULES if not within(name, TORCH_MODULES)]
ABOVE_THE_ENGINE = (
    *core("data", "metrics", "evaluate", "training", "tracking", "predictor", "bags", "replay"),
    *core("cli"),
    "synthetic_street",
)


def test_the_walk_finds_the_packages() -> None:
    assert {"video_knet_core.types", "video_knet_core.model", "video_knet_ros"} <= set(MODULES)
    assert size.Import("video_knet_core.config_io", "video_knet_core.types", False) in IMPORTS


def test_a_name_in_a_registry_is_an_import(tmp_path: Path) -> None:
    file = tmp_path / "registry.py"
    file.write_text('OPEN = {"a": ".a_module:open", "b": "pack.b"}\nNAME = ".a_module"\n')
    found = size.imports_of("pack.registry", file, {"pack.a_module", "pack.b"})
    assert {i.target for i in found} == {"pack.a_module", "pack.b"}


def test_a_package_that_lists_its_modules_imports_them() -> None:
    targets = {i.target for i in IMPORTS if i.importer == "video_knet_core.tracking"}
    assert {"video_knet_core.tracking.sort", "video_knet_core.tracking.quasi_dense"} <= targets


def test_modules_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for found in IMPORTS:
        if found.target in MODULES and found.target != found.importer:
            graph.setdefault(found.importer, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("importers", "forbidden"),
    [
        (core("geometry", "tasks"), ("video_knet_core.types", "video_knet_core.config")),
        (core("types", "config"), core("model", "engine", "tracking", "data", "training")),
        (core("model"), (*ABOVE_THE_ENGINE, "video_knet_core.engine")),
        (core("engine"), ABOVE_THE_ENGINE),
        (core("tracking"), (*core("engine", "data", "metrics", "training", "predictor"),)),
        (core("predictor"), (*core("data", "metrics", "training", "model"), "synthetic_street")),
        (core("data"), core("metrics", "evaluate", "training", "engine", "tracking", "predictor")),
        (core("metrics"), core("evaluate", "training", "engine", "tracking", "predictor", "data")),
        (core("training.losses", "training.criterion"), ("torch.distributed",)),
        (core("bags"), core("engine", "tracking", "predictor", "replay", "evaluate", "training")),
        (("video_knet_core",), tuple(ROS_PACKAGES)),
        (("video_knet_core", "video_knet_ros", "synthetic_street"), ("baselines",)),
        (("baselines",), (*ROS_PACKAGES, *core("cli", "evaluate", "replay", "predictor"))),
        (("synthetic_street",), core("engine", "tracking", "predictor", "training", "metrics")),
        (
            ("video_knet_ros",),
            (*TORCH_MODULES, *core("evaluate", "metrics", "cli", "replay"), "synthetic_street"),
        ),
    ],
)
def test_imports_run_one_way(importers: tuple[str, ...], forbidden: tuple[str, ...]) -> None:
    wrong = [i for i in IMPORTS if within(i.importer, importers) and within(i.target, forbidden)]
    assert not wrong, described(wrong)


def test_the_core_imports_no_ros_messages() -> None:
    wrong = [i for i in IMPORTS if within(i.importer, ("video_knet_core",)) and "_msgs" in i.target]
    assert not wrong, described(wrong)


def test_a_robot_imports_no_torch() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.importer in ROBOT_MODULES
        and (
            found.target.split(".")[0] in TORCH_LIBRARIES
            or (within(found.target, TORCH_MODULES) and not found.lazy)
        )
    ]
    assert not wrong, described(wrong)


def test_the_core_of_a_robot_loads_without_torch() -> None:
    names = [name for name in ROBOT_MODULES if name.startswith(("video_knet_core", "baselines"))]
    if importlib.util.find_spec("ray") is None:  # of the extra `fleet`
        names.remove("video_knet_core.replay.ray_fleet")
    code = (
        "import importlib, sys\n"
        f"for name in {sorted(TORCH_LIBRARIES)}: sys.modules[name] = None\n"
        f"for name in {names}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def node_closure() -> set[str]:
    torch_backend = [name for name in MODULES if within(name, TORCH_MODULES)]
    return size.import_closure(size.NODE, MODULES, without=torch_backend)


def test_the_node_can_import_little() -> None:
    closure = node_closure()
    lines = size.lines(MODULES[name] for name in closure)
    found = f"the node can import {len(closure)} modules with {lines} lines"
    advice = "import less, or raise the limit if a robot needs the new code (make size lists it)"
    assert len(closure) <= NODE_MODULES and lines <= NODE_LINES, f"{found}: {advice}"


def test_launch_files_import_nothing_from_pip() -> None:
    """`ros2 launch` runs with the system's Python, where packages are missing or too old."""
    closure = size.import_closure("video_knet_ros.launching", MODULES)
    wrong = [
        found
        for found in IMPORTS
        if found.importer in closure
        and found.target not in MODULES
        and found.target.split(".")[0]
        not in {*sys.stdlib_module_names, *ROS_PACKAGES, "ament_index_python"}
    ]
    assert not wrong, described(wrong)


def test_file_and_class_names_are_unique() -> None:
    """One name, one thing; `__init__`, `__main__` and private names aside."""
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        if not path.stem.startswith("_"):
            places.setdefault(path.name, []).append(module)
        for name in size.public_names(path):
            if name[0].isupper():
                places.setdefault(name, []).append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_package_xml_names_every_ros_package_that_is_imported() -> None:
    found = [i for i in IMPORTS if i.importer.startswith("video_knet_ros")]
    for path in (REPO / "launch").glob("*.py"):
        found += size.imports_of(path.stem, path, MODULES)
    imported = {i.target.split(".")[0] for i in found}
    not_ros = {*sys.stdlib_module_names, "cv2", "numpy", "video_knet_core", "video_knet_ros"}
    tags = {"depend", "exec_depend"}
    declared = {e.text for e in ElementTree.parse(REPO / "package.xml").iter() if e.tag in tags}
    assert imported - not_ros <= declared
