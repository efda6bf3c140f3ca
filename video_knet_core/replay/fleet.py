"""Many bags: which there are, what becomes of each, and all of them by one process.

`ray_fleet.py` has the same done by several processes, on one machine or on many.
"""

from __future__ import annotations

import glob
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ..bags.bag import BagError
from ..engine.selector import open_runtime
from ..natural_order import is_hidden, natural_key, natural_order
from ..output_files import expanded, is_new
from ..tracking import TrackerSettings
from .bag_replay import replay
from .job_record import FinishedError
from .replay_settings import ReplayError, ReplaySettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A bag, and the folder of its replay."""

    bag: Path
    out: Path
    name: str
    """The folder below that of the fleet."""


@dataclass(frozen=True)
class FleetPlan:
    """What all replays of a fleet have in common."""

    model: Path
    threads: int
    """CPU threads of one engine."""
    settings: ReplaySettings
    tracking: TrackerSettings
    backend: str = "auto"


class JobState(Enum):
    """What became of a bag."""

    DONE = "done"
    DONE_BEFORE = "done before"
    DAMAGED = "damaged"
    """Done up to the damage."""
    FAILED = "failed"
    """Also the second time."""


@dataclass(frozen=True)
class JobResult:
    """What became of a bag, in numbers."""

    job: Job
    state: JobState
    frames: int = 0
    """In the results."""
    failed: int = 0
    """Images that could not be used."""
    seconds: float = 0.0
    """That the last try took."""
    reason: str = ""
    """Of damage or failure."""

    @property
    def is_clean(self) -> bool:
        """Whether every image of the bag was processed."""
        return self.state in (JobState.DONE, JobState.DONE_BEFORE) and not self.failed

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        job = {"bag": str(self.job.bag), "out": str(self.job.out), "state": self.state.value}
        names = "frames", "failed", "seconds", "reason"
        return job | {name: getattr(self, name) for name in names}


# --- which bags ----------------------------------------------------------------------------------


def find_jobs(pattern: str, out: Path, resume: bool = False) -> tuple[Job, ...]:
    """The bags that a glob pattern matches, in natural order.

    Hidden files, as `._drive.mcap`, are no bags, nor is what lies in `out`.

    The results of a bag are in a folder called after what the bag is called from the first
    wildcard of the pattern on, without the suffix: `bags/*/drive*.mcap` has those of
    `bags/monday/drive2.mcap` in `out/monday/drive2`.

    Raises:
        ReplayError: the pattern matches nothing, two bags would have one folder, or, unless with
            `resume`, one of the folders has something in it.
    """
    pattern = str(expanded(pattern))
    base, out = fixed_folder(pattern), out.absolute()
    matches = [Path(name).absolute() for name in glob.glob(pattern, recursive=True)]
    bags = natural_order(path for path in matches if not is_hidden(path.name))
    results = out.resolve()
    bags = [bag for bag in bags if results not in (bag.resolve(), *bag.resolve().parents)]
    if not bags:
        raise ReplayError(f"no bag is called {pattern}")
    names = [str((bag if bag.is_dir() else bag.with_suffix("")).relative_to(base)) for bag in bags]
    jobs = tuple(Job(bag, out / name, name) for bag, name in zip(bags, names, strict=True))
    _check_folders(jobs)
    for job in jobs:
        if not resume and not is_new(job.out):
            raise ReplayError(
                f"{job.out} is not empty: --resume does again what is not complete, "
                "or name another folder"
            )
    return jobs


def fixed_folder(pattern: str) -> Path:
    """The folder in which all is that a glob pattern can match."""
    path = expanded(pattern)
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    return (path.parent if fixed == path else fixed).absolute()


def _check_folders(jobs: Sequence[Job]) -> None:
    """ReplayError if a folder is that of another replay, or is inside of one."""
    owners: dict[Path, Job] = {}
    for job in sorted(jobs, key=lambda job: len(job.out.parts)):
        for folder in (job.out, *job.out.parents):
            if other := owners.get(folder):
                raise ReplayError(
                    f"the results of {job.bag} would be in {job.out}, those of {other.bag} in "
                    f"{other.out}: rename one, or narrow the pattern"
                )
        owners[job.out] = job


# --- one after the other -------------------------------------------------------------------------


class JobQueue:
    """The bags that are still to be done; one that fails comes again after the others, once."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = deque(jobs)
        self._failed: set[Job] = set()
        self.unfinished = len(jobs)
        """Bags without a result."""

    def take(self) -> Job | None:
        """The next bag; None if none is waiting."""
        return self._waiting.popleft() if self._waiting else None

    def complete(self, result: JobResult) -> JobResult | None:
        """The result of a bag, or None if the bag is tried again."""
        if result.state is JobState.FAILED and result.job not in self._failed:
            self._failed.add(result.job)
            self._waiting.append(result.job)
            _log.warning("%s is tried again: %s", result.job.name, result.reason)
            return None
        self.unfinished -= 1
        return result


