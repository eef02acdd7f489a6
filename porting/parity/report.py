"""Writes what a parity run found, as report.json and report.md."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from porting.parity.model_pair import Sides
from porting.parity.run import Case
from porting.parity.tap import ROUNDINGS, Tap
from porting.parity.tolerances import MIOU_BOUND, Tolerance

if TYPE_CHECKING:
    from porting.parity.miou import Labelled  # needs torch

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


_VIEWS = ("block", "chain", "given masks")


def good(cases: Sequence[Case], labelled: "Labelled | None" = None) -> bool:
    """Whether every judged tap, and the difference in mIoU, is within its bounds."""
    taps = all(tap.good for case in cases for tap in case.taps if tap.judged)
    return taps and (labelled is None or labelled.good)


def _by_view(case: Case) -> dict[str, list[Tap]]:
    taps = {view: [tap for tap in case.taps if tap.view == view] for view in _VIEWS}
    return {view: found for view, found in taps.items() if found}


def first_bad(case: Case) -> Tap | None:
    """The first judged tap that is out of bounds, in the model's order."""
    return next((tap for tap in case.taps if tap.judged and not tap.good), None)


def to_json(
    sides: Sides, cases: Sequence[Case], tolerance: Tolerance, labelled: "Labelled | None" = None
) -> dict[str, Any]:
    """The whole report."""
    dropped: dict[str, list[str]] = {}
    for name, rule in sides.plan.dropped.items():
        dropped.setdefault(rule.why, []).append(name)
    filled = [str(a) for _, addresses in sides.plan.used.values() for a in addresses]
    return {
        "family": sides.table.name,
        "table_version": sides.table.version,
        "target": sides.target.to_json(),
        "tensors": {
            "used": len(sides.plan.used),
            "filled": len(filled),
            "dropped": dropped,
        },
        "rules": _rules(sides),
        "tolerance": vars(tolerance),
        "dtype": sides.dtype,
        "device": jax.default_backend(),
        "versions": versions(),
        "cases": [
            {
                "name": case.name,
                "checkpoint": case.checkpoint,
                "taps": [tap.to_json() for tap in case.taps],
                "first_out_of_bounds": getattr(first_bad(case), "name", None),
            }
            for case in cases
        ],
        "labelled": labelled.to_json() if labelled else None,
        "verdict": "equal within tolerance" if good(cases, labelled) else "out of bounds",
    }


def to_markdown(report: dict[str, Any], cases: Sequence[Case]) -> str:
    """The report for people: the verdict, what was converted, one table per case."""
    lines = [
        f"# Parity of {report['family']}: {report['verdict']}",
        "",
        f"{report['dtype']} on {report['device']}. Bounds on the largest error over the standard"
        f" deviation of the reference: {report['tolerance']['model']:g} after a chain,"
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
        lines += ["", f"## {case.name}", "", *_worst(case), "", *_table(case)]
    return "\n".join(lines) + "\n"


def _miou(found: dict[str, Any]) -> str:
    """What both sides score on labelled images."""
    return (
        f"mIoU of {found['classes']} classes on {found['images']} images of {found['ref']}: ours"
        f" {found['ours']:.4%}, PyTorch {found['theirs']:.4%}, difference"
        f" {100 * found['delta']:+.4f} points (bound {100 * MIOU_BOUND:g});"
        f" {found['agreement']:.4%} of the pixels have the same class."
    )


def write(report: dict[str, Any], markdown: str, output: Path) -> None:
    """Writes both files, each under its final name only when complete."""
    output.mkdir(parents=True, exist_ok=True)
    texts = {"report.json": json.dumps(report, indent=1) + "\n", "report.md": markdown}
    for name, text in texts.items():
        temporary = output / f".{name}.tmp"
        temporary.write_text(text)
        os.replace(temporary, output / name)


def _worst(case: Case) -> list[str]:
    """What a reader wants first: file, verdict, the largest error of every view."""
    checkpoint = case.checkpoint
    lines = [f"{checkpoint['file']}, sha256 `{str(checkpoint['sha256'])[:16]}`.", ""]
    bad = first_bad(case)
    if bad:
        lines += [f"**First out of bounds: `{bad.name}` ({bad.view}), {bad.ratio:.1e}.**", ""]
    for view, taps in _by_view(case).items():
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
    bad = first_bad(case)
    for tap in case.taps:
        verdict = "reported only" if not tap.judged else "ok" if tap.good else "**OUT**"
        own = tap.reference
        if verdict == "ok" and own and tap.bound == ROUNDINGS * own.ratio:
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
            f"{own.ratio:.1e}" if own else "",
            f"{own.agreement:.4%}" if own else "",
            "" if tap.undecided is None else f"{tap.undecided:,} of {tap.positions:,}",
            f"{tap.decided_agreement:.4%}",
            "" if tap.flips is None else str(tap.flips),
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _rules(sides: Sides) -> dict[str, dict[str, Any]]:
    """Pattern -> its layout and how many tensors it moved or left out."""
    rules: dict[str, dict[str, Any]] = {}
    used = [rule for rule, _ in sides.plan.used.values()]
    for rule in [*used, *sides.plan.dropped.values()]:
        entry = rules.setdefault(rule.pattern, {"layout": rule.layout.name, "tensors": 0})
        entry["tensors"] += 1
    return rules


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part, where they are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # only the packages of the compared family are needed
    return found
