#!/usr/bin/env python3
"""Print how large the code is: lines, import closure of the node, public names, tests.

`size.py [FOLDER]` counts another copy of the sources, for a comparison. Imports are read from the
syntax trees, those inside functions too, and module names in registries; nothing is imported.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("video_knet_core", "video_knet_ros", "synthetic_street", "baselines")
NODE = "video_knet_ros.node"


class Import(NamedTuple):
    """`importer` imports `target`; lazily if that happens inside a function."""

    importer: str
    target: str
    lazy: bool


def module_files(repo: Path = REPO) -> dict[str, Path]:
    """Module name -> file, for all packages."""
    files = {}
    for package in PACKAGES:
        for path in sorted((repo / package).rglob("*.py")):
            parts = path.relative_to(repo).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(module: str, path: Path, modules: Iterable[str]) -> Iterator[Import]:
    """Every import of a module; those under `if TYPE_CHECKING` do not happen at run time."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text()), False)]
    while pending:
        node, lazy = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        for target in _targets(node, package, modules):
            yield Import(module, target, lazy or isinstance(node, ast.Constant))
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        pending += [(child, inside) for child in ast.iter_child_nodes(node)]


def _targets(node: ast.AST, package: str, modules: Iterable[str]) -> list[str]:
    """Absolute names of the modules that one import statement loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # of a registry
        name = node.value.partition(":")[0]
        name = resolve_name(name, package) if re.fullmatch(r"\.\w[\w.]*", name) else name
        return [name] if "." in name and name in modules else []
    if isinstance(node, ast.Name) and node.id == "__path__":  # a package that lists its modules
        return [name for name in modules if name.rpartition(".")[0] == package]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = resolve_name("." * node.level + (node.module or ""), package)
    submodules = [name for a in node.names if (name := f"{base}.{a.name}") in modules]
    # `from .package import module` needs nothing of the package itself
    return submodules if len(submodules) == len(node.names) else [base, *submodules]


def import_closure(start: str, modules: dict[str, Path], without: Iterable[str] = ()) -> set[str]:
    """Modules that importing `start` can load, lazily or not; none by way of those of `without`."""
    closure: set[str] = set()
    pending = [start]
    while pending:
        module = pending.pop()
        if module in modules and module not in closure and module not in without:
            closure.add(module)
            pending += [i.target for i in imports_of(module, modules[module], modules)]
    return closure


def public_names(path: Path) -> list[str]:
    """Functions and classes of a module without a leading underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]


def lines(paths: Iterable[Path]) -> int:
    """Lines of files, blank ones and comments included."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def sizes(repo: Path = REPO) -> dict[str, int]:
    """The counts, by what they count."""
    modules = module_files(repo)
    core = [path for name, path in modules.items() if name.startswith("video_knet_core")]
    renderer = [
        path
        for name, path in modules.items()
        if name.startswith(("synthetic_street", "video_knet_core.data.s")) and "street" in name
    ]
    node = [path for name, path in modules.items() if name.startswith("video_knet_ros")]
    product = set(core + node) - set(renderer)
    closure = import_closure(NODE, modules)
    return {
        "lines of core and node without the renderer": lines(product),
        "files of core and node without the renderer": len(product),
        "lines of the core": lines(set(core) - set(renderer)),
        "lines of the node": lines(node),
        "lines of the renderer": lines(renderer),
        "modules that the node can import": len(closure),
        "lines of these modules": lines(modules[name] for name in closure),
        "public names of the core": sum(len(public_names(p)) for p in set(core) - set(renderer)),
        "lines of the tests": lines((repo / "tests").rglob("*.py")),
        "lines of the benchmarks": lines((repo / "benchmarks").rglob("*.py")),
    }


def main() -> None:
    for what, count in sizes(Path(sys.argv[1]) if len(sys.argv) > 1 else REPO).items():
        print(f"{count:7,}  {what}")


if __name__ == "__main__":
    main()
