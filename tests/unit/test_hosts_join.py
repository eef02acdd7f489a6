"""How hosts join, and what they refuse; tests/e2e/test_hosts.py starts several."""

import jax
import pytest

from clouds_jax import hosts


@pytest.mark.parametrize("missing", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_half_a_description_of_the_hosts_is_refused(monkeypatch, missing):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=f"{missing} missing"):
        hosts.join()


@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "8"},
    ],
)
def test_one_of_several_processes_does_not_run_alone(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="each process would run alone, in the same folder"):
        hosts.join()


def test_a_single_process_of_a_launcher_runs(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    hosts.join()


@pytest.mark.parametrize(
    "reason, lost",
    [
        ("UNKNOWN: Gloo all-reduce failed: Connection reset by peer", True),
        ("UNAVAILABLE: Failed to send RPC to coordination service", True),
        ("INTERNAL: NCCL operation ncclAllReduce failed", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes", False),
        ("INTERNAL: Failed to launch CUDA kernel", False),
    ],
)
def test_only_errors_between_hosts_are_the_loss_of_one(monkeypatch, reason, lost):
    monkeypatch.setattr(hosts, "join", lambda: None)
    monkeypatch.setattr(hosts, "count", lambda: 2)
    wanted = hosts.HostLost if lost else jax.errors.JaxRuntimeError
    with pytest.raises(wanted, match=reason[:20]), hosts.joined():
        raise jax.errors.JaxRuntimeError(reason)
    monkeypatch.setattr(hosts, "count", lambda: 1)
    with pytest.raises(jax.errors.JaxRuntimeError), hosts.joined():
        raise jax.errors.JaxRuntimeError(reason)
