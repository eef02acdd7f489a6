"""The hosts of a run: how they find each other, wait, and put together what each of them has.

One host is one process of JAX. What is small goes through JAX's coordination service, not through a
collective of the devices: it waits as long as it must, and 64-bit integers stay what they are.
"""

import base64
import contextlib
import itertools
import json
import os
import re
import threading
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

# JAX offers its coordination service, which every program with several hosts talks to, under no
# public name.
from jax._src import distributed

_PATIENCE = 24 * 3600.0  # seconds; a host that died is noticed by the service itself
_PAUSE = 0.2  # seconds
_PIECE = 1 << 20  # characters of one value in the service
# what JAX, Gloo and NCCL write where the process at the other end is gone; other errors of the
# device, such as a lack of memory, have other words
_GONE = re.compile(
    "UNAVAILABLE|DEADLINE_EXCEEDED|gloo|nccl|connection|coordination|heartbeat|socket closed", re.I
)
_uses = itertools.count()  # all hosts call the functions below in the same order


def join() -> None:
    """Joins the other hosts of the run where the environment names them; call before anything else.

    `JAX_COORDINATOR_ADDRESS=host:port` with `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` is complete;
    `JAX_COORDINATOR_ADDRESS=auto` takes all three from the cluster (TPU pods, SLURM, MPI,
    Kubernetes).

    Raises:
        ValueError: one of the three variables is missing, or this is one of several processes that
            do not know of each other.
    """
    # Its handler of SIGTERM would take the place of ours; see `Agreement`.
    jax.config.update("jax_enable_preemption_service", False)
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if not address:
        _check_alone()
        return
    if address == "auto":
        del os.environ["JAX_COORDINATOR_ADDRESS"]  # JAX would read it as an address
        jax.distributed.initialize()
        return
    missing = [n for n in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if n not in os.environ]
    if missing:
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS is {address} but {' and '.join(missing)} missing; set it on"
            " every host, or JAX_COORDINATOR_ADDRESS=auto on a cluster that JAX knows."
        )
    jax.distributed.initialize(
        coordinator_address=address,
        num_processes=int(os.environ["JAX_NUM_PROCESSES"]),
        process_id=int(os.environ["JAX_PROCESS_ID"]),
    )


# Of each launcher, the variable with the number of processes that it started together.
_LAUNCHERS = ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_OF_A_RUN = {"JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID", *_LAUNCHERS}


def _check_alone() -> None:
    """Refuses to run as one of several processes that would each do the same work."""
    for name in _LAUNCHERS:
        if os.environ.get(name, "1") not in ("", "1"):
            raise ValueError(
                f"{name}={os.environ[name]}, but JAX_COORDINATOR_ADDRESS is not set: each process"
                " would run alone, in the same folder. Set JAX_COORDINATOR_ADDRESS=auto on a"
                f" cluster that JAX knows, or to host:port, or unset {name}."
            )


def index() -> int:
    """The number of this host, from 0; asks no device, unlike `jax.process_index`."""
    return distributed.global_state.process_id


def count() -> int:
    """The number of hosts."""
    return distributed.global_state.num_processes


def is_first() -> bool:
    """Whether this is the host that writes files and lines for all."""
    return index() == 0


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a child process is no host of the run."""
    return {name: x for name, x in environment.items() if name not in _OF_A_RUN}


def wait(what: str) -> None:
    """Returns when all hosts have come here.

    Args:
        what: what they wait for, such as "made-up shards"; the same on all hosts.
    """
    if count() > 1:
        _client().wait_at_barrier(f"clouds_jax/{next(_uses)}/{what}", int(1000 * _PATIENCE))


def gather(value: Any) -> list[Any]:
    """What each host gave, in the order of the hosts, on all of them.

    Args:
        value: anything that JSON can hold, integers of any size included.
    """
    if count() == 1:
        return [value]
    client, place = _client(), f"clouds_jax/{next(_uses)}"
    packed = base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()
    pieces = [packed[i : i + _PIECE] for i in range(0, len(packed), _PIECE)]
    for i, piece in enumerate(pieces):
        client.key_value_set(f"{place}/{index()}/{i}", piece)
    client.key_value_set(f"{place}/{index()}", str(len(pieces)))
    patience = int(1000 * _PATIENCE)

    def of(host: int) -> Any:
        number = int(client.blocking_key_value_get(f"{place}/{host}", patience))
        keys = [f"{place}/{host}/{i}" for i in range(number)]
        text = "".join(client.blocking_key_value_get(key, patience) for key in keys)
        return json.loads(zlib.decompress(base64.b64decode(text)))

    return [of(host) for host in range(count())]


class Agreement:
    """The step after which all hosts stop, once one of them has asked.

    Hosts start steps ahead of their devices and of each other. When one has asked, each tells the
    last step that it has begun, and all stop after the one behind the latest of these. A thread
    does this, so that a host which waits for the others elsewhere cannot hold them up; `close`
    ends it.
    """

    def __init__(self):
        self._place = f"clouds_jax/{next(_uses)}/stop"
        self._lock = threading.Lock()
        self._step, self._until, self._asked = 0, None, False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._agree, daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Asks all hosts to stop."""
        if not self._asked:
            self._asked = True
            _client().key_value_set(f"{self._place}/asked", "", allow_overwrite=True)

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`; waits while the hosts are agreeing."""
        with self._lock:
            self._step = step
            return self._until is not None and step >= self._until

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._thread.join()

    def _agree(self) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # a host is gone
            if self._read(1):
                with self._lock:
                    _client().key_value_set(f"{self._place}/{index()}", str(self._step))
                    if steps := self._read(1 + count()):
                        self._until = max(int(step) for _, step in steps if step) + 1

    def _read(self, entries: int) -> list[tuple[str, str]]:
        """What the hosts wrote, when there are so many entries; nothing when the run has ended.

        Asked again and again: a thread that waited inside of JAX could not be ended.
        """
        while len(found := _client().key_value_dir_get(self._place)) < entries:
            if self._closed.wait(_PAUSE):
                return []
        return found


class HostLost(OSError):
    """Another host of the run ended or does not answer.

    JAX waits at the end of a process for all others, and aborts it when they do not come.
    """

    ends_at_once = True


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Joins the other hosts, see `join`, and says so where something fails because one is gone.

    Raises:
        HostLost: another host ended or does not answer.
        ValueError: see `join`.
    """
    join()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        if count() == 1 or not _GONE.search(reason):
            raise
        raise HostLost(
            f"another host of the run ended or does not answer ({reason[:200]}). Start all hosts"
            " again with the same command: the run goes on from its last checkpoint."
        ) from error


def _client() -> Any:
    client = distributed.global_state.client
    assert client is not None, "several processes have joined"
    return client
