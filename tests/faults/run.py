r"""The fault drill: programs x faults, each judged by the same five questions.

    python tests/faults/run.py [--quick] [--program NAME] [--fault NAME] [--output FOLDER]

    status    is the exit status right?
    words     at most 20 lines and no traceback?
    whole     nothing half-written under a final name?
    finishes  does the same command finish afterwards?
    same      is the result that of an undisturbed run?

Prints a table and exits 1 if any answer is no. --output also writes it as JSON and Markdown,
beside the answers of an earlier drill with other programs or faults.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import faults
import inputs
import judge
import programs
from programs import PROGRAMS, ROOT, Program, module_of

QUESTIONS = ("status", "words", "whole", "finishes", "same")
# these need no run
QUICK = ("data.build", "predict", "porting convert")


@dataclasses.dataclass
class Answer:
    """What came of a case: for each question None, or what is wrong."""

    program: str
    fault: str
    wrong: dict[str, str | None]
    seconds: float


def environment() -> dict[str, str]:
    """Of every program: two devices, compiled fast, one compile cache that only grows."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2"
        " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
        "CLOUDS_COMPILE_CACHE": str(Path(tempfile.gettempdir()) / "clouds_jax_faults_cache"),
        "PYTHONPATH": str(ROOT),
    }


class Drill:
    """The inputs, and the undisturbed run of every program."""

    def __init__(self, folder: Path):
        self.folder, self.base = folder, folder / "base"
        self.seconds: dict[str, float] = {}
        self.imports: dict[str, float] = {}

    def prepare(self, chosen: list[Program]) -> None:
        """Makes the inputs and runs every program once undisturbed."""
        quietly = functools.partial(programs.run_quietly, environment=environment())
        trained = any(p.name not in QUICK for p in chosen)
        programs.make_inputs(self.base, quietly, trained=trained)
        for program in chosen:
            module = str(program.command(self.base, self.folder)[0])
            began = time.monotonic()
            subprocess.run(module_of([module, "--help"]), cwd=ROOT, env=environment(),
                           capture_output=True)  # fmt: skip
            self.imports[program.name] = time.monotonic() - began
            for name in ("compiling", "whole"):  # timed with a full compile cache
                out = self.out(program, name)
                program.prepare(self.base, out)
                began = time.monotonic()
                quietly(program.command(self.base, out))
                self.seconds[program.name] = time.monotonic() - began
            print(f"{program.name}: {self.seconds[program.name]:.1f} s undisturbed", flush=True)

    def out(self, program: Program, name: str) -> Path:
        """The output folder of a run."""
        return self.folder / program.name.replace(" ", "_") / name

    def case(self, program: Program, fault: faults.Fault, number: int) -> Answer:
        """Runs a program with a fault, then without, and judges both."""
        began = time.monotonic()
        out, whole = self.out(program, f"{fault.name}-{number}"), self.out(program, "whole")
        program.prepare(self.base, out)
        command = module_of(program.command(self.base, out))
        rng = random.Random(f"{program.name} {fault.name} {number}")
        imports = self.imports[program.name]  # before that, Python itself answers signals
        moment = imports + rng.random() * max(0.0, self.seconds[program.name] - imports)
        status, error = fault.run(command, out, environment(), moment)

        def allowed(status: int) -> bool:
            return fault.allows(status, program.stopped)

        wrong: dict[str, str | None] = dict.fromkeys(QUESTIONS)
        found = judge.words(status, error, allowed)
        wrong["status"] = "; ".join(text for text in found if "status" in text) or None
        wrong["words"] = "; ".join(text for text in found if "status" not in text) or None
        wrong["whole"] = "; ".join(judge.half_written(out, whole)) or None
        again = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900
        )
        if again.returncode:
            wrong["finishes"] = f"status {again.returncode}: {again.stderr.strip()[-300:]}"
        wrong["same"] = "; ".join(judge.differences(out, whole)) or None
        if not any(wrong.values()):
            shutil.rmtree(out)
        return Answer(program.name, fault.name, wrong, time.monotonic() - began)


