r"""One self-contained HTML page about some runs, their scores and their predictions.

    python -m experiments.report --runs runs/camvid runs/camvid_fpn \
        --evaluations runs/camvid/evaluation runs/camvid_fpn/evaluation \
        --predictions runs/camvid/photos --output report.html

`--runs` are folders of `clouds_jax.train`, `--evaluations` of `clouds_jax.evaluate`,
`--predictions` of `clouds_jax.predict`. All pictures are inside the page.
"""

import argparse
import base64
import html
import io
import json
import math
import pathlib
import string
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from clouds_jax.command_line import one_line_errors
from clouds_jax.files import write_text
from clouds_jax.visual import plots

PAGE = pathlib.Path(__file__).with_name("report_page.html")
MOST_PREDICTIONS = 24
WIDEST = 1800  # pixels of an embedded picture
KINDS = {"19": "19 classes", "16": "16 of SYNTHIA", "11": "11 classes", "7": "7 categories"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.report")
    parser.add_argument("--title", default="CLOUDS in JAX")
    for name, what in (
        ("runs", "folders of training runs"),
        ("evaluations", "folders that evaluate wrote"),
        ("predictions", "folders that predict wrote"),
    ):
        parser.add_argument(f"--{name}", nargs="*", default=[], type=pathlib.Path, help=what)
    parser.add_argument("--output", required=True, type=pathlib.Path, help="HTML file to write")
    args = parser.parse_args(argv)
    try:
        write_text(args.output, page(args.title, args.runs, args.evaluations, args.predictions))
    except (ValueError, OSError) as error:
        sys.exit(f"report: {error}")
    print(f"{args.output} ({args.output.stat().st_size / 2**20:.1f} MiB)")


def page(
    title: str,
    runs: Sequence[pathlib.Path],
    evaluations: Sequence[pathlib.Path],
    predictions: Sequence[pathlib.Path],
) -> str:
    """The page's HTML; parts without material are left out."""
    if not (runs or evaluations or predictions):
        raise ValueError("nothing to report; name --runs, --evaluations or --predictions.")
    loaded = [(folder, read_results(folder)) for folder in evaluations]
    parts = []
    if loaded:
        parts += [
            section("Scores", headline(loaded) + by_class(loaded)),
        ]
    if runs:
        picture = embed_figure(plots.curves(runs))
        parts.append(section("Learning curves", f'<div class="scroll card wide">{picture}</div>'))
    for folder, results in loaded:
        for dataset in results["datasets"]:
            parts.append(section(f"{heading(results, dataset)}", panels(folder, dataset)))
    for folder in predictions:
        parts.append(section(f"Predictions: {html.escape(folder.name)}", gallery(folder)))
    if runs:
        parts.append(section("Runs", "".join(map(run_facts, runs))))
    template = string.Template(PAGE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body="\n".join(parts))


def read_results(folder: pathlib.Path) -> dict[str, Any]:
    """The results of an evaluation."""
    path = folder / "results.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; name folders that python -m clouds_jax.evaluate wrote."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def model_name(results: Mapping[str, Any]) -> str:
    """What to call the model that was scored."""
    about = results["about"]
    return pathlib.Path(about.get("run") or about.get("weights") or "model").name


def heading(results: Mapping[str, Any], dataset: str) -> str:
    miou = percent(results["datasets"][dataset]["miou"])
    return html.escape(f"{dataset}: {miou} % mIoU, {model_name(results)}")


def percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def share(value: float | None) -> str:
    """A cell that shows a share of 1 in per cent: the higher, the stronger its colour."""
    style = "" if value is None else f' style="--share:{100 * value:.0f}%"'
    return f'<td class="number heat"{style}>{percent(value)}</td>'


def breakable(text: str) -> str:
    """Escaped, and free to break after the joints of a name such as streets_oldtown_day/val."""
    return html.escape(text).replace("_", "_<wbr>").replace("/", "/<wbr>")


def table(
    left: Sequence[str], right: Sequence[str], rows: Sequence[str], last: Sequence[str] = ()
) -> str:
    """A table with column heads set left, right (above numbers) and left again."""
    cells = "".join(f"<th>{breakable(cell)}</th>" for cell in left)
    cells += "".join(f'<th class="number">{breakable(cell)}</th>' for cell in right)
    cells += "".join(f"<th>{breakable(cell)}</th>" for cell in last)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def headline(loaded: Sequence[tuple[pathlib.Path, Mapping[str, Any]]]) -> str:
    """One row per model and dataset: mIoU over all sets of classes."""
    several = len({model_name(results) for _, results in loaded}) > 1
    found = {kind for _, r in loaded for d in r["datasets"].values() for kind in d["scores"]}
    kinds = [k for k in KINDS if k in found] + sorted(found - set(KINDS))
    rows = []
    for _, results in loaded:
        for dataset, numbers in results["datasets"].items():
            scores = numbers["scores"]
            cells = "".join(share(scores[k]["miou"] if k in scores else None) for k in kinds)
            finest = next(iter(scores.values()))
            model = f"<td>{html.escape(model_name(results))}</td>" if several else ""
            rows.append(
                f"<tr><th>{html.escape(dataset)}</th>{model}{cells}"
                f'<td class="number">{percent(finest["accuracy"])}</td>'
                f'<td class="number">{len(numbers["images"])}</td>'
                f'<td class="number">{numbers["images_per_second"]:.2f}</td>'
                f"<td>{html.escape(numbers['protocol'])}</td></tr>"
            )
    left = ["dataset", "model"] if several else ["dataset"]
    right = [*(f"mIoU, {KINDS.get(k, k)}" for k in kinds), "pixels right", "images", "images/s"]
    note = (
        '<p class="note">Per cent. A mean over fewer classes merges the classes of the labels and '
        "of the prediction before counting.</p>"
    )
    return table(left, right, rows, last=["protocol"]) + note


def by_class(loaded: Sequence[tuple[pathlib.Path, Mapping[str, Any]]]) -> str:
    """IoU of each class, one table per set of finest classes."""
    groups: dict[tuple[str, ...], list[tuple[str, Mapping[str, float | None]]]] = {}
    several = len({model_name(results) for _, results in loaded}) > 1
    for _, results in loaded:
        for dataset, numbers in results["datasets"].items():
            iou = next(iter(numbers["scores"].values()))["iou"]
            name = f"{dataset}, {model_name(results)}" if several else dataset
            groups.setdefault(tuple(iou), []).append((name, iou))
    out = []
    for classes, columns in groups.items():
        rows = []
        for c in classes:
            cells = "".join(share(iou[c]) for _, iou in columns)
            rows.append(f"<tr><th>{html.escape(c)}</th>{cells}</tr>")
        out.append(
            f"<h3>IoU of each of the {len(classes)} classes</h3>"
            + table(["class"], [name for name, _ in columns], rows)
        )
    return "".join(out)


def panels(folder: pathlib.Path, dataset: str) -> str:
    """The panels of an evaluation, and its confusion matrix to unfold."""
    stem = folder / dataset.replace("/", "_")
    out = ""
    drawn = stem.with_name(f"{stem.name}_panels.png")
    if drawn.exists():
        out += f'<div class="scroll card wide">{embed(drawn, f"panels of {dataset}")}</div>'
    matrix = stem.with_name(f"{stem.name}_confusion.png")
    if matrix.exists():
        picture = embed(matrix, f"confusion matrix of {dataset}", photo=False)
        out += (
            "<details><summary>Where the pixels of each class went</summary>"
            f'<div class="scroll card">{picture}</div></details>'
        )
    return out


def gallery(folder: pathlib.Path) -> str:
    """The overlays of a folder, evenly chosen if they are many."""
    found = sorted(folder.rglob("*_overlay.png"))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no *_overlay.png; name folders that python -m clouds_jax.predict wrote."
        )
    step = max(1, math.ceil(len(found) / MOST_PREDICTIONS))
    figures = "".join(
        f'<figure class="card">{embed(path, path.stem, widest=900)}'
        f"<figcaption>{html.escape(path.name.removesuffix('_overlay.png'))}</figcaption></figure>"
        for path in found[::step]
    )
    shown = len(found[::step])
    note = f'<p class="note">{shown} of {len(found)} images.</p>' if shown < len(found) else ""
    return f'<div class="gallery">{figures}</div>{note}'


