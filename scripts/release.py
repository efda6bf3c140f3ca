#!/usr/bin/env python3
"""Check that a tag can be released, and collect what its GitHub release gets into dist/release/.

`release.py v1.0.0` checks that package.xml, CHANGELOG.md and models/index.yaml are those of the
tag, and that the weights are those of the index. Then it copies the weights, writes the section of
the changelog to dist/release-notes.md, and the version into the list of components (SBOM) that
`make dist` has written. The exit code is 1, with the reason, if anything differs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import yaml

REPO = Path(__file__).resolve().parents[1]


def changelog_section(version: str) -> str:
    """What CHANGELOG.md has under the heading of a version, ValueError if it has none."""
    text = (REPO / "CHANGELOG.md").read_text()
    heading = rf"^## \[?{re.escape(version)}\]?(?![\w.+-])[^\n]*\n"
    found = re.search(rf"{heading}(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise ValueError(f"CHANGELOG.md: expected a section '## {version}', got none")
    return found[1].strip() + "\n"


def weights(tag: str) -> list[Path]:
    """The files of models/index.yaml; ValueError if one, or the tag, is another."""
    index = yaml.safe_load((REPO / "models" / "index.yaml").read_text())
    if index["release"] != tag:
        raise ValueError(f"models/index.yaml: expected release {tag}, got {index['release']}")
    paths = []
    for entry in (entry for model in index["models"] for entry in model["files"]):
        path = REPO / "models" / entry["name"]
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != entry["sha256"]:
            raise ValueError(f"{path.name}: expected SHA-256 {entry['sha256']}, got {found}")
        if (size := path.stat().st_size) != entry["bytes"]:
            raise ValueError(f"{path.name}: expected {entry['bytes']} bytes, got {size}")
        paths.append(path)
    return paths


def prepare(tag: str, out: Path) -> None:
    """Write `out`/release and `out`/release-notes.md; ValueError or OSError if it cannot be."""
    version = ElementTree.parse(REPO / "package.xml").findtext("version", "")
    if tag != f"v{version}":
        raise ValueError(f"expected the tag v{version} of package.xml, got {tag!r}")
    notes, files = changelog_section(version), weights(tag)
    components = out / "release" / "sbom.cdx.json"
    content = json.loads(components.read_text())
    content["metadata"]["component"]["version"] = version  # pyproject.toml does not have it
    components.write_text(json.dumps(content, indent=2) + "\n")
    (out / "release-notes.md").write_text(notes)
    for file in files:
        shutil.copy2(file, out / "release")


def main() -> int:
    """Exit code 0 if all is as it should be."""
    if len(sys.argv) != 2:
        print("usage: release.py TAG", file=sys.stderr)
        return 2
    try:
        prepare(sys.argv[1], REPO / "dist")
    except (OSError, ValueError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
