"""The folder ``OUTPUT.work`` of sharded work: one log per rank, sealed when the rank has finished, and their join.

Unit u belongs to rank u mod world_size. The ranks share the folder and nothing else: no messages and no waiting, so
torchrun, srun and job arrays work alike, and a rank that died can be started again at any time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from fairseq_compress.errors import DataError
from fairseq_compress.system import take_lock
from fairseq_compress.work.files import PathLike
from fairseq_compress.work.manifest import Manifest, count, difference, fingerprint_of, through_json
from fairseq_compress.work.unit_log import UnitLog, open_sealed, pack_entry, read_entry

LOG_HEADER = "fairseq-compress work 1"


class Shard(NamedTuple):
    """The part of the work that belongs to one process."""

    rank: int
    world_size: int

    def has(self, unit: int) -> bool:
        """Whether the unit belongs to this process."""
        return unit % self.world_size == self.rank


@dataclass(frozen=True, kw_only=True)
class RunManifest(Manifest, name="work"):
    """``run.json``, equal for all ranks."""

    facts: dict[str, Any]
    world_size: int = count()


@dataclass(frozen=True, kw_only=True)
class Seal(Manifest, name="work seal"):
    """``rank-R-of-N.done``, of a rank that has finished."""

    fingerprint: str
    sha256: str
    """Of the log."""
    units: int = count()
    """Of all ranks together."""
    bytes: int = count()


class WorkFolder:
    """This rank's log in ``OUTPUT.work``, and the payloads of all ranks' logs.

    Args:
        output, metadata: see :class:`~fairseq_compress.work.sharded.Job`.
        join_only: open no log, only verify and join those in the folder, whose world size counts.
    """

    def __init__(self, output: PathLike, metadata: Mapping[str, Any], shard: Shard, *, join_only: bool = False) -> None:
        self.folder = work_folder(output)
        self.shard = shard
        self.fingerprint = fingerprint_of(metadata)
        self._log: UnitLog | None = None
        self._join_lock: IO[bytes] | None = None
        self._sealed = 0
        if join_only:
            self.shard = Shard(shard.rank, self._check_run(metadata, None))
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._create_run(metadata)
        self._check_run(metadata, shard.world_size)
        self._log = UnitLog(self._log_path(shard.rank), self._header(shard.rank), shard.rank, shard.world_size)
        self._break_stale_seal(self._log)

    @property
    def done(self) -> int:
        """Units in this rank's log."""
        return self._sealed if self._log is None else self._log.count

    def has(self, unit: int) -> bool:
        """Whether the unit is in this rank's log."""
        return self.shard.has(unit) and unit // self.shard.world_size < self.done

    def write(self, unit: int, payload: bytes) -> None:
        """Append the result of a unit; it is on the disk when this returns. A rank's units come in increasing order."""
        if self._log is None or unit != self._log.next_unit:
            raise ValueError(f"unit {unit} is not the next one of rank {self.shard.rank}, which wrote {self.done}")
        self._log.append(payload)

    def finish(self, units: int) -> None:
        """Seal this rank's log after the last of its part of ``units`` units in all, and close it."""
        rank = self.shard.rank
        expected = len(range(rank, units, self.shard.world_size))
        if self._log is None or self.done != expected:
            raise DataError(f"{self._log_path(rank)}: must hold {expected} of {units} units, holds {self.done}")
        size, sha256 = self._log.size, self._log.sha256
        seal = Seal(fingerprint=self.fingerprint, units=units, bytes=size, sha256=sha256)
        seal.write(self._seal_path(rank))
        self.close()

    def close(self) -> None:
        """Close the log, so that another process may resume this rank."""
        if self._log is not None:
            self._sealed = self._log.count
            self._log.close()
            self._log = None

    def missing_ranks(self) -> list[int]:
        """The ranks that have not finished."""
        return [rank for rank in range(self.shard.world_size) if not self._seal_path(rank).is_file()]

    def finished_by_all(self) -> bool:
        """Whether every rank has finished and this process is the one to join the logs.

        When the last ranks finish at the same moment, the answer is True for one of them: it holds a lock from here
        until :meth:`remove` or its end.
        """
        if self.missing_ranks():
            return False
        if self._join_lock is not None:
            return True
        try:
            lock = open(self.folder / "run.json", "rb")  # noqa: SIM115 - the lock ends when it is closed
        except FileNotFoundError:  # another process has joined and removed the folder
            return False
        if not take_lock(lock) or os.fstat(lock.fileno()).st_nlink == 0:
            lock.close()
            return False
        self._join_lock = lock
        return True

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Yield (unit, payload) of all ranks in order of the units, and verify every log.

        The SHA-256 of a log is known after its last entry only: discard all results if this raises.
        """
        world_size = self.shard.world_size
        seals = [self._read_seal(rank) for rank in range(world_size)]
        units = seals[0].units
        for rank, seal in enumerate(seals):
            if seal.units != units:
                raise DataError(f"{self._seal_path(rank)}: must be for {units} units as rank 0, got {seal.units}")
        with ExitStack() as stack:
            logs = [
                stack.enter_context(open_sealed(self._log_path(rank), self._header(rank), seal.bytes))
                for rank, seal in enumerate(seals)
            ]
            digests = [hashlib.sha256(self._header(rank)) for rank in range(world_size)]
            for unit in range(units):
                rank = unit % world_size
                payload = read_entry(logs[rank], unit)
                if payload is None:
                    raise DataError(f"{self._log_path(rank)}: altered since it was finished, at unit {unit}")
                digests[rank].update(pack_entry(unit, payload))
                yield unit, payload
            for rank, (log, digest) in enumerate(zip(logs, digests, strict=True)):
                if log.read(1) or digest.hexdigest() != seals[rank].sha256:
                    raise DataError(f"{self._log_path(rank)}: altered since it was finished (SHA-256 differs)")

    def remove(self) -> None:
        """Remove the folder, once the output is written."""
        self.close()
        (self.folder / "run.json").unlink(missing_ok=True)  # first: a folder without it is a leftover
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._join_lock is not None:
            self._join_lock.close()
            self._join_lock = None

    def _log_path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05}-of-{self.shard.world_size:05}.log"

    def _seal_path(self, rank: int) -> Path:
        return self._log_path(rank).with_suffix(".done")

    def _header(self, rank: int) -> bytes:
        return f"{LOG_HEADER} {self.fingerprint} {rank:05} {self.shard.world_size:05}\n".encode()

    def _create_run(self, metadata: Mapping[str, Any]) -> None:
        """Write run.json if it is missing; by a link, so that only one rank creates it."""
        path = self.folder / "run.json"
        if path.exists():
            return
        temporary = path.with_name(f"run.json.tmp-{self.shard.rank}-{os.getpid()}")
        RunManifest(world_size=self.shard.world_size, facts=dict(metadata)).write(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()

    def _check_run(self, metadata: Mapping[str, Any], world_size: int | None) -> int:
        """Compare the folder's run with this one and return its world size."""
        path = self.folder / "run.json"
        run = RunManifest.read(path, "there is nothing to join")
        remedy = f"finish that run, or remove {self.folder} to start again"
        if differs := difference(through_json(metadata), run.facts):
            name, here, there = differs
            here, there = (json.dumps(value, ensure_ascii=False) for value in (here, there))
            raise DataError(f"{self.folder} belongs to another run: {name} is {there} there, {here} here; {remedy}")
        if world_size is not None and run.world_size != world_size:
            raise DataError(f"{self.folder} is shared by {run.world_size} processes, not by {world_size}; {remedy}")
        return run.world_size

    def _break_stale_seal(self, log: UnitLog) -> None:
        """Remove the seal of an earlier start if the log is no longer what was sealed; the rest is computed again."""
        path = self._seal_path(self.shard.rank)
        if not path.is_file():
            return
        try:
            seal = self._read_seal(self.shard.rank)
            stale = (seal.bytes, seal.sha256) != (log.size, log.sha256)
        except DataError:
            stale = True
        if stale:
            path.unlink()

    def _read_seal(self, rank: int) -> Seal:
        path = self._seal_path(rank)
        seal = Seal.read(path, f"rank {rank} has not finished")
        if seal.fingerprint != self.fingerprint:
            raise DataError(f"{path}: belongs to another run (its fingerprint differs)")
        return seal


def work_folder(output: PathLike) -> Path:
    """The folder of an output's shards until they are joined."""
    return Path(f"{os.fspath(output)}.work")