def run_facts(run: pathlib.Path) -> str:
    """What was run, on what, for how long; the whole config to unfold."""
    facts: list[tuple[str, str]] = []
    log = plots.read_series(run)
    config: dict[str, Any] = {}
    if (run / "config.json").exists():
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        batch = sum(config["data"]["batch"].values())
        facts += [
            ("encoder", f"{config['encoder']['name']} ({config['encoder']['dtype']}, frozen)"),
            ("head", ", ".join(f"{k} {v}" for k, v in config["head"].items())),
            ("data", ", ".join(f"{n} x {name}" for name, n in config["data"]["batch"].items())),
            ("crop", "{} x {}".format(*config["data"]["crop"])),
        ]
        if "time/images_per_s" in log:
            steps, rates = log["time/images_per_s"]
            seconds = training_seconds(steps, rates, batch)
            facts.append(("training", f"{steps[-1]:,} steps of {batch} images in {clock(seconds)}"))
            facts.append(("speed", f"{steps[-1] * batch / seconds:.2f} images/s"))
    if "loss" in log:
        facts.append(("last loss", f"{log['loss'][1][-1]:.4g} at step {log['loss'][0][-1]:,}"))
    for key, (steps, values) in log.items():
        if plots.is_score(key):
            best = max(range(len(values)), key=lambda i: values[i])
            facts.append(
                (
                    f"best on {plots.score_name(key)}",
                    f"{percent(values[best])} % mIoU at step {steps[best]:,}",
                )
            )
    if (run / "run.txt").exists():
        lines = (run / "run.txt").read_text(encoding="utf-8").splitlines()
        facts += [("software", lines[0])] + [("weights", x) for x in lines[1:2]]
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts)
    whole = html.escape(json.dumps(config, indent=1))
    unfold = f"<details><summary>Config</summary><pre>{whole}</pre></details>" if config else ""
    return f"<h3>{html.escape(run.resolve().name)}</h3><dl>{rows}</dl>{unfold}"


