"""Times two programs in turn, after they were seen to give the same."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from clouds_jax.stages.memory import device_memory

GATE = {"float32": 1e-3, "bfloat16": 5e-2}  # relative norm of the difference


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: of the row.
        function, args: ours; `jax.jit(function)(*args)` is timed.
        theirs: PyTorch's program, or None.
        outputs: which arrays of ours to compare with theirs: our result -> arrays in their layout.
        flops: of one call of theirs, counted before the timing.
        carry: (our result, arguments) -> arguments of the next call, if a call takes buffers.
        note: what the reader must know.
        told: our result -> more of it, such as how much work the inputs were.
        host: ours is no program of JAX and is called as it is.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    theirs: Any = None
    outputs: Callable[[Any], Sequence[Any]] | None = None
    flops: Callable[[], int] | None = None
    carry: Callable[[Any, tuple[Any, ...]], tuple[Any, ...]] | None = None
    note: str = ""
    told: Callable[[Any], str] | None = None
    host: bool = False


@dataclasses.dataclass(frozen=True)
class HostProgram:
    """What runs on the host, in the form of a program of PyTorch.

    Attributes:
        call: runs it once.
        shown: of what it returns, the arrays to be compared.
    """

    call: Callable[[], Any]
    shown: Callable[[Any], list[np.ndarray]] = lambda found: [found]

    def run(self) -> None:
        self.call()

    def memory(self) -> None:
        """Not known."""

    def value(self) -> list[np.ndarray]:
        return self.shown(self.call())


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Durations of the rounds of one side."""

    all: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.all)

    def spread(self) -> str:
        """Milliseconds: median (least .. most)."""
        low, high = 1e3 * min(self.all), 1e3 * max(self.all)
        return f"{1e3 * self.median:.1f} ({low:.1f} .. {high:.1f})"


class Differs(ValueError):
    """The two programs do not give the same, so their times say nothing."""


def measure(case: Case, *, rounds: int, dtype: str) -> dict[str, Any]:
    """Compiles, compares, and times both sides in turn.

    Raises:
        Differs: the results are further apart than `GATE`.
    """
    compiled, sizes = _compiled(case)
    args = case.args
    found = jax.block_until_ready(compiled(*args))
    error, theirs_run, note = None, case.theirs, case.note
    if theirs_run is not None:
        try:
            theirs_run.run()
        except Exception as failed:  # as a rule of memory; ours is still worth knowing
            theirs_run, note = None, f"PyTorch failed: {str(failed).splitlines()[0][:90]}"
    if theirs_run is not None and case.outputs is not None:
        error = difference(case.outputs(found), theirs_run.value())
        if not error <= GATE[dtype]:
            raise Differs(f"results differ by {error:.1e} of their norm, {GATE[dtype]} is allowed")
    if case.told is not None:
        note = "; ".join(filter(None, (note, case.told(found))))
    args = case.carry(found, args) if case.carry else args
    ours, theirs = [], []
    if theirs_run is not None:
        theirs_run.memory()  # what went before does not count

    def our_turn() -> float:
        nonlocal args
        began = time.perf_counter()
        found = jax.block_until_ready(compiled(*args))
        seconds = time.perf_counter() - began
        args = case.carry(found, args) if case.carry else args
        return seconds

    def their_turn() -> float:
        began = time.perf_counter()
        theirs_run.run()
        return time.perf_counter() - began

    for _ in range(rounds):
        ours.append(_settled(our_turn))
        if theirs_run is not None:
            theirs.append(_settled(their_turn))
    out: dict[str, Any] = {
        "name": case.name,
        "jax": Seconds(tuple(ours)).all,
        **sizes,
        "peak_gib": device_memory().get("gpu"),
        "error": error,
        "note": note,
    }
    if theirs:
        out["torch"] = theirs
        out["torch_gib"] = theirs_run.memory()
        out["ratio"] = statistics.median(ours) / statistics.median(theirs)
    if theirs_run is not None and case.flops is not None:
        out["flops"] = case.flops()
    return out


def _settled(turn: Callable[[], float]) -> float:
    """Seconds of the second call of a turn.

    The first one pays for the other side. After its work a pool of threads waits in a busy loop for
    more, 0.2 s that of PyTorch. And memory that a program freed goes back to the host of a virtual
    machine within seconds: a first training step with 2 GiB of temporaries took 1.2 s longer than
    those that follow it, all of it in page faults.
    """
    turn()
    return turn()


def _compiled(case: Case) -> tuple[Callable[..., Any], dict[str, float | None]]:
    """What is timed; the seconds that its compilation took, GiB of its temporaries and of all that
    it holds, and the bytes of what it is given and returns."""
    if case.host:
        return case.function, dict.fromkeys(("compile_s", "temporaries_gib", "bytes", "jax_gib"))
    jitted = case.function if hasattr(case.function, "lower") else jax.jit(case.function)
    began = time.perf_counter()
    compiled = jitted.lower(*case.args).compile()
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    if memory is None:  # of a program that came out of a cache, on some platforms
        return compiled, {
            **dict.fromkeys(("temporaries_gib", "bytes", "jax_gib")),
            "compile_s": seconds,
        }
    given = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held = given - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return compiled, {
        "compile_s": seconds,
        "temporaries_gib": memory.temp_size_in_bytes / 2**30,
        "bytes": given,
        "jax_gib": held / 2**30,
    }


def difference(ours: Sequence[Any], theirs: Sequence[np.ndarray]) -> float:
    """Largest relative norm of the difference over corresponding arrays."""
    worst = 0.0
    for one, two in zip(ours, theirs, strict=True):
        one = np.asarray(one, np.float64)
        if one.shape != two.shape:
            raise Differs(f"shapes {one.shape} and {two.shape} differ")
        worst = max(worst, float(np.linalg.norm(one - two) / np.linalg.norm(two)))
    return worst
