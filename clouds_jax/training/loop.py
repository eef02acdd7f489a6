"""The training loop: steps, lines, checkpoints, evaluations, and how it ends."""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from clouds_jax import hosts, runtime
from clouds_jax.training import checkpoint, logs
from clouds_jax.training.state import TrainState
from clouds_jax.training.step import Step
from clouds_jax.typing import Batch, Metrics


@dataclasses.dataclass(frozen=True)
class Plan:
    """When what happens, in updates done.

    Attributes:
        steps: length of the run.
        images: images per step, over all devices.
        log_every: steps from one line of the log to the next.
        checkpoint_every: steps from one checkpoint to the next; the last step is saved too.
        evals: dataset ref -> steps from one evaluation to the next; the last step is scored too.
        keep_best: save every step that is evaluated.
    """

    steps: int
    images: int
    log_every: int
    checkpoint_every: int
    evals: Mapping[str, int]
    keep_best: bool = False

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after `step`."""
        due = step % self.checkpoint_every == 0 or step == self.steps
        return due or (self.keep_best and bool(self.due(step)))

    def due(self, step: int) -> list[str]:
        """Datasets to evaluate after `step`."""
        if step == 0:
            return []
        return [ref for ref, n in self.evals.items() if step % n == 0 or step == self.steps]


class StopRequest:
    """A request to end the run early, by SIGTERM or Ctrl-C, on any host."""

    def __init__(self):
        self._requested = False
        self._agreement = hosts.Agreement() if hosts.count() > 1 else None

    def on_signal(self, *_: Any) -> None:
        """Handles a signal."""
        self._requested = True
        # A second Ctrl-C ends the program at once.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def after(self, step: int) -> bool:
        """Whether the run must end after `step`."""
        if self._agreement is None:
            return self._requested
        if self._requested:
            self._agreement.ask()
        return self._agreement.reached(step)  # all hosts must end after the same step

    def close(self) -> None:
        """Ends what the hosts agree by."""
        if self._agreement is not None:
            self._agreement.close()


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns SIGTERM and Ctrl-C into a request that the loop reads between two steps."""
    request = StopRequest()
    before = {s: signal.signal(s, request.on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        request.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class Reader:
    """Reads the metrics of finished steps, adds them up and writes a line when one is due.

    Steps run ahead of the host: nothing here is read before the next step is under way, except
    where the run has to stand still anyway.
    """

    def __init__(
        self,
        plan: Plan,
        writer: logs.MetricsWriter,
        progress: logs.Progress,
        window: logs.Window,
        *,
        done: int,
    ):
        self._plan, self._writer, self._progress = plan, writer, progress
        self.window = window
        self._pending: list[tuple[int, Metrics]] = []
        self._seen = done  # last step read

    def add(self, step: int, metrics: Metrics) -> None:
        """Records a step that was started; reads the ones before it when a line is due."""
        if any(s % self._plan.log_every == 0 for s, _ in self._pending):
            self.read()
        self._pending.append((step, metrics))

    def read(self) -> None:
        """Waits for all steps so far and reads them.

        Raises:
            FloatingPointError: a loss or gradient was not finite.
        """
        steps = [step for step, _ in self._pending]
        values = jax.device_get([metrics for _, metrics in self._pending])
        self._pending = []
        for step, metrics in zip(steps, values, strict=True):
            if not metrics.pop("finite"):
                raise FloatingPointError(self._not_finite(step, metrics))
            self.window.add(metrics)
            if step % self._plan.log_every == 0 or step == self._plan.steps:
                self._line(step)
            self._seen = step

    def _line(self, step: int) -> None:
        mean, timing = self.window.mean(), self._progress.read(step)
        self.window = logs.Window()
        self._writer.write(step, mean | {f"time/{name}": v for name, v in timing.items()})
        logs.log(self._progress.line(step, mean, timing))

    def _not_finite(self, step: int, metrics: Mapping[str, Any]) -> str:
        names = [name for name in metrics if not math.isfinite(metrics[name])]
        first = "loss" if "loss" in names else next(iter(names), "the update")
        value = float(metrics.get(first, math.nan))
        return (
            f"{first} became {value} between step {self._seen:,} and {step:,}"
            f" (not finite: {', '.join(names)}); the last checkpoint is from before. Run again with"
            " --config.debug.nans=True to find the operation."
        )


def run(
    step: Step,
    state: TrainState,
    batches: Iterator[Batch],
    *,
    plan: Plan,
    writer: logs.MetricsWriter,
    window: logs.Window,
    checkpoints: checkpoint.RunCheckpoints,
    evaluate: Callable[[str, int, TrainState], None],
    profile: runtime.ProfileWindow,
    stop: StopRequest,
) -> TrainState:
    """Trains from `state` to the end of the plan, or until a stop is requested.

    Args:
        step: training step of `training.step.make_step`, which donates its state.
        state: state to start from.
        batches: data iterator, which stands at the state's step.
        plan: schedule of logs, checkpoints and evaluations.
        writer: writer of the metrics.
        window: metrics since the last line of the log.
        checkpoints: checkpoints of this run.
        evaluate: `evaluate(ref, step, state)`, which scores a dataset and writes the result.
        profile: steps to record.
        stop: request to end early, read after every step.

    Returns:
        The last state.

    Raises:
        FloatingPointError: a loss or gradient was not finite.
    """
    progress = logs.Progress(steps=plan.steps, images=plan.images)
    done = int(jax.device_get(state.step))
    reader = Reader(plan, writer, progress, window, done=done)
    first = done + 1
    progress.start(done)
    _evaluate_due(evaluate, plan, done, state, progress)
    metrics = None
    while done < plan.steps:
        began = time.perf_counter()
        batch = next(batches)
        if metrics is not None and _is_ready(metrics["loss"]):
            # The devices had finished before the batch came: they may have waited all the while.
            progress.wait(time.perf_counter() - began)
        done += 1
        if done == first:
            step = _compiled_everywhere(step, state, batch)
        profile.before(done)
        with (
            jax.transfer_guard("disallow"),
            jax.profiler.StepTraceAnnotation("step", step_num=done),
        ):
            state, metrics = step(state, batch)
        profile.after(done, metrics)
        reader.add(done, metrics)
        if done == first:
            jax.block_until_ready(metrics)
            logs.log(f"first step, with compilation: {time.perf_counter() - began:.1f} s")
            progress.start(done)
        stopping = stop.after(done)
        if plan.saves(done) or plan.due(done) or stopping:
            reader.read()  # also refuses to save or score what is not finite
            pause = time.perf_counter()
            if plan.saves(done) or stopping:
                checkpoints.save(done, state, window=reader.window.state())
            progress.pause(time.perf_counter() - pause)
            if stopping and done < plan.steps:
                checkpoints.wait()
                logs.log(f"asked to stop: saved step {done:,}; the same command goes on from it")
                break
            _evaluate_due(evaluate, plan, done, state, progress)
    reader.read()
    profile.close()
    checkpoints.wait()
    return state


def _compiled_everywhere(step: Any, state: TrainState, batch: Batch) -> Step:
    """The step, when all hosts have compiled it: collectives wait only seconds for a slower one."""
    if hosts.count() == 1:
        return step
    step = step.lower(state, batch).compile()
    hosts.wait("compiled step")
    return step


def _is_ready(array: Any) -> bool:
    """Whether the value was computed; JAX's annotations of arrays lack the method."""
    return array.is_ready()


def _evaluate_due(evaluate, plan: Plan, step: int, state: TrainState, progress) -> None:
    began = time.perf_counter()
    for ref in plan.due(step):
        evaluate(ref, step, state)
    progress.pause(time.perf_counter() - began)
