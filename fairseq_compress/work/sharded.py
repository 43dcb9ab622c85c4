"""The driver of sharded, resumable work: a long job cut into numbered units, shared by any number of processes.

The process that finishes last joins the results. Killed at any byte and started again, a job gives the same output.
"""

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import PathLike
from fairseq_compress.work.progress import WorkProgress
from fairseq_compress.work.work_folder import Shard, WorkFolder, work_folder

VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


class Numbered(Protocol):
    """A unit of work."""

    @property
    def unit(self) -> int: ...


Unit = TypeVar("Unit", bound=Numbered)
Result = TypeVar("Result")


class Job(ABC, Generic[Unit, Result]):
    """Work on a corpus that :func:`run_job` shares between processes."""

    name: str
    items = "sentences"
    """The unit of :meth:`size`, for progress."""
    output: PathLike
    """The file or folder that :meth:`join` writes."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """Everything that determines the bytes of the output, for JSON: checksums of inputs, options."""

    @abstractmethod
    def is_up_to_date(self) -> bool:
        """Whether the output is complete, undamaged and made from the same :attr:`metadata`."""

    @abstractmethod
    def units(self) -> Iterable[Unit]:
        """The units of all processes, numbered from 0; the same at every call."""

    @abstractmethod
    def size(self, unit: Unit) -> int:
        """Items in a unit."""

    @abstractmethod
    def compute(self, unit: Unit) -> bytes:
        """The result of a unit."""

    @abstractmethod
    def join(self, results: Iterator[tuple[int, bytes]]) -> Result:
        """Write the output from (number, result) of all units in order, complete or not at all."""

    def inspect(self, unit: Unit) -> None:
        """Check a unit before anything is computed."""

    def finish_survey(self, first_process: bool) -> None:
        """Raise the problems that :meth:`inspect` found; only the first process warns."""


def run_job(job: Job[Unit, Result], shard: Shard, join_only: bool = False) -> Result | None:
    """Compute this process's units, unless ``join_only``, and if all other processes have finished, join the results.

    Returns:
        the value of :meth:`Job.join`; None if the output was up to date or other processes have not finished.
    """
    if job.is_up_to_date():
        remove_leftovers(job)
        print(f"{job.output}: up to date; nothing to do", file=sys.stderr)
        return None
    if join_only:
        folder = WorkFolder(job.output, job.metadata, shard, join_only=True)
    else:
        own = survey(job, shard)
        folder = WorkFolder(job.output, job.metadata, shard)
        compute_shard(job, folder, own)
        if not folder.finished_by_all():
            done = f"shard {shard.rank} of {shard.world_size} is done"
            print(f"{job.output}: {done}; the process that finishes last joins all", file=sys.stderr)
            return None
    result = job.join(folder.payloads())
    folder.remove()
    return result


def survey(job: Job[Unit, Result], shard: Shard) -> int:
    """Read all input before anything is computed, and return the number of items of this process."""
    own = 0
    for unit in job.units():
        job.inspect(unit)
        own += job.size(unit) if shard.has(unit.unit) else 0
    job.finish_survey(shard.rank == 0)
    return own


def compute_shard(job: Job[Unit, Result], folder: WorkFolder, own: int) -> None:
    """Compute the units of this process that its log lacks, with progress; ``own``: items of this process."""
    progress: WorkProgress | None = None
    resumed = units = 0
    for unit in job.units():
        units += 1
        if not folder.shard.has(unit.unit):
            continue
        if folder.has(unit.unit):
            resumed += job.size(unit)
            continue
        if progress is None:
            description = f"{job.name} {folder.shard.rank}/{folder.shard.world_size}"
            progress = WorkProgress(own, description, resumed=resumed, unit=job.items)
        folder.write(unit.unit, job.compute(unit))
        progress.add(job.size(unit))
    if progress is not None:
        progress.close()
    folder.finish(units)


def remove_leftovers(job: Job[Unit, Result]) -> None:
    """Remove the work folder of a run that was killed after the last byte of its output."""
    folder = work_folder(job.output)
    if folder.is_dir() and not (folder / "run.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.is_dir():
        with suppress(DataError):  # of another run, or not finished
            work = WorkFolder(job.output, job.metadata, Shard(0, 1), join_only=True)
            if work.finished_by_all():
                work.remove()


def shard_from_environment() -> Shard:
    """The shard that torchrun (``RANK``, ``WORLD_SIZE``) or else srun (``SLURM_PROCID``, ``SLURM_NTASKS``) assigned.

    A job array sets them itself: ``RANK=$SLURM_ARRAY_TASK_ID WORLD_SIZE=$SLURM_ARRAY_TASK_COUNT``. Without any of them
    there is one process.
    """
    for rank_name, size_name in VARIABLES:
        rank, size = os.environ.get(rank_name), os.environ.get(size_name)
        if rank is None and size is None:
            continue
        found = f"got {rank_name}={rank} and {size_name}={size}"
        if rank is None or size is None:
            raise ConfigError(f"{rank_name} and {size_name}: must be set both or not at all, {found}")
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise ConfigError(f"{rank_name}: must be a whole number from 0 to {size_name} - 1, {found}")
        return Shard(int(rank), int(size))
    return Shard(0, 1)
