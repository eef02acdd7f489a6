"""Kills each offline stage (SIGKILL) at random moments, and resumes it, until it was hit ten times.

    python tests/e2e/stages_killed.py --workdir /tmp/killed --photos $CLOUDS_DATA/street_photos

Every run that comes to its end must have left the bytes of a run that nobody killed. A run that was
done before its moment came does not count; then all that the stage made is removed and it starts
again.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = "configs/stages/laptop.py:debug"
# what a stage makes, and what of it a clock wrote
MADE = {
    "prompts": ["prompts/*", "prompts/raw/*"],
    "generate": ["shards/generated/train-*", "shards/generated/train.summary.json",
                 "shards/generated/train.manifest.json", "shards/generated/train.contact*"],
    "embed": ["shards/generated/train.medsam_lite.*"],
    "pseudo": ["shards/generated.pseudo/*"],
    "refine": ["shards/generated.refined/*", "shards/generated.refined/train.panels/*"],
}  # fmt: skip
TIMED = ("log.jsonl", ".lock")


def files(workdir: Path, stage: str) -> dict[str, bytes]:
    """What the stage made, by name."""
    found = {path for glob in MADE[stage] for path in workdir.glob(glob) if path.is_file()}
    return {
        str(path.relative_to(workdir)): content(path)
        for path in sorted(found)
        if not path.name.endswith(TIMED)
    }


def content(path: Path) -> bytes:
    """What a file says, of JSON without the version of the code, which changes while one works."""
    if path.suffix != ".json":
        return path.read_bytes()
    told = json.loads(path.read_text())
    return json.dumps({k: v for k, v in told.items() if k not in ("code", "commits")}).encode()


def remove(workdir: Path, stage: str) -> None:
    """Removes all that the stage made, with what is hidden."""
    for glob in MADE[stage]:
        for path in workdir.glob(glob):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if stage == "generate":
        shutil.rmtree(workdir / "shards/generated/.train.done", ignore_errors=True)
    if stage == "embed":
        for path in (workdir / "shards/generated").glob(".train.medsam_lite.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("pseudo", "refined"):
        if stage[:6] == name[:6]:
            shutil.rmtree(workdir / f"shards/generated.{name}", ignore_errors=True)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=list(MADE), default=list(MADE))
    args = parser.parse_args()
    model = args.workdir / "tiny_diffusion"
    if not model.exists():
        call([sys.executable, "tests/parity/tiny_diffusion.py", str(model)])
    flags = [
        "--config.generate.provider=diffusers", f"--config.generate.diffusers.model={model}",
        "--config.generate.diffusers.size=(64,96)", "--config.generate.diffusers.steps=10",
        "--config.generate.count=12", "--config.generate.shards=6",
    ]  # fmt: skip

    def command(stage: str, workdir: Path) -> list[str]:
        return [
            sys.executable, "-m", "experiments.pipeline", "--config", CONFIG, "--workdir",
            str(workdir), "--only", stage, *flags,
        ]  # fmt: skip

    straight = args.workdir / "straight"
    for stage in ("prompts", "generate", "embed", "warmup", "pseudo", "refine"):
        call(command(stage, straight))
    rng = random.Random(args.seed)
    for stage in args.stages:
        workdir = args.workdir / stage
        shutil.copytree(straight, workdir)
        remove(workdir, stage)
        expected, kills, ends, whole = files(straight, stage), 0, 0, 60.0
        while kills < args.kills or not ends:
            began = time.time()
            process = subprocess.Popen(
                command(stage, workdir), cwd=ROOT, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            moment = rng.uniform(0, whole) if kills < args.kills else 3600.0
            try:
                _, error = process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=True)
                process.communicate()
                assert process.returncode == -signal.SIGKILL
                kills += 1
                continue
            assert process.returncode == 0, error.decode()[-3000:]
            found = files(workdir, stage)
            assert found.keys() == expected.keys(), (stage, found.keys() ^ expected.keys())
            wrong = [name for name in found if found[name] != expected[name]]
            assert not wrong, (stage, wrong)
            ends, whole = ends + 1, time.time() - began
            print(
                f"{stage}: {kills} kills so far, {len(found)} files are those of the straight run"
            )
            if kills < args.kills:
                remove(workdir, stage)
        print(f"{stage}: {kills} kills, {ends} ends, all equal", flush=True)


def call(command: list[str]) -> None:
    """Runs a command quietly; its words where it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])


if __name__ == "__main__":
    main()
