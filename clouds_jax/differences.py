"""In which keys two nested mappings of settings differ, in words."""

import json
from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves by dotted keys; tuples as lists, as JSON gives them back."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{name}."))
        else:
            out[name] = list(value) if isinstance(value, tuple) else value
    return out


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> `key 3, now 4` for every key whose values differ; "absent" where one has none.

    Args:
        old, new: nested mappings of JSON values.
    """
    before, now = flat(old), flat(new)
    return {
        key: f"{key} {_show(before, key)}, now {_show(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _show(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "absent"
