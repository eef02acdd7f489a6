"""How hosts join, and what they refuse; tests/e2e/test_hosts.py starts several."""

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
