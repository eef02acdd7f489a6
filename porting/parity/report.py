"""The report of a parity run, as report.json and report.md."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from clouds_jax.files import write_json, write_text
from porting.parity.case import Case
from porting.parity.model_pair import ModelPair
from porting.parity.tap import ROUNDINGS
from porting.parity.tolerances import MATMUL_PRECISION, MIOU_BOUND, Tolerance
from porting.tables.apply import Plan

if TYPE_CHECKING:
    from porting.parity.miou import LabelledScores  # needs torch

_PACKAGES = (
    "clouds-jax",
    "jax",
    "flax",
    "numpy",
    "torch",
    "transformers",
    "open_clip_torch",
    "timm",
    "efficientnet-lite-pytorch",
)


def good(cases: Sequence[Case], labelled: "LabelledScores | None" = None) -> bool:
    """Whether every judged tap, and the difference in mIoU, is within its bounds."""
    taps = all(case.first_bad is None for case in cases)
    return taps and (labelled is None or labelled.good)


def to_json(
    pair: ModelPair,
    cases: Sequence[Case],
    tolerance: Tolerance,
    labelled: "LabelledScores | None" = None,
) -> dict[str, Any]:
    """The content of report.json.

    Args:
        pair: the models.
        cases: one per batch.
        tolerance: the bounds.
        labelled: mIoU of both sides on labelled images.
    """
    table, plan = pair.conversion.table, pair.conversion.plan
    dropped: dict[str, list[str]] = {}
    for name, rule in plan.dropped.items():
        dropped.setdefault(rule.why, []).append(name)
    return {
        "family": table.name,
        "table_version": table.version,
        "target": pair.conversion.target.to_json(),
        "tensors": {
            "used": len(plan.used),
            "filled": sum(len(addresses) for _, addresses in plan.used.values()),
            "dropped": dropped,
        },
        "rules": _rules(plan),
        "tolerance": vars(tolerance),
        "dtype": pair.dtype,
        "platform": jax.default_backend(),
        "matmul_precision": MATMUL_PRECISION,
        "versions": versions(),
        "cases": [
            {
                "name": case.name,
                "checkpoint": case.checkpoint,
                "taps": [tap.to_json() for tap in case.taps],
                "first_out_of_bounds": getattr(case.first_bad, "name", None),
            }
            for case in cases
        ],
        "labelled": labelled.to_json() if labelled else None,
        "verdict": "equal within tolerance" if good(cases, labelled) else "out of bounds",
    }


def to_markdown(report: dict[str, Any], cases: Sequence[Case]) -> str:
    """The content of report.md: the verdict, the converted tensors, one table per case."""
    lines = [
        f"# Parity of {report['family']}: {report['verdict']}",
        "",
        f"{report['dtype']} on {report['platform']}, products of float32 numbers in"
        f" {report['matmul_precision']}. Bounds on the largest error over the standard deviation of"
        f" the reference: {report['tolerance']['model']:g} after a chain,"
        f" {report['tolerance']['block']:g} for one block on the reference's input, or"
        f" {ROUNDINGS} times the reference's own rounding where that is more. After a"
        f" chain at least {report['tolerance']['agreement']:.2%} of the argmax over the last axis"
        " equal, wherever"
        " the reference's own argmax is more than rounding: `undecided` counts the positions whose"
        " two largest values differ in float64 by at most twice the largest rounding error of the"
        " reference. `reference` is the reference in float32 against itself in float64, with the"
        " same attention masks.",
        "",
        f"Target: `{json.dumps(report['target'])}`.",
        "",
        f"{report['tensors']['used']} tensors used, {report['tensors']['filled']} targets filled.",
    ]
    lines += [
        f"- {len(names)} tensors left out: {why}."
        for why, names in report["tensors"]["dropped"].items()
    ]
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in report["versions"].items()) + "."]
    if report.get("labelled"):
        lines += ["", _miou(report["labelled"])]
    for case in cases:
        lines += ["", f"## {case.name}", "", *_summary(case), "", *_table(case)]
    return "\n".join(lines) + "\n"


def _miou(scores: dict[str, Any]) -> str:
    """The mIoU of both sides in a sentence."""
    return (
        f"mIoU of {scores['classes']} classes on {scores['images']} images of {scores['ref']}: ours"
        f" {scores['ours']:.4%}, PyTorch {scores['theirs']:.4%}, difference"
        f" {100 * scores['delta']:+.4f} points (bound {100 * MIOU_BOUND:g});"
        f" {scores['agreement']:.4%} of the pixels have the same class."
    )


def write(report: dict[str, Any], markdown: str, output: Path) -> None:
    """Writes report.json and report.md to the folder `output`."""
    write_json(output / "report.json", report)
    write_text(output / "report.md", markdown)


def _summary(case: Case) -> list[str]:
    """The checkpoint, the first tap out of bounds, and the largest error of every view."""
    checkpoint = case.checkpoint
    lines = [f"{checkpoint['file']}, sha256 `{str(checkpoint['sha256'])[:16]}`.", ""]
    bad = case.first_bad
    if bad:
        lines += [f"**First out of bounds: `{bad.name}` ({bad.view}), {bad.ratio:.1e}.**", ""]
    for view, taps in case.by_view().items():
        worst = max(taps, key=lambda tap: tap.ratio)
        judged = max((tap for tap in taps if tap.judged), key=lambda tap: tap.ratio)
        flips = max((tap.flips or 0 for tap in taps), default=0)
        bits = max((tap.bits or 0 for tap in taps), default=0)
        text = f"- {view}: {len(taps)} taps, worst {worst.ratio:.1e} (`{worst.name}`)"
        if judged is not worst:
            text += f", of the judged {judged.ratio:.1e} (`{judged.name}`)"
        least = min((tap for tap in taps if tap.judged), key=lambda tap: tap.decided_agreement)
        text += f", argmax agreement at least {least.decided_agreement:.4%} (`{least.name}`)"
        lines.append(text + (f", {flips} of {bits:,} mask bits flipped" if bits else ""))
    return lines


def _table(case: Case) -> list[str]:
    lines = [
        "| tap | view | shape | max error | mean error | max / std | argmax | reference: max / std"
        " | argmax | undecided | decided argmax | flips | |",
        "| --- | --- | --- " + "| ---: " * 9 + "| --- |",
    ]
    bad = case.first_bad
    for tap in case.taps:
        verdict = "reported only" if not tap.judged else "ok" if tap.good else "**OUT**"
        rounding = tap.reference
        if verdict == "ok" and rounding and tap.bound == ROUNDINGS * rounding.ratio:
            verdict = f"ok, bound {tap.bound:.1e} by the reference's rounding"
        name = f"**`{tap.name}`**" if tap is bad else f"`{tap.name}`"
        cells = [
            name,
            tap.view,
            "x".join(map(str, tap.shape)),
            f"{tap.max_error:.1e}",
            f"{tap.mean_error:.1e}",
            f"{tap.ratio:.1e}",
            f"{tap.agreement:.4%}",
            f"{rounding.ratio:.1e}" if rounding else "",
            f"{rounding.agreement:.4%}" if rounding else "",
            "" if tap.undecided is None else f"{tap.undecided:,} of {tap.positions:,}",
            f"{tap.decided_agreement:.4%}",
            "" if tap.flips is None else str(tap.flips),
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _rules(plan: Plan) -> dict[str, dict[str, Any]]:
    """Pattern -> its layout, and the number of tensors it moved or dropped."""
    rules: dict[str, dict[str, Any]] = {}
    used = [rule for rule, _ in plan.used.values()]
    for rule in [*used, *plan.dropped.values()]:
        entry = rules.setdefault(rule.pattern, {"layout": rule.layout.name, "tensors": 0})
        entry["tensors"] += 1
    return rules


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part, where they are installed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # only the packages of the compared family are needed
    return versions
