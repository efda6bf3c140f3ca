"""ROS 2: the distribution, its variables, and the messages that were built."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..installation import shared_file
from .lines import ABSENT, DOCS, FAULT, OK, WARNING, Lines

ROS_S = 8.0
"""For the import of rclpy."""
_ROS_PROBE = """
import sys
sys.path[:] = filter(None, sys.path)  # not from the current folder, as the command itself
import json, rclpy
facts = {"rmw": rclpy.get_rmw_implementation_identifier(), "messages": {}, "reason": ""}
try:
    from video_knet_ros import msg
    for name, message in vars(msg).items():
        if hasattr(message, "get_fields_and_field_types"):
            facts["messages"][name] = message.get_fields_and_field_types()
except ImportError as error:
    facts["reason"] = str(error)
print(json.dumps(facts))
"""
"""Executed by another process: the core imports no ROS, and a library of another ROS may crash."""
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_BUILD = "colcon build --packages-select video_knet_ros && source install/setup.bash"
_BUILD_IN_CLONE = "make setup && source scripts/env.sh, in a clone"


def ros() -> Lines:
    distro = os.environ.get("ROS_DISTRO")
    if not distro and not find_spec("rclpy"):
        yield ABSENT, "not installed, or its setup.bash is not sourced; only the node needs it"
        return
    yield OK, f"distribution: {distro or 'ROS_DISTRO is not set, as with ROS 2 from Python wheels'}"
    facts = _probe_ros()
    if isinstance(facts, str):
        python = "{}.{}".format(*sys.version_info)
        remedy = (
            f"source the setup.bash of a ROS 2 for Python {python}, or run this with the Python of "
            "that ROS 2"
        )
        if (middleware := os.environ.get("RMW_IMPLEMENTATION")) and middleware in facts:
            remedy = f"unset RMW_IMPLEMENTATION, or install {middleware} for this ROS 2"
        yield FAULT, f"rclpy cannot be imported: {facts}", remedy
        return
    yield OK, f"rclpy, middleware {facts['rmw']}"
    yield from _network_lines(facts["rmw"])
    yield _messages_line(facts)


def _probe_ros() -> dict[str, Any] | str:
    """What `_ROS_PROBE` prints, or why it failed."""
    command = [sys.executable, "-B", "-c", _ROS_PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ROS_S)
    except subprocess.TimeoutExpired:
        return f"it takes more than {ROS_S:g} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    line = next(line for line in done.stdout.splitlines()[::-1] if line.startswith("{"))
    facts: dict[str, Any] = json.loads(line)
    return facts


def _network_lines(middleware: str) -> Lines:
    """The variables that decide which other nodes are found, and how images reach them."""
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    if re.fullmatch(r"\d{1,3}", domain, re.ASCII) and int(domain) <= 232:
        yield OK, f"ROS_DOMAIN_ID {domain}"
    else:
        yield FAULT, f"ROS_DOMAIN_ID: expected 0 to 232, got {domain!r}", "unset ROS_DOMAIN_ID"
    scope = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    if os.environ.get("ROS_LOCALHOST_ONLY") == "1":
        yield OK, "discovery: of this machine alone (ROS_LOCALHOST_ONLY)"
    elif scope in _RANGES:
        yield OK, f"discovery range {scope}"
    else:
        text = f"ROS_AUTOMATIC_DISCOVERY_RANGE: expected one of {', '.join(_RANGES)}, got {scope!r}"
        yield WARNING, text, "unset ROS_AUTOMATIC_DISCOVERY_RANGE"
    if "fastrtps" in middleware:
        yield _profile_line()


def _profile_line() -> tuple[str, ...]:
    """The profile of Fast DDS, whose default shared memory is too small for images."""
    for name in _PROFILES:
        if value := os.environ.get(name):
            if Path(value).is_file():
                return OK, f"{name}: {value}"
            return FAULT, f"{name}: no file {value}", f"unset {name}, or name a file that exists"
    text = f"{' or '.join(_PROFILES)} is not set: images exceed the default shared memory"
    remedy = f"the launch files set it for their own nodes; for others see {DOCS}/how-to/cameras/"
    return WARNING, text, remedy


def _messages_line(facts: dict[str, Any]) -> tuple[str, ...]:
    """Whether the messages that were built are those of `msg/`."""
    built: dict[str, dict[str, str]] = facts["messages"]
    if not built:
        build = _BUILD if os.environ.get("ROS_DISTRO") else _BUILD_IN_CLONE
        return WARNING, f"video_knet_ros.msg is not built: {facts['reason']}", build
    folder = shared_file("msg/TrackedInstance.msg").parent
    expected = {file.stem: _fields(file.read_text()) for file in folder.glob("*.msg")}
    wrong = sorted(n for n in {*built, *expected} if built.get(n) != expected.get(n))
    if wrong:
        return FAULT, f"messages of another version are built: {', '.join(wrong)}", _BUILD
    return OK, f"video_knet_ros.msg: {len(built)} messages, as in {folder}"


_NAMES = {"bool": "boolean", "byte": "octet", "char": "uint8", "float32": "float"}
_NAMES |= {"float64": "double"}
"""Type of a message definition -> that of the generated class."""


def _fields(definition: str) -> dict[str, str]:
    """Fields and types of a message, as its generated class has them."""
    fields = {}
    for line in definition.splitlines():
        match = re.match(r"([\w/]+)(\[(\d*)\])?\s+(\w+)\s*(#|$)", line)
        if not match:  # a comment or a constant
            continue
        kind, array, size, name = match[1], match[2], match[3], match[4]
        package = "video_knet_ros/" if kind[0].isupper() else ""
        kind = package + _NAMES.get(kind, kind)
        fields[name] = f"{kind}[{size}]" if size else f"sequence<{kind}>" if array else kind
    return fields
