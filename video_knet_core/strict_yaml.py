"""YAML in which a mapping has each key once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of equal keys; of a user's table the others would be lost unseen."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping whose keys differ as they are written."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key, count in Counter(keys).items() if count > 1), None)
        if twice:
            line = node.start_mark.line + 1
            raise ValueError(f"mapping of line {line}: expected each key once, got {twice[1]!r}")
        return node


def parse_yaml(data: bytes) -> Any:
    """UTF-8 or UTF-16, whatever the locale is; ValueError names the fault."""
    try:
        return yaml.load(data, _Loader)
    except RecursionError:
        raise ValueError("expected YAML, got one that is nested too deeply") from None
    # PyYAML lets through what its converters of dates, numbers and explicit tags raise:
    # "2020-13-01", "!!int x", "!!bool x", "!!timestamp x"
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"expected YAML, got {error}") from None