class JobRunner:
    """Replays one bag after the other with the same engine; raises what `open_runtime` does."""

    def __init__(self, plan: FleetPlan) -> None:
        self._plan = plan
        self.runtime = open_runtime(plan.model, backend=plan.backend, threads=plan.threads)

    def replay(self, job: Job) -> JobResult:
        """Replay a bag; what an interrupted replay left is replaced.

        What is wrong with the bag or its files is in the result. After any other exception
        the engine may be hurt, and the worker is to be replaced.
        """
        start, plan = time.perf_counter(), self._plan
        try:
            done = replay(job.bag, self.runtime, job.out, plan.settings, plan.tracking, resume=True)
        except FinishedError as error:
            record = error.record
            state = JobState.DAMAGED if record.damage else JobState.DONE_BEFORE
            return JobResult(job, state, record.frames, record.failed, reason=record.damage)
        except (BagError, OSError) as error:
            seconds = time.perf_counter() - start
            return JobResult(job, JobState.FAILED, seconds=seconds, reason=str(error))
        state = JobState.DAMAGED if done.damage else JobState.DONE
        return JobResult(job, state, done.frames, done.failed, done.seconds, done.damage)

    def close(self) -> None:
        """Free the engine; one that is lost may not be freed, which is logged."""
        try:
            self.runtime.close()
        except Exception as error:  # of any backend
            _log.error("closing %s failed: %s", self.runtime.name, error)


def replay_serially(jobs: Sequence[Job], plan: FleetPlan) -> Iterator[JobResult]:
    """Replay bags one after the other in this process; the results as they come.

    Raises what `open_runtime` does.
    """
    queue, worker = JobQueue(jobs), JobRunner(plan)
    try:
        while job := queue.take():
            try:
                result = worker.replay(job)
            except Exception as error:  # a bug, or an engine that is lost: the next bag may work
                _log.exception("%s: unexpected", job.name)
                reason = f"{type(error).__name__}: {error}"
                result = JobResult(job, JobState.FAILED, reason=reason)
                worker.close()
                worker = JobRunner(plan)
            if completed := queue.complete(result):
                yield completed
    finally:
        worker.close()


# --- the report ----------------------------------------------------------------------------------


def table(results: Sequence[JobResult]) -> str:
    """A row for each bag, the reasons of what went wrong, and the sum."""
    results = sorted(results, key=lambda result: natural_key(result.job.bag))
    width = max(len("bag"), *(len(result.job.name) for result in results))
    lines = [f"{'bag':{width}}  {'frames':>8}  {'failed':>6}  {'seconds':>8}  state"]
    lines += [
        f"{o.job.name:{width}}  {o.frames:8}  {o.failed:6}  {o.seconds:8.1f}  {o.state.value}"
        for o in results
    ]
    lines += [f"{o.job.name}: {o.reason}" for o in results if o.reason]
    counts = {state: sum(o.state is state for o in results) for state in JobState}
    summary = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    return "\n".join([*lines, f"{len(results)} bags: {summary}"])
