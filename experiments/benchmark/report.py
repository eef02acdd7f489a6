"""The benchmark as JSON, as a table, as a picture."""

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import jax
import matplotlib

from clouds_jax import provenance
from clouds_jax.files import write_text
from clouds_jax.visual import plots
from experiments.benchmark.rows import Setting
from experiments.benchmark.timing import Seconds
from experiments.run import hardware

matplotlib.use("Agg")


_CACHED = " Of programs found in the compile cache `compile` is the time of reading them."


def about(setting: Setting, rounds: int) -> dict[str, Any]:
    """Hardware, versions, settings, and the rates of large matrix products and copies."""
    out: dict[str, Any] = {
        "hardware": _gpu() if setting.gpu else hardware(),
        "device": jax.devices()[0].device_kind,
        "versions": provenance.versions(["jax", "jaxlib", "flax", "torch", "transformers", "timm"]),
        "commit": provenance.commit(),
        "dtype": setting.dtype,
        "head_dtype": setting.head_dtype,
        "compile_cache": bool(jax.config.values["jax_compilation_cache_dir"]),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "rounds": rounds,
        "torch_compile": setting.compiled,
        "small": setting.small,
    }
    if setting.against == "torch":
        from porting.benchmark import programs

        out["matmul_tflops"] = programs.matmul_rate(setting.gpu, setting.dtype) / 1e12
        out["copy_gb_s"] = programs.copy_rate(setting.gpu) / 1e9
    return out


def _gpu() -> str:
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "GPU"


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    words = [row["name"], f"jax {Seconds(tuple(row['jax'])).spread()} ms"]
    if "torch" in row:
        words += [f"torch {Seconds(tuple(row['torch'])).spread()} ms", f"ratio {row['ratio']:.2f}"]
    if row["compile_s"] is not None:
        words += [f"compiled in {row['compile_s']:.1f} s"]
    return ", ".join(words)


def table(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    compiled = "compiled by torch.compile" if about["torch_compile"] else "eager"
    head = [
        f"{about['hardware']}; {about['dtype']}, head of JAX {about['head_dtype']}, its float32"
        f" products in {about['matmul_precision']}; {versions}; PyTorch {compiled}.",
        f"Medians (least .. most) of {about['rounds']} rounds in turn, ms."
        f"{_CACHED if about['compile_cache'] else ''}",
        *_limits(about),
        "",
        "| row | JAX | PyTorch | JAX / PyTorch | of roofline | temporaries, GiB | difference |"
        " compile, s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    notes = [f"- {row['name']}: {note}" for row in rows for note in _notes(row)]
    return "\n".join([*head, *(_row(about, row) for row in rows), *([""] if notes else []), *notes])


def _notes(row: dict[str, Any]) -> list[str]:
    notes = [row["note"]] if row.get("note") else []
    if row.get("jax_gib") is not None and row.get("torch_gib") is not None:
        notes.append(
            f"holds at most {row['jax_gib']:.1f} GiB, and PyTorch {row['torch_gib']:.1f} GiB with"
            " its models"
        )
    if row.get("peak_gib") is not None:
        notes.append(f"JAX held at most {row['peak_gib']:.1f} GiB, in this row or one before")
    return notes


def _limits(about: dict[str, Any]) -> list[str]:
    if "matmul_tflops" not in about:
        return []
    return [
        f"Roofline: {about['matmul_tflops']:.3g} TFLOP/s of large matrix products and "
        f"{about['copy_gb_s']:.3g} GB/s of large copies, measured in this run; the operations of"
        " products and convolutions, and what is given and returned moved once."
    ]


def roofline(about: dict[str, Any], row: dict[str, Any]) -> float | None:
    """The share of the time that the machine needs at least: for the arithmetic, or for reading
    the arguments and writing the results, whichever is longer. None where neither is known."""
    if "matmul_tflops" not in about or row["bytes"] is None:
        return None
    arithmetic = row.get("flops", 0) / (1e12 * about["matmul_tflops"])
    return max(arithmetic, row["bytes"] / (1e9 * about["copy_gb_s"])) / statistics.median(
        row["jax"]
    )


def _row(about: dict[str, Any], row: dict[str, Any]) -> str:
    if "not_run" in row:
        return f"| {row['name']} | not run: {row['not_run']} | | | | | | |"
    theirs = Seconds(tuple(row["torch"])).spread() if "torch" in row else "-"
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
    limit = roofline(about, row)
    # far below, the row waits for something that neither bound knows of
    share = f"{100 * limit:.0f} %" if limit is not None and limit > 0.005 else "-"
    memory = f"{row['temporaries_gib']:.2f}" if row["temporaries_gib"] is not None else "-"
    error = f"{row['error']:.1e}" if row["error"] is not None else "-"
    ours = Seconds(tuple(row["jax"])).spread()
    seconds = f"{row['compile_s']:.1f}" if row["compile_s"] is not None else "-"
    cells = [row["name"], ours, theirs, ratio, share, memory, error, seconds]
    return f"| {' | '.join(cells)} |"


def write(output: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes all three files."""
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    write_text(output / "results.json", text + "\n")
    write_text(output / "table.md", table(about, rows) + "\n")
    compared = [row for row in rows if "ratio" in row]
    if compared:
        plots.save(_bars(about, compared), output / "ratios.png")


def _bars(about: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [row["name"] for row in rows][::-1]
    ratios = [row["ratio"] for row in rows][::-1]
    bars = axes.barh(names, ratios, color=["#3a7" if r <= 1 else "#c63" for r in ratios])
    axes.axvline(1, color="black", linewidth=1)
    label = dict(boxstyle="square,pad=0.1", facecolor="white", edgecolor="none")
    axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=4, bbox=label)
    axes.set_xscale("log")
    axes.set_xticks([step * 10.0**power for power in range(-3, 3) for step in (1, 2, 5)])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0.7 * min(ratios), 2 * max(1, *ratios))  # last: ticks widen it
    axes.margins(y=0.01)
    axes.set_xlabel("time of JAX / time of PyTorch, or of what the row names (less is faster)")
    axes.set_title(f"{about['hardware']}, {about['dtype']}", fontsize=10)
    return figure
