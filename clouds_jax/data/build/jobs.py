"""Runs the jobs of a build, in this process or several, and continues what was interrupted."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import tqdm

from clouds_jax.data.build import workspace
from clouds_jax.data.build.shards import ShardJob, write_shard
from clouds_jax.files import write_json

_GRACE = 3.0  # seconds in which an interrupted worker may finish its image


def run_jobs(jobs: Sequence[ShardJob], workers: int, title: str) -> list[dict[str, Any]]:
    """Writes the shards that an interrupted build did not finish.

    Args:
        jobs: all shards of the build.
        workers: number of processes.
        title: name of the progress bar.

    Returns:
        The reports of all jobs, in order; see `shards.write_shard`.

    Raises:
        KeyboardInterrupt: the build was interrupted; the workers have ended, and no shard is half
            written.
        OSError: a shard cannot be written.
    """
    reports = {}
    for job in jobs:
        fingerprint = workspace.digest(job.sources, times=True)
        if report := workspace.earlier_report(job.path, fingerprint, job.skip_bad):
            reports[job.path] = report
    total = sum(len(job.sources) for job in jobs)
    done = sum(len(job.sources) for job in jobs if job.path in reports)
    waiting = [job for job in jobs if job.path not in reports]
    with (
        tqdm.tqdm(total=total, initial=done, desc=title, unit="img", disable=None) as bar,
        _signals_deferred() as check_signals,
    ):
        if workers == 1 or len(waiting) < 2:

            def advance() -> None:
                bar.update()
                check_signals()

            for job in waiting:
                reports[job.path] = _write_with_report(job, advance)
        else:
            reports.update(_run_in_processes(waiting, workers, bar, check_signals))
    return [reports[job.path] for job in jobs]


def _write_with_report(job: ShardJob, advance: Callable[[], object]) -> dict[str, Any]:
    # Before the files are read: one that changes meanwhile is read again by the next build.
    fingerprint = workspace.digest(job.sources, times=True)
    report = {**write_shard(job, advance), "fingerprint": fingerprint, "reader": workspace.READER}
    if report["examples"]:
        write_json(workspace.report_path(job.path), report)
    return report


# In a worker process: the shared counter of finished examples, and whether to stop.
_progress: Any = None
_stop: Any = None


def _start_worker(progress: Any, stop: Any) -> None:
    global _progress, _stop
    _progress, _stop = progress, stop
    # A pool's workers outlive a parent that was killed, and would write beside its successor.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_in_worker(job: ShardJob) -> dict[str, Any]:
    def advance() -> None:
        if _stop.is_set():
            raise KeyboardInterrupt
        with _progress.get_lock():
            _progress.value += 1

    return _write_with_report(job, advance)


def _run_in_processes(
    jobs: Sequence[ShardJob], workers: int, bar: tqdm.tqdm, check_signals: Callable[[], None]
) -> dict[Path, dict[str, Any]]:
    # Spawned, as a fork would copy the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    start = bar.n
    progress, stop = context.Value("q", 0), context.Event()
    others = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, _start_worker, (progress, stop)
    ) as pool:
        try:
            with _signals_blocked():
                futures = {pool.submit(_write_in_worker, job): job.path for job in jobs}
            waiting = set(futures)
            while waiting:
                finished, waiting = concurrent.futures.wait(waiting, timeout=0.3)
                bar.update(start + progress.value - bar.n)
                check_signals()
                for future in finished:
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            _end(set(multiprocessing.active_children()) - others)
            raise
        return {path: future.result() for future, path in futures.items()}


@contextlib.contextmanager
def _signals_deferred() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM wait until the function is called that this yields.

    Raised wherever the program is, they are lost where a library clears all errors. A second one
    does not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            handlers[signal.Signals(number)](number, frame)

    def check() -> None:
        if came:
            handlers[signal.Signals(came[0])](came[0], None)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield check
        check()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C and SIGTERM to this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: Collection[BaseProcess]) -> None:
    """Waits a little for processes that were told to stop, then kills them."""
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
