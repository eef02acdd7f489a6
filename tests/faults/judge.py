"""What a run left behind, without what a clock or a process number wrote."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
# grow while a program runs, tell of clocks, or are compared in another way (see `_arrays`)
_GROWS = re.compile(
    r"(log\.jsonl|\.md|run\.txt|error\.txt|wall_seconds|curves\.png|metrics\.jsonl|config\.json)$"
)
_CLOCK = re.compile(
    r"seconds|per_second|minutes|^time|since|started|created|date|commit|code|versions|peak_|clock"
    r"|run$|command|argv"
)
_LINES = 20


def files(folder: Path) -> dict[str, Any]:
    """The visible files below a folder and what they say, comparable with ==."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if hidden or not path.is_file() or _GROWS.search(name) or _stored(path):
            continue
        found[name] = _content(path)
    return found


def _stored(path: Path) -> bool:
    """Whether a file is one of Orbax', whose bytes may differ for equal arrays."""
    return "arrays" in path.parts or "checkpoints" in path.parts


def _content(path: Path) -> Any:
    if path.suffix != ".json":
        return path.read_bytes()
    return _timeless(json.loads(path.read_text()))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _CLOCK.search(k)}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def half_written(left: Path, whole: Path) -> list[str]:
    """Files under their final names that are not those of the undisturbed run."""
    expected = files(whole)
    try:
        found = files(left)
    except (ValueError, OSError) as error:
        return [f"unreadable: {error}"]
    # best.json names the best step so far
    return [
        name
        for name, content in found.items()
        if content != expected.get(name) and not name.endswith("best.json")
    ]


def differences(left: Path, whole: Path) -> list[str]:
    """In what a finished run differs from the undisturbed one."""
    found, expected = files(left), files(whole)
    wrong = [f"missing: {name}" for name in expected if name not in found]
    wrong += [f"extra: {name}" for name in found if name not in expected]
    wrong += [f"differs: {n}" for n in expected if n in found and found[n] != expected[n]]
    for kind in (_weights, _runs):
        wrong += kind(left, whole)
    return wrong


def _weights(left: Path, whole: Path) -> list[str]:
    """Differences between weights folders."""
    import jax

    from clouds_jax.weights import load_weights

    wrong = []
    for path in whole.rglob("provenance.json"):
        name = path.parent.relative_to(whole)
        try:
            one, other = (load_weights(root / name)[0] for root in (left, whole))
            jax.tree.map(np.testing.assert_array_equal, one, other)
        except Exception as error:  # any kind is a difference
            wrong.append(f"{name}: {str(error).strip().splitlines()[0]}")
    return wrong


def _runs(left: Path, whole: Path) -> list[str]:
    """Differences between trainings: metrics, and the arrays of the last checkpoint."""
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    import runs

    wrong = []
    for folder in whole.rglob("checkpoints"):
        name = folder.parent.relative_to(whole)
        step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
        try:
            runs.check_same(left / name, whole / name, step)
        except Exception as error:  # any kind is a difference
            wrong.append(f"{name}: {(str(error).strip().splitlines() or [type(error)])[0]}")
    return wrong


def words(status: int, error: str, allowed: Callable[[int], bool], says: str = "") -> list[str]:
    """What is wrong with a program's status and its last words."""
    wrong = [] if allowed(status) else [f"status {status}"]
    lines = [line for line in error.splitlines() if line.strip() and not _progress(line)]
    if "Traceback (most recent call last)" in error:
        wrong.append("a traceback")
    if len(lines) > _LINES:
        wrong.append(f"{len(lines)} lines")
    if says and says not in error:
        wrong.append(f"does not say {says!r}")
    return wrong


def _progress(line: str) -> bool:
    """Whether a line is of a progress bar or of the ordinary log, which is no last word."""
    return "it/s]" in line or "img/s]" in line or line[:1] in "\r|" or "step " in line