def training_seconds(steps: Sequence[int], rates: Sequence[float], batch: int) -> float:
    """Time spent in steps, evaluations left out, from the logged images per second."""
    before = [0, *steps[:-1]]
    return sum((s - b) * batch / r for s, b, r in zip(steps, before, rates, strict=True) if r > 0)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest} s"
    )


def embed(path: pathlib.Path, text: str, *, widest: int = WIDEST, photo: bool = True) -> str:
    """A picture file as an element; photos as JPEG, which is a fifth of the size."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width > widest:
        height = round(picture.height * widest / picture.width)
        picture = picture.resize((widest, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    kind = "jpeg" if photo else "png"
    picture.save(file, kind, **({"quality": 88, "subsampling": 0} if photo else {}))
    return _element(kind, file.getvalue(), text, picture.size)


def embed_figure(figure) -> str:
    """A figure as vector graphics."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", facecolor="white")
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    return _element("svg+xml", file.getvalue(), "learning curves", (width, height))


def _element(kind: str, data: bytes, text: str, size: tuple[int, int]) -> str:
    code = base64.b64encode(data).decode()
    return (
        f'<img loading="lazy" width="{size[0]}" height="{size[1]}" alt="{html.escape(text)}" '
        f'src="data:image/{kind};base64,{code}">'
    )


if __name__ == "__main__":
    with one_line_errors("report"):
        main()
