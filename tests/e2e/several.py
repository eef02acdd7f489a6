"""Programs on several hosts: processes of this machine that find each other by variables."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 600  # seconds


def environment(
    host: int, hosts: int, devices: int, port: int, slurm: bool = False
) -> dict[str, str]:
    """The environment of one host with so many simulated devices, as a person or Slurm sets it."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    out = {**os.environ, "XLA_FLAGS": " ".join(flags), "PYTHONPATH": str(ROOT)}
    if slurm:
        # JAX computes the coordinator's port of a job from its number
        out |= {
            "JAX_COORDINATOR_ADDRESS": "auto", "SLURM_JOB_ID": str(port % 4096 + 4096),
            "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(hosts),
            "SLURM_STEP_NUM_TASKS": str(hosts), "SLURM_PROCID": str(host), "SLURM_LOCALID": "0",
        }  # fmt: skip
    elif hosts > 1:
        out |= {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(hosts), "JAX_PROCESS_ID": str(host),
        }  # fmt: skip
    return out


@contextlib.contextmanager
def started(
    *command: str | pathlib.Path, hosts: int, devices: int, slurm: bool = False
) -> Iterator[list]:
    """The processes of `python COMMAND` on all hosts; none is left behind.

    Args:
        command: arguments of Python.
        hosts: number of processes.
        devices: simulated devices of each.
        slurm: they find each other by the variables of a job of Slurm.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment(host, hosts, devices, port, slurm),
        )
        for host in range(hosts)
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run(*command: str | pathlib.Path, hosts: int, devices: int, slurm: bool = False) -> list[str]:
    """Runs `python COMMAND` on all hosts to its end; returns what each printed."""
    with started(*command, hosts=hosts, devices=devices, slurm=slurm) as processes:
        ended = [process.communicate(timeout=PATIENCE) for process in processes]
        for process, (_, error) in zip(processes, ended, strict=True):
            assert process.returncode == 0, error[-3000:]
    return [output for output, _ in ended]
