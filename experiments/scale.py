r"""What a training step costs on 1 to 256 devices, read from the compiled program.

    python -m experiments.scale                                # warmup_gta, an image per device
    python -m experiments.scale --config configs/warmup_synthia.py --devices 1 8 64

For each number of devices a process with as many simulated ones compiles the step of the config,
without weights or data: what it moves between devices and what each holds are in the program. The
times are none that were measured: bytes over the rates given, beside the arithmetic of the step.
Writes `results.json` and `table.md` into `experiments/results/scale/CONFIG`.
"""

import argparse
import functools
import json
import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clouds_jax.command_line import one_line_errors
from clouds_jax.files import write_json, write_text
from clouds_jax.training.state import abstract_state
from clouds_jax.training.step import make_step
from experiments.run import ROOT

_FLAG = "--xla_force_host_platform_device_count"
_RULES = {"replicated": ((".*", "replicate"),), "fsdp": ((".*", "fsdp"),)}
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_GIB = 2**30


def collectives(text: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in one run of a compiled program.

    What is in the body of a loop counts as often as it runs, where the program says how often.
    """
    lines: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            name = head[2]
            entry = name if head[1] else entry
        lines.setdefault(name, []).append(line)

    @functools.cache
    def of(computation: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in lines.get(computation, ()):
            own = re.search(rf"= (.+?) ({'|'.join(_KINDS)})(?:-start)?\(", line)
            if own:
                found[own[2]] = found.get(own[2], 0) + _size(own[1])
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            for called in re.findall(r"(?:body|calls|to_apply|_computation)=%?([\w.-]+)", line):
                for kind, size in of(called).items():
                    found[kind] = found.get(kind, 0) + size * (int(trips[1]) if trips else 1)
            branches = re.search(r"branch_computations=\{(.*?)\}", line)
            for called in re.findall(r"[\w.-]+", branches[1]) if branches else ():
                for kind, size in of(called).items():
                    found[kind] = found.get(kind, 0) + size
        return found

    return of(entry)


def _size(result: str) -> int:
    """Bytes of an instruction's result, of all parts of a tuple."""
    return sum(
        _BYTES[dtype] * math.prod(int(side) for side in shape.split(",") if side)
        for dtype, shape in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", result)
    )


def compiled(path: str, rule: str, per_device: int) -> dict[str, Any]:
    """Compiles the step of a config on all devices of this process."""
    import jax
    import jax.numpy as jnp

    from clouds_jax import sharding
    from clouds_jax.config.experiment import read_experiment
    from clouds_jax.typing import Batch

    experiment = read_experiment(runpy.run_path(path)["get_config"]())
    mesh = sharding.make_mesh()
    tx, schedule = experiment.optimizer.make()
    graphdef, state, shardings = abstract_state(
        experiment.build, tx, seed=0, mesh=mesh, rules=_RULES[rule],
        teacher=experiment.selftrain is not None, trained=experiment.encoder.trained,
    )  # fmt: skip
    step = make_step(
        graphdef, experiment.loss.function(experiment.model.head), tx,
        prepare=experiment.prepare(), mesh=mesh, shardings=shardings, schedule=schedule,
    )  # fmt: skip
    shape, split = (
        (per_device * mesh.size, *experiment.data.augmentation.crop),
        sharding.over_batch(mesh),
    )

    def array(*more: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*shape, *more), jnp.uint8, sharding=split)

    program = step.lower(state, Batch(array(3), array())).compile()
    memory = program.memory_analysis()
    costs = program.cost_analysis()
    assert memory and costs
    return {
        "devices": mesh.size,
        "rule": rule,
        "collectives": collectives(program.as_text()),
        "state_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": costs["flops"],
    }


def rows(path: str, devices: Sequence[int], per_device: int) -> Iterator[dict[str, Any]]:
    """One process after the other, each with its number of simulated devices."""
    for rule in _RULES:
        for count in devices:
            flags = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}={count}"
            environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
            command = [sys.executable, "-m", "experiments.scale", f"--config={path}",
                       f"--images={per_device}", f"--inside={rule}"]  # fmt: skip
            run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"{rule} on {count} devices failed:\n{run.stderr[-2000:]}")
            yield json.loads(run.stdout.splitlines()[-1])


