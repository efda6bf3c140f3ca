"""Many bags by the workers of Ray, each a process with one engine that stays open.

Ray places the processes, starts them and reports when one has died. A bag is given to whichever
worker is free; one that fails goes back into the queue.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from .. import __version__
from ..engine.selector import GPU_BACKENDS
from .fleet import FleetPlan, Job, JobQueue, JobResult, JobRunner, JobState
from .replay_settings import ReplayError

LOCAL = "local"
OBJECT_STORE = 80 << 20
"""Bytes, near the minimum of Ray: only names and numbers pass between the processes."""
_GPU: dict[str, float] = {"GPU": 1, "CPU": 1}
"""What a worker whose engine is on a GPU takes of a machine."""
TIMEOUT = 10.0
"""Seconds in which a cluster must answer."""

_log = logging.getLogger(__name__)


class FleetError(ReplayError):
    """A fleet that cannot work; the message names the machine and the reason."""


def replay_on_ray(
    jobs: Sequence[Job],
    plan: FleetPlan,
    out: Path,
    folder: Path,
    address: str = LOCAL,
    workers: int | None = None,
) -> Iterator[JobResult]:
    """Replay bags on a Ray cluster; the results as they come.

    A worker has a GPU for itself if there are GPUs and the engine uses them, else as many cores as
    an engine has threads.

    Args:
        jobs: of `find_jobs`.
        plan: what the replays have in common.
        out: folder of the fleet, on a disk that all machines see.
        folder: that of the bags, on such a disk too.
        address: "local" starts Ray on this machine and ends it afterwards; or that of a cluster.
        workers: at most; None = as many as there is room for. A cluster may grow for them.

    Raises:
        FleetError: there is no cluster at the address, or no worker can begin.
        ModelError, BackendError: no worker can open the engine.
        ConnectionError: the address is "auto", and there is no cluster.
    """
    with _connected(address), _marker(out) as marker:
        pool = _WorkerPool(plan, marker, folder)
        try:
            pool.start(
                min(workers or len(jobs), len(jobs)),
                wait=workers is not None and address != LOCAL,
            )
            yield from pool.results(JobQueue(jobs))
        finally:
            pool.shutdown()


def check_machine(marker: Path, folder: Path, version: str) -> None:
    """FleetError unless this machine has both paths, too, and this version of the package."""
    host = socket.gethostname()
    for path in (marker, folder):
        if not path.exists():
            raise FleetError(
                f"the machine {host} has no {path}: bags and results must be on a disk "
                "that all machines see under the same name"
            )
    if __version__ != version:
        raise FleetError(f"the machine {host} has video_knet_ros {__version__}, expected {version}")


class _RayWorker:
    """A `JobRunner` in a process of Ray."""

    def open(self, plan: FleetPlan, marker: Path, folder: Path, version: str) -> str:
        """Open the engine; returns its backend."""
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        check_machine(marker, folder, version)
        self._runner = JobRunner(plan)
        return self._runner.runtime.name

    def replay(self, job: Job) -> JobResult:
        """See `JobRunner.replay`."""
        return self._runner.replay(job)


class _WorkerPool:
    """Workers, each of which opens its engine, then does one job after the other."""

    def __init__(self, plan: FleetPlan, marker: Path, folder: Path) -> None:
        self._opening = plan, marker, folder, __version__
        self._resources: dict[str, float] = {"CPU": plan.threads}
        self._running: dict[Any, tuple[Any, Job | None]] = {}
        """Call that is awaited -> the worker, and its job; None while it opens its engine."""
        self._idle: list[Any] = []

    def start(self, most: int, wait: bool) -> None:
        """Start as many workers as there is room for, or all, of which some may have to wait.

        FleetError if there is room for none.
        """
        if self._engine_uses_gpu():
            self._resources = _GPU
        room = _room(self._resources)
        if not room and not wait:
            cores = self._resources["CPU"]
            raise FleetError(f"no machine of the cluster has {cores} cores: give fewer --threads")
        if room < most and wait:
            _log.warning("there is room for %d of %d workers now; the others wait", room, most)
        for _ in range(most if wait else min(most, room)):
            self._start_worker(self._resources)

    def results(self, queue: JobQueue) -> Iterator[JobResult]:
        """Give jobs to idle workers until all have a result.

        Raises what the last worker does if none can open its engine.
        """
        while queue.unfinished:
            while self._idle and (job := queue.take()):
                worker = self._idle.pop()
                self._running[worker.replay.remote(job)] = worker, job
            (call,), _ = ray.wait(list(self._running))
            worker, done = self._running.pop(call)
            try:
                value = ray.get(call)
                self._idle.append(worker)
            except ray.exceptions.RayError as error:
                ray.kill(worker)
                if done is not None:  # the worker died, or its engine may be damaged
                    self._start_worker(self._resources)
                    value = JobResult(done, JobState.FAILED, reason=_line(error))
                elif self._running or self._idle:
                    _log.warning("a worker is left out: %s", _line(error))
                else:
                    raise getattr(error, "cause", None) or FleetError(_line(error)) from None
            if done is not None and (result := queue.complete(value)):
                yield result

    def shutdown(self) -> None:
        """End all workers; a job under way is left incomplete."""
        for worker in [*self._idle, *(worker for worker, _ in self._running.values())]:
            ray.kill(worker)

    def _engine_uses_gpu(self) -> bool:
        """Whether an engine that could have a GPU takes it."""
        if not _room(_GPU):
            return False
        call = self._start_worker(_GPU)
        try:
            backend = ray.get(call)
        except ray.exceptions.RayError as error:
            backend = _line(error)
        ray.kill(self._running.pop(call)[0])
        if backend not in GPU_BACKENDS:
            _log.warning("the GPUs of the cluster are not used; a test engine is %s", backend)
        return backend in GPU_BACKENDS

    def _start_worker(self, resources: Mapping[str, float]) -> Any:
        """The call that opens the engine of a new worker."""
        options = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)}
        worker = ray.remote(_RayWorker).options(**options).remote()
        call = worker.open.remote(*self._opening)
        self._running[call] = worker, None
        return call


@contextmanager
def _connected(address: str) -> Iterator[None]:
    _check_reachable(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would send them to its makers
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    options = local if address == LOCAL else {}
    ray.init(address=address, logging_level=logging.ERROR, **options)
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """FleetError if no server listens at HOST:PORT, where Ray itself tries for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise FleetError(f"no Ray cluster at {address}: {error}") from None


@contextmanager
def _marker(out: Path) -> Iterator[Path]:
    """A file in `out` that is nowhere else."""
    out.mkdir(parents=True, exist_ok=True)
    path = out.absolute() / f".fleet_{uuid.uuid4().hex}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _room(resources: Mapping[str, float]) -> int:
    """Workers that fit on the machines if each takes so much of one."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        min(int(machine.get(kind, 0) // amount) for kind, amount in resources.items())
        for machine in machines
    )


def _line(error: Exception) -> str:
    """One line about what a worker raised, or how it died."""
    if cause := getattr(error, "cause", None):
        return f"{type(cause).__name__}: {cause}"
    return "the worker died: " + " ".join(str(error).split())
