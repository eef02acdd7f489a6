r"""Times what matters here and the same in PyTorch, on this machine, in one run.

    python -m experiments.benchmark                              # all rows on the CPU
    python -m experiments.benchmark deform warmup --rounds 10
    python -m experiments.benchmark --device gpu --dtype bfloat16 --compile
    python -m experiments.benchmark warmup --device gpu --dtype bfloat16 --head-dtype bfloat16

Both sides get the same inputs and weights, take turns, and are compared before they are timed; the
first call of each is left out. Writes `results.json`, `table.md` and `ratios.png`.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--head-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", choices=("torch", "none"), default="torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile its side")
    parser.add_argument("--small", action="store_true", help="tiny inputs: does everything work?")
    parser.add_argument("--budget", type=float, default=0, help="start no row after so many s")
    parser.add_argument("--output", type=Path, help="default: experiments/results/benchmark/...")
    args = parser.parse_args(argv)
    if args.device == "cpu" and _TUNABLES not in os.environ:
        # large temporaries on huge pages, for both sides; the C library reads it when it starts
        os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, "-m", "experiments.benchmark", *sys.argv[1:]])
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if args.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    from clouds_jax import runtime
    from experiments.benchmark import first_use, heads, host, report, rows, training
    from experiments.benchmark.rows import Setting
    from experiments.benchmark.timing import measure

    runtime.use_matmul_precision()  # as the programs that are timed
    known = {**rows.ROWS, **heads.ROWS, **training.ROWS, **host.ROWS, **first_use.ROWS}
    wrong = [name for name in args.rows if name not in known]
    if wrong:
        parser.error(f"there is no row {', '.join(wrong)}; there are: {', '.join(known)}")
    setting = Setting(
        args.device == "gpu", args.dtype, args.head_dtype, args.small, args.against, args.compile
    )
    output = args.output or Path("experiments/results/benchmark") / f"{args.device}-{args.dtype}"
    about = report.about(setting, args.rounds)
    found, began = [], time.perf_counter()
    for name in args.rows or known:
        if args.budget and time.perf_counter() - began > args.budget:
            found.append({"name": name, "error": None, "not_run": "out of time"})
            continue
        try:
            for case in known[name](setting):
                made = measure(case, rounds=args.rounds, dtype=args.dtype)
                found.append(made)
                print(f"[{time.perf_counter() - began:6.1f} s] {report.line(made)}", flush=True)
                report.write(output, about, found)
        except Exception as error:  # a row that fails must not take the others along
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            found.append({"name": name, "not_run": reason})
            print(f"[{time.perf_counter() - began:6.1f} s] {name}: not run: {reason}", flush=True)
    report.write(output, about, found)
    print(f"written to {output}")


if __name__ == "__main__":
    main()