def table(found: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """Markdown: bytes from the programs, times from the rates."""
    head = [
        "devices", "images a step", "weights", "state a device, GiB", "temporaries, GiB",
        "added up, MB", "gathered, MB", "arithmetic, ms", "communication, ms", "efficiency",
    ]  # fmt: skip
    lines = [
        f"{args.config}, {args.images} image(s) a device; compiled for simulated devices of a CPU.",
        f"Arithmetic: {args.image_ms} ms an image. Communication, not hidden behind it:"
        f" {args.link} GB/s among {args.per_host} devices of a host, {args.network} GB/s a device"
        " between hosts.",
        "",
        f"| {' | '.join(head)} |",
        "|" + " ---: |" * len(head),
    ]
    for row in found:
        n, moved = row["devices"], row["collectives"]
        # a ring sends what it adds up twice, what it gathers or scatters once, but for its own part
        sent = sum(size * (2 if kind == "all-reduce" else 1) for kind, size in moved.items())
        rate = args.link if n <= args.per_host else args.network
        arithmetic = args.images * args.image_ms
        communication = 1e3 * sent * (n - 1) / n / (rate * 1e9)
        cells = [
            n, args.images * n, row["rule"], f"{row['state_bytes'] / _GIB:.2f}",
            f"{row['temporary_bytes'] / _GIB:.2f}", f"{moved.get('all-reduce', 0) / 1e6:.1f}",
            f"{sum(v for k, v in moved.items() if k != 'all-reduce') / 1e6:.1f}",
            f"{arithmetic:.0f}", f"{communication:.1f}",
            f"{100 * arithmetic / (arithmetic + communication):.0f} %",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    rate = _loader_rate()
    if rate:
        wanted = 1e3 / args.image_ms
        lines += [
            "",
            f"A device takes {wanted:.0f} images a second, a core of the benchmark's machine makes"
            f" {rate:.0f} of zstd records: {wanted / rate:.1f} cores a device.",
        ]
    return "\n".join(lines)


def _loader_rate() -> float:
    """Images a second of a core that the committed benchmark measured, or 0."""
    path = ROOT / "experiments/results/benchmark/cpu-float32/parts/results.json"
    if not path.exists():
        return 0.0
    for row in json.loads(path.read_text())["rows"]:
        count = re.match(r"loader: zstd, (\d+) images", row["name"])
        if count:
            return int(count[1]) / sorted(row["jax"])[len(row["jax"]) // 2]
    return 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.scale", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", default="configs/warmup_gta.py", help="of a warm-up")
    parser.add_argument(
        "--devices", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256]
    )
    parser.add_argument("--images", type=int, default=1, help="per device and step")
    parser.add_argument(
        "--image-ms", type=float, default=31.2,
        help="arithmetic of an image, ms (default: a quarter of the warm-up step of 4 that was"
        " measured on an H100, bfloat16)",
    )  # fmt: skip
    parser.add_argument("--link", type=float, default=450, help="GB/s each way within a host")
    parser.add_argument("--network", type=float, default=50, help="GB/s a device between hosts")
    parser.add_argument("--per-host", type=int, default=8, help="devices of a host")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--inside", choices=tuple(_RULES), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        print(json.dumps(compiled(args.config, args.inside, args.images)))
        return
    folder = args.output or ROOT / "experiments/results/scale" / Path(args.config).stem
    try:
        config = runpy.run_path(args.config)["get_config"]()
    except (OSError, KeyError) as error:
        parser.error(f"--config={args.config} is no experiment config: {error}")
    if config.selftrain.enabled:
        parser.error(f"--config={args.config} is of a joint phase; give that of a warm-up.")
    found = []
    for row in rows(args.config, args.devices, args.images):
        found.append(row)
        print(f"{row['rule']}, {row['devices']} devices: {row['collectives']}", flush=True)
    write_json(folder / "results.json", found)
    text = table(found, args)
    write_text(folder / "table.md", text + "\n")
    print(text)


if __name__ == "__main__":
    with one_line_errors("scale"):
        main()