def bad_inputs(drill: Drill, chosen: set[str]) -> list[Answer]:
    """Each bad input: status 1 or 2, short, and naming the thing; nothing is left."""
    folder = drill.folder / "bad"
    folder.mkdir()
    answers = []

    def one(case: inputs.Bad) -> Answer:
        began = time.monotonic()
        out = folder / f"{case.program} {case.name}".replace(" ", "_").replace("/", "_")
        out.mkdir()
        done = subprocess.run(
            module_of(case.command(drill.base, out)), cwd=ROOT, capture_output=True, text=True,
            env={**environment(), **case.environment}, timeout=300,
        )  # fmt: skip
        found = judge.words(done.returncode, done.stderr, lambda s: s in (1, 2), case.says)
        wrong: dict[str, str | None] = dict.fromkeys(QUESTIONS)
        wrong["status"] = "; ".join(text for text in found if "status" in text) or None
        wrong["words"] = "; ".join(text for text in found if "status" not in text) or None
        # a run in debug mode begins with shards of its own, which are whole
        left = [n for n in judge.files(out / "made") if not n.startswith("shards/fake/")]
        wrong["whole"] = f"left: {left}" if left else None
        return Answer(case.program, case.name, wrong, time.monotonic() - began)

    cases = [case for case in inputs.cases(drill.base) if case.program in chosen]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for answer in pool.map(one, cases):
            answers.append(answer)
            tell(answer)
    return answers


def tell(answer: Answer) -> None:
    """Prints a case as soon as it is judged."""
    noes = {question: text for question, text in answer.wrong.items() if text}
    print(f"{answer.program}, {answer.fault}: {noes or 'ok'}", flush=True)


def table(answers: list[Answer]) -> str:
    """Markdown: a row per program and kind of fault, with the number of cases and of noes."""
    rows = ["| program | fault | cases | no |", "| --- | --- | ---: | --- |"]
    cases = Counter((a.program, a.fault) for a in answers)
    for (program, fault), count in sorted(cases.items()):
        noes = [
            f"{question}: {text}"
            for a in answers
            if (a.program, a.fault) == (program, fault)
            for question, text in a.wrong.items()
            if text
        ]
        rows.append(f"| {program} | {fault} | {count} | {'<br>'.join(noes)[:600] or '-'} |")
    noes = sum(any(a.wrong.values()) for a in answers)
    return "\n".join([*rows, "", f"{len(answers)} cases, {noes} with a no."])


def main() -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few programs, one kill each")
    parser.add_argument("--program", action="append", help="only this one (may be repeated)")
    parser.add_argument("--fault", action="append", help="only this one (may be repeated)")
    parser.add_argument("--output", type=Path, help="folder for results.json and table.md")
    parser.add_argument("--keep", type=Path, help="folder to work in, which then stays")
    args = parser.parse_args()
    chosen = [
        p
        for p in PROGRAMS
        if (p.name in args.program if args.program else not args.quick or p.name in QUICK)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        drill = Drill((args.keep or Path(temporary)) / "drill")
        drill.prepare(chosen)
        jobs = [
            (program, fault, number)
            for program in chosen
            for fault in faults.FAULTS
            if (not args.fault or fault.name in args.fault)
            and (program.trains or not fault.training)
            for number in range(1 if args.quick or not fault.random else program.kills)
        ]
        answers = []
        if not args.fault or "bad input" in args.fault:
            answers += bad_inputs(drill, {program.name for program in chosen})
            if args.output:
                write(args.output, answers)
        for program, fault, number in jobs:
            answer = drill.case(program, fault, number)
            answers.append(answer)
            tell(answer)
            if args.output:  # as it goes, so that a drill that was cut off keeps what it has
                write(args.output, answers)
    print(f"\n{table(answers)}")
    if any(any(answer.wrong.values()) for answer in answers):
        sys.exit(1)


def write(folder: Path, answers: list[Answer]) -> None:
    """Writes the answers with what they were found with."""
    from clouds_jax import provenance
    from clouds_jax.files import write_json, write_text

    commit = provenance.commit()
    rows = [
        dataclasses.asdict(a) | {"seconds": round(a.seconds, 1), "commit": commit} for a in answers
    ]
    path = folder / "results.json"
    ran = {(answer.program, answer.fault) for answer in answers}
    before = json.loads(path.read_text())["answers"] if path.exists() else []
    # of what this drill did not run, the answers of an earlier one stay
    rows = [row for row in before if (row["program"], row["fault"]) not in ran] + rows
    versions = provenance.versions(["jax", "jaxlib", "flax", "orbax-checkpoint", "grain"])
    versions = {"python": platform.python_version(), **versions}
    write_json(path, {"versions": versions, "answers": rows})
    kinds = [Answer(row["program"], row["fault"], row["wrong"], row["seconds"]) for row in rows]
    commits = ", ".join(sorted({row["commit"][:12] for row in rows}))
    head = f"Commits {commits}; " + ", ".join(f"{name} {text}" for name, text in versions.items())
    write_text(folder / "table.md", f"{head}.\n\n{table(kinds)}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
