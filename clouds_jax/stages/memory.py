"""Peak memory of a process, for the logs of the stages."""

import resource

import jax


def host_memory() -> float:
    """Peak resident memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def device_memory() -> dict[str, float]:
    """Peak memory of this process in GiB: "host", and on a GPU also "gpu", its first device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    gpu = {"gpu": stats["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in stats else {}
    return {"host": host_memory(), **gpu}
