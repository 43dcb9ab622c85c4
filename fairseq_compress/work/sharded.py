"""Long work cut into numbered units, shared by processes that need not know each other, resumable after any kill.

Unit u belongs to rank u mod world_size. Each rank appends what its units gave to a log of its own in ``OUTPUT.work``
(see ``unit_log.py``) and seals it with a ``.done`` file at the end; the rank that finishes last joins the logs. The
processes share a folder and nothing else: no waiting, no messages, so torchrun, srun and job arrays work alike, and a
rank that died is started again at any time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.system import take_lock
from fairseq_compress.work.files import PathLike, atomic_write
from fairseq_compress.work.unit_log import UnitLog, open_sealed, pack_entry, read_entry

FORMAT = "fairseq-compress work 1"
VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
SEAL = {"fingerprint", "units", "bytes", "sha256"}


class Shard(NamedTuple):
    """Which part of the work is this process's."""

    rank: int
    world_size: int


def shard_from_environment() -> Shard:
    """The shard that torchrun (``RANK``, ``WORLD_SIZE``) or else srun (``SLURM_PROCID``, ``SLURM_NTASKS``) assigned.

    A job array sets them itself: ``RANK=$SLURM_ARRAY_TASK_ID WORLD_SIZE=$SLURM_ARRAY_TASK_COUNT``. Without any of them
    there is one process.

    Raises:
        ConfigError: one of a pair is missing, no whole number, or out of range.
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


class ShardedWork:
    """This rank's log in the folder ``OUTPUT.work``, and the join of all ranks' logs.

    Args:
        output: the file or folder that the work is for.
        facts: everything that decides the output's bytes, as JSON can hold it: checksums of inputs and models, options.
        shard: this process's part.
        join_only: open no log, only verify and join what is there; the number of ranks is then the folder's.

    Raises:
        DataError: the folder belongs to another run (the first fact that differs is named) or to another number of
            ranks, another process works on the same rank, or with ``join_only`` there is no such folder.
    """

    def __init__(self, output: PathLike, facts: Mapping[str, Any], shard: Shard, *, join_only: bool = False) -> None:
        self.folder = Path(f"{os.fspath(output)}.work")
        self.rank, self.world_size = shard
        self.fingerprint = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
        self._log: UnitLog | None = None
        self._join_lock: IO[bytes] | None = None
        self._sealed = 0
        if join_only:
            self.world_size = self._check_run(facts, None)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._create_run(facts)
        self._check_run(facts, self.world_size)
        self._log = UnitLog(self._log_path(self.rank), self._header(self.rank), self.rank, self.world_size)
        self._break_stale_seal(self._log)

    @property
    def done(self) -> int:
        """Units of this rank that are in its log."""
        return self._sealed if self._log is None else self._log.count

    def mine(self, unit: int) -> bool:
        """Whether the unit belongs to this rank."""
        return unit % self.world_size == self.rank

    def has(self, unit: int) -> bool:
        """Whether the unit is in this rank's log already."""
        return self.mine(unit) and unit // self.world_size < self.done

    def write(self, unit: int, payload: bytes) -> None:
        """Append what a unit gave; it is on the disk when this returns. A rank's units come in increasing order.

        Raises:
            ValueError: the unit is not the next one of this rank, or the log is finished.
        """
        if self._log is None or unit != self._log.next_unit:
            raise ValueError(f"unit {unit} is not the next one of rank {self.rank}, which has written {self.done}")
        self._log.append(payload)

    def finish(self, units: int) -> None:
        """Seal this rank's log after the last of its share of ``units`` units in all, and close it.

        Raises:
            DataError: a unit is missing, or there is one too many.
        """
        expected = len(range(self.rank, units, self.world_size))
        if self._log is None or self.done != expected:
            raise DataError(f"{self._log_path(self.rank)}: must hold {expected} of {units} units, holds {self.done}")
        seal = {"fingerprint": self.fingerprint, "units": units, "bytes": self._log.size, "sha256": self._log.sha256}
        with atomic_write(self._seal_path(self.rank)) as stream:
            stream.write(json.dumps(seal, indent=2) + "\n")
        self.close()

    def close(self) -> None:
        """Close the log, so that another process may go on with this rank."""
        if self._log is not None:
            self._sealed = self._log.count
            self._log.close()
            self._log = None

    def missing_ranks(self) -> list[int]:
        """The ranks that have not finished."""
        return [rank for rank in range(self.world_size) if not self._seal_path(rank).is_file()]

    def finished_by_all(self) -> bool:
        """Whether every rank has finished, and it falls to this process to join their logs.

        When the last ranks finish at the same moment, the answer is True for one of them: it holds a lock from here
        until :meth:`remove` or its end.
        """
        if self.missing_ranks():
            return False
        if self._join_lock is not None:
            return True
        try:
            lock = open(self.folder / "run.json", "rb")  # noqa: SIM115 - the lock ends when it is closed
        except FileNotFoundError:  # another one has joined, and removed the folder
            return False
        if not take_lock(lock) or os.fstat(lock.fileno()).st_nlink == 0:
            lock.close()
            return False
        self._join_lock = lock
        return True

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Yield (unit, payload) of all ranks in the order of units, and verify every log on the way.

        The SHA-256 of a log is known after its last entry only: throw away what was made of the payloads if this
        raises.

        Raises:
            DataError: a log is missing, truncated, altered or from another run, or the ranks disagree on the units.
        """
        seals = [self._read_seal(rank) for rank in range(self.world_size)]
        units = seals[0]["units"]
        for rank, seal in enumerate(seals):
            if seal["units"] != units:
                raise DataError(f"{self._seal_path(rank)}: must be for {units} units as rank 0, got {seal['units']}")
        with ExitStack() as stack:
            logs = [
                stack.enter_context(open_sealed(self._log_path(rank), self._header(rank), seal["bytes"]))
                for rank, seal in enumerate(seals)
            ]
            digests = [hashlib.sha256(self._header(rank)) for rank in range(self.world_size)]
            for unit in range(units):
                rank = unit % self.world_size
                payload = read_entry(logs[rank], unit)
                if payload is None:
                    raise DataError(f"{self._log_path(rank)}: altered since it was finished, at unit {unit}")
                digests[rank].update(pack_entry(unit, payload))
                yield unit, payload
            for rank, (log, digest) in enumerate(zip(logs, digests, strict=True)):
                if log.read(1) or digest.hexdigest() != seals[rank]["sha256"]:
                    raise DataError(f"{self._log_path(rank)}: altered since it was finished (SHA-256 differs)")

    def remove(self) -> None:
        """Remove the folder, after the output was written."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._join_lock is not None:
            self._join_lock.close()
            self._join_lock = None

    def _log_path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05}-of-{self.world_size:05}.log"

    def _seal_path(self, rank: int) -> Path:
        return self._log_path(rank).with_suffix(".done")

    def _header(self, rank: int) -> bytes:
        return f"{FORMAT} {self.fingerprint} {rank:05} {self.world_size:05}\n".encode()

    def _create_run(self, facts: Mapping[str, Any]) -> None:
        """Write run.json unless it is there. By a link, so that of several ranks one wins and the others compare."""
        path = self.folder / "run.json"
        if path.exists():
            return
        content = {"format": FORMAT, "world_size": self.world_size, "facts": dict(facts)}
        temporary = path.with_name(f"run.json.tmp-{self.rank}-{os.getpid()}")
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()

    def _check_run(self, facts: Mapping[str, Any], world_size: int | None) -> int:
        """Compare the folder's run with ours and return its number of ranks."""
        path = self.folder / "run.json"
        try:
            found = json.loads(path.read_bytes())
            theirs, size = dict(found["facts"]), int(found["world_size"])
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; there is nothing to join") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}); remove {self.folder} to start again") from error
        remedy = f"finish that run, or remove {self.folder} to start again"
        ours = json.loads(json.dumps(dict(facts)))
        for name in [*ours, *(theirs.keys() - ours.keys())]:
            if ours.get(name) != theirs.get(name):
                here, there = (json.dumps(side.get(name), ensure_ascii=False) for side in (ours, theirs))
                raise DataError(f"{self.folder} belongs to another run: {name} is {there} there, {here} here; {remedy}")
        if world_size is not None and size != world_size:
            raise DataError(f"{self.folder} is shared by {size} processes, not by {world_size}; {remedy}")
        return size

    def _break_stale_seal(self, log: UnitLog) -> None:
        """Remove the seal of an earlier start if the log is no longer what was sealed; its rest is done again."""
        path = self._seal_path(self.rank)
        if not path.is_file():
            return
        try:
            seal = self._read_seal(self.rank)
        except DataError:
            seal = {}
        if (seal.get("bytes"), seal.get("sha256")) != (log.size, log.sha256):
            path.unlink()

    def _read_seal(self, rank: int) -> dict[str, Any]:
        path = self._seal_path(rank)
        try:
            seal = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; rank {rank} has not finished") from error
        except ValueError as error:
            raise DataError(f"{path}: damaged ({error})") from error
        if not isinstance(seal, dict) or SEAL - seal.keys():
            raise DataError(f"{path}: damaged (a fact is missing)")
        if seal["fingerprint"] != self.fingerprint:
            raise DataError(f"{path}: belongs to another run (its fingerprint differs)")
        return seal
