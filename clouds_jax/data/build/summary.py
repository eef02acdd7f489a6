"""The summary of a build: counts, class shares, sizes, hashes; as JSON and as text."""

import collections
from collections.abc import Sequence
from typing import Any

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import get_space
from clouds_jax.data.datasets.spec import DatasetSpec
from clouds_jax.data.records import SCHEMA_VERSION

_SHOWN = 10  # names in a warning
_MOST = 0.5  # share of ignored pixels from which a whole set is suspicious


def summarise(
    spec: DatasetSpec,
    split: str,
    parameters: dict[str, Any],
    digest: str,
    reports: Sequence[dict[str, Any]],
    problems: Sequence[str],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The summary of a build.

    Args:
        spec: the dataset.
        split: name of the split.
        parameters: settings of the build that the files depend on.
        digest: hash of the raw data, see `workspace.digest`.
        reports: reports of all shards, see `shards.write_shard`.
        problems: examples that were left out before any file was opened.
        notes: what the user should know of how the files were found.
    """
    kept = [report for report in reports if report["examples"]]
    sizes: collections.Counter[str] = collections.Counter()
    for report in kept:
        sizes.update(report["sizes"])
    pixels = [sum(column) for column in zip(*(report["pixels"] for report in kept), strict=True)]
    images = [sum(column) for column in zip(*(report["images"] for report in kept), strict=True)]
    labelled = sum(pixels) - pixels[IGNORE]
    names = get_space(spec.label_space).names if spec.label_space else ()
    examples = sum(report["examples"] for report in kept)
    return {
        "dataset": spec.name,
        "split": split,
        "version": SCHEMA_VERSION,
        "label_space": spec.label_space,
        "jitter_size": spec.jitter_size,
        "codec": parameters["codec"],
        "examples": examples,
        "expected": spec.splits.get(split),
        "skipped": [*problems, *(problem for report in reports for problem in report["problems"])],
        "sizes": dict(sizes.most_common()),
        "ignored": pixels[IGNORE] / sum(pixels) if sum(pixels) else None,
        "ignored_images": [key for report in kept for key in report["ignored"]],
        "notes": list(notes),
        "classes": {
            name: {"share": pixels[i] / labelled if labelled else 0.0, "images": images[i]}
            for i, name in enumerate(names)
        },
        "bytes": sum(report["bytes"] for report in kept),
        "shards": [
            {key: report[key] for key in ("name", "examples", "bytes", "sha256")} for report in kept
        ],
        "parameters": parameters,
        "sources": digest,
        "homepage": spec.homepage,
        "licence": spec.licence,
    }


def warnings(summary: dict[str, Any]) -> list[str]:
    """What is suspicious about a build: images that are ignored entirely, a set that mostly is."""
    found = list(summary.get("notes", ()))
    if empty := summary.get("ignored_images"):
        more = f" and {len(empty) - _SHOWN:,} more" if len(empty) > _SHOWN else ""
        found.append(
            f"{len(empty):,} of {summary['examples']:,} images "
            f"({100 * len(empty) / summary['examples']:.1f} %) are ignored entirely, no pixel has "
            f"a class: {', '.join(empty[:_SHOWN])}{more}. Look at their labels."
        )
    share = summary["ignored"]
    if share is not None and share > _MOST:
        found.append(
            f"{100 * share:.1f} % of all pixels are ignored. Are these labels of the kind that "
            f"{summary['dataset']} reads?"
        )
    return found


def describe(summary: dict[str, Any]) -> str:
    """A summary as human-readable text."""
    sizes = list(summary["sizes"].items())
    lines = [
        f"{summary['dataset']}/{summary['split']}: {summary['examples']:,} examples in "
        f"{len(summary['shards'])} shards, {summary['bytes'] / 1e6:,.1f} MB, {summary['codec']}",
        "sizes (h x w): "
        + ", ".join(f"{size} ({count:,})" for size, count in sizes[:4])
        + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""),
    ]
    if summary["classes"]:
        lines.append(f"{'class':<16}{'share of pixels':>16}{'images':>9}")
        lines += [
            f"{name:<16}{100 * entry['share']:>14.2f} %{entry['images']:>9,}"
            for name, entry in summary["classes"].items()
        ]
        if summary["ignored"] is not None:
            lines.append(f"{'(ignored)':<16}{100 * summary['ignored']:>14.2f} %")
    limit = summary["parameters"]["limit"]
    if limit is None and summary["expected"] not in (None, summary["examples"]):
        lines.append(
            f"note: the complete download has {summary['expected']:,} examples in this split."
        )
    lines += [f"WARNING: {text}" for text in warnings(summary)]
    if summary["skipped"]:
        lines.append(f"left out {len(summary['skipped'])}:")
        lines += [f"  {problem}" for problem in summary["skipped"]]
    return "\n".join(lines)
