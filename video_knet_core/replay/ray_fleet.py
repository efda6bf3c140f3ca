"""Many bags by the workers of Ray, each a process with one engine that stays open.

Ray places the processes, starts them and tells when one has died. A bag is given to whichever
worker is free; one that fails goes back into the queue.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..engine.selector import GPU_BACKENDS
from .fleet import FleetPlan, Job, JobQueue, JobResult, JobRunner, failure
from .replay_settings import ReplayError

LOCAL = "local"
OBJECT_STORE = 80 << 20
"""Bytes, near the least that Ray takes: only names and numbers pass between the processes."""
TIMEOUT = 10.0
"""Seconds in which a cluster must answer."""

_log = logging.getLogger(__name__)


class FleetError(ReplayError):
    """A fleet that cannot work; the message says on which machine, and why."""


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
        workers: how many at most; None = as many as there is room for. A cluster may grow to have
            room for them, this machine does not.

    Raises:
        FleetError: there is no cluster at the address, or no worker can begin.
        ModelError, BackendError: no worker can open the engine.
        ModuleNotFoundError: ray is not installed.
        ConnectionError: the address is "auto", and there is no cluster.
    """
    with _connected(address), _marker(out) as marker:
        pool = _WorkerPool(JobQueue(jobs), plan, SharedDisk(marker, folder, __version__))
        try:
            pool.start(
                min(workers or len(jobs), len(jobs)),
                wait=workers is not None and address != LOCAL,
            )
            yield from pool.results()
        finally:
            pool.shutdown()


@dataclass(frozen=True)
class SharedDisk:
    """By which a machine shows that it sees the same disk and has the same program."""

    marker: Path
    folder: Path
    version: str

    def check(self) -> None:
        """FleetError unless all is as it is where the fleet was started."""
        host = socket.gethostname()
        for path in (self.marker, self.folder):
            if not path.exists():
                raise FleetError(
                    f"the machine {host} does not see {path}: bags and results must be on a disk "
                    "that all machines see under the same name"
                )
        if __version__ != self.version:
            raise FleetError(
                f"the machine {host} has video_knet_ros {__version__}, wanted {self.version}"
            )


class _RayWorker:
    """A `JobRunner` in a process of Ray."""

    def open(self, plan: FleetPlan, place: SharedDisk) -> str:
        """Open the engine; returns its backend."""
        logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
        place.check()
        self._worker = JobRunner(plan)
        return self._worker.backend

    def replay(self, job: Job) -> JobResult:
        """See `JobRunner.replay`."""
        return self._worker.replay(job)


class _WorkerPool:
    """The workers: those that are busy, those that open their engine, and those that are free."""

    def __init__(self, queue: JobQueue, plan: FleetPlan, place: SharedDisk) -> None:
        self._queue, self._plan, self._place = queue, plan, place
        self._share: dict[str, float] = {"CPU": plan.threads}
        self._pending: dict[Any, tuple[Any, Job | None]] = {}
        """What is awaited -> the worker, and its bag; None if it opens its engine."""
        self._free: list[Any] = []

    def start(self, most: int, wait: bool) -> None:
        """Start the workers: as many as there is room for, or all, of which some may have to wait.

        Raises:
            FleetError: there is room for none.
        """
        if self._engine_uses_gpu():
            self._share = {"GPU": 1, "CPU": 1}
        room = _room(self._share)
        if not room and not wait:
            raise FleetError(
                f"no machine of the cluster has {self._plan.threads} cores: give fewer --threads"
            )
        if room < most and wait:
            _log.warning("there is room for %d of %d workers now; the others wait", room, most)
        for _ in range(most if wait else min(most, room)):
            self._start_worker()

    def results(self) -> Iterator[JobResult]:
        """Give bags to free workers until all have an result."""
        import ray

        while self._queue.unfinished:
            self._hand_out()
            (done,), _ = ray.wait(list(self._pending))
            worker, job = self._pending.pop(done)
            if job is None:
                self._opened(done, worker)
            elif result := self._queue.complete(self._done(done, worker, job)):
                yield result

    def shutdown(self) -> None:
        """End all workers; what they are at can be resumed."""
        import ray

        for worker in [*self._free, *(worker for worker, _ in self._pending.values())]:
            ray.kill(worker)

    def _engine_uses_gpu(self) -> bool:
        """Whether an engine that could have a GPU takes it."""
        import ray

        if not _room(gpu_share := {"GPU": 1, "CPU": 1}):
            return False
        worker = self._new(gpu_share)
        try:
            backend = ray.get(worker.open.remote(self._plan, self._place))
        except ray.exceptions.RayError as error:
            backend = _line(error)
        finally:
            ray.kill(worker)
        if backend not in GPU_BACKENDS:
            _log.warning("the GPUs of the cluster are not used; a trial says: %s", backend)
        return backend in GPU_BACKENDS

    def _new(self, share: Mapping[str, float]) -> Any:
        import ray

        return (
            ray.remote(_RayWorker)
            .options(num_cpus=share["CPU"], num_gpus=share.get("GPU", 0))
            .remote()
        )

    def _start_worker(self) -> None:
        worker = self._new(self._share)
        self._pending[worker.open.remote(self._plan, self._place)] = worker, None

    def _hand_out(self) -> None:
        while self._free and (job := self._queue.take()):
            worker = self._free.pop()
            self._pending[worker.replay.remote(job)] = worker, job

    def _opened(self, done: Any, worker: Any) -> None:
        """Let a worker take part; one that cannot is missed only if it was the last."""
        import ray

        try:
            ray.get(done)
            self._free.append(worker)
        except ray.exceptions.RayError as error:
            ray.kill(worker)
            if not self._pending and not self._free:
                raise _cause(error) from None
            _log.warning("a worker is left out: %s", _line(error))

    def _done(self, done: Any, worker: Any, job: Job) -> JobResult:
        """The result of a bag; a worker that died, or whose engine may be hurt, is replaced."""
        import ray

        try:
            result: JobResult = ray.get(done)
        except ray.exceptions.RayError as error:
            ray.kill(worker)
            self._start_worker()
            return failure(job, _line(error))
        self._free.append(worker)
        return result


@contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray

    _check_reachable(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would send them to its makers
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    ray.init(
        address=address,
        logging_level=logging.ERROR,
        **(local if address == LOCAL else {}),
    )
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """FleetError if nobody listens at HOST:PORT, where Ray itself tries for many minutes."""
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


def _room(share: Mapping[str, float]) -> int:
    """Workers that fit on the machines if each takes such a share of one."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        min(int(machine.get(kind, 0) // amount) for kind, amount in share.items())
        for machine in machines
    )


def _cause(error: Exception) -> Exception:
    """What went wrong in the worker itself, if it could tell."""
    return getattr(error, "cause", None) or FleetError(_line(error))


def _line(error: Exception) -> str:
    """One line about what a worker raised, or how it died."""
    if cause := getattr(error, "cause", None):
        return f"{type(cause).__name__}: {cause}"
    return "the worker died: " + " ".join(str(error).split())
