"""Sharded work: whole after a kill at any byte, joined in order, and nothing foreign or damaged gets in."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import atomic_write
from fairseq_compress.work.sharded import Job, run_job, shard_from_environment
from fairseq_compress.work.windows import Batch
from fairseq_compress.work.work_folder import Shard, WorkFolder

FACTS = {"source": "ab12", "beam": 5}


def payload_of(unit: int) -> bytes:
    return f"unit {unit} ".encode() * (unit % 7)  # of different lengths, some empty


def work_on(output, shard, units=11, facts=FACTS):
    work = WorkFolder(output, facts, shard)
    for unit in range(units):
        if shard.has(unit) and not work.has(unit):
            work.write(unit, payload_of(unit))
    work.finish(units)
    return work


def expected(units):
    return [(unit, payload_of(unit)) for unit in range(units)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 16])  # 16: some ranks have no unit
def test_payloads_come_in_order_whatever_the_number_of_ranks(tmp_path, world_size):
    for rank in reversed(range(world_size)):
        work = work_on(tmp_path / "out", Shard(rank, world_size))
        assert work.finished_by_all() == (rank == 0)
    assert list(work.payloads()) == expected(11)
    work.remove()
    assert list(tmp_path.iterdir()) == []


def test_no_units_at_all(tmp_path):
    assert list(work_on(tmp_path / "out", Shard(0, 1), units=0).payloads()) == []


def test_the_log_is_whole_after_a_cut_at_every_byte(tmp_path):
    work_on(tmp_path / "whole", Shard(1, 2), units=12)
    log = tmp_path / "whole.work" / "rank-00001-of-00002.log"
    data = log.read_bytes()
    counts = []
    for size in range(len(data)):
        log.write_bytes(data[:size])
        work = WorkFolder(tmp_path / "whole", FACTS, Shard(1, 2))
        counts.append(work.done)
        work.close()
        if size % 8 == 0:  # the disk is slow
            work_on(tmp_path / "whole", Shard(1, 2), units=12)
            assert log.read_bytes() == data
    assert counts == sorted(counts)
    assert set(counts) == set(range(6))  # units 1, 3, 5, 7, 9 whole, the last one never


def test_damage_in_the_middle_is_done_again_from_there(tmp_path):
    work_on(tmp_path / "out", Shard(0, 1))
    log = tmp_path / "out.work" / "rank-00000-of-00001.log"
    data = log.read_bytes()
    draw = random.Random(1)
    for _ in range(30):
        damaged = bytearray(data)
        place = draw.randrange(100, len(data))  # behind the header
        damaged[place] ^= 1 << draw.randrange(8)
        log.write_bytes(damaged)
        with pytest.raises(DataError, match="altered"):
            list(WorkFolder(tmp_path / "out", FACTS, Shard(0, 1), join_only=True).payloads())
        work = work_on(tmp_path / "out", Shard(0, 1))
        assert log.read_bytes() == data
        assert list(work.payloads()) == expected(11)


def test_a_seal_does_not_outlive_its_log(tmp_path):
    work_on(tmp_path / "out", Shard(0, 1))
    (tmp_path / "out.work" / "rank-00000-of-00001.log").unlink()
    work = WorkFolder(tmp_path / "out", FACTS, Shard(0, 1))
    assert work.done == 0
    assert not work.finished_by_all()


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path):
        for rank in (0, 1):
            work_on(tmp_path / "out", Shard(rank, 2))
        return tmp_path / "out.work"

    def join(self, folder):
        return list(WorkFolder(folder.with_suffix(""), FACTS, Shard(0, 1), join_only=True).payloads())

    def test_nothing_when_all_is_well(self, folder):
        assert self.join(folder) == expected(11)

    def test_a_missing_log(self, folder):
        (folder / "rank-00001-of-00002.log").unlink()
        with pytest.raises(DataError, match=r"cannot read .*rank-00001-of-00002\.log"):
            self.join(folder)

    def test_a_rank_that_has_not_finished(self, folder):
        (folder / "rank-00001-of-00002.done").unlink()
        with pytest.raises(DataError, match="rank 1 has not finished"):
            self.join(folder)

    @pytest.mark.parametrize("size", [0, 20, -1])
    def test_a_truncated_log(self, folder, size):
        log = folder / "rank-00000-of-00002.log"
        log.write_bytes(log.read_bytes()[:size])
        with pytest.raises(DataError, match=r"rank-00000-of-00002\.log: must have \d+ bytes"):
            self.join(folder)

    def test_a_log_of_another_run(self, folder, tmp_path):
        other = {"source": "ab12", "beam": 4}
        work_on(tmp_path / "other", Shard(1, 2), facts=other)
        for name in ("rank-00001-of-00002.log", "rank-00001-of-00002.done"):
            shutil.copy(tmp_path / "other.work" / name, folder)
            with pytest.raises(DataError, match="belongs to another run"):
                self.join(folder)

    def test_the_log_of_another_rank(self, folder):
        shutil.copy(folder / "rank-00000-of-00002.log", folder / "rank-00001-of-00002.log")
        shutil.copy(folder / "rank-00000-of-00002.done", folder / "rank-00001-of-00002.done")
        with pytest.raises(DataError, match="belongs to another run"):
            self.join(folder)

    def test_ranks_that_cut_the_corpus_differently(self, folder):
        work_on(folder.with_suffix(""), Shard(1, 2), units=10)  # the same five units of rank 1
        with pytest.raises(DataError, match="must be for 11 units as rank 0, got 10"):
            self.join(folder)

    def test_other_facts_name_the_first_that_differs(self, folder):
        for facts in (FACTS | {"beam": 4}, FACTS | {"beam": None}, {"source": "ab12"}, FACTS | {"new": 1}):
            with pytest.raises(DataError, match=r"belongs to another run: (beam|new) is"):
                WorkFolder(folder.with_suffix(""), facts, Shard(0, 2))

    def test_another_number_of_ranks(self, folder):
        with pytest.raises(DataError, match="shared by 2 processes, not by 3"):
            WorkFolder(folder.with_suffix(""), FACTS, Shard(0, 3))

    def test_damaged_json(self, folder):
        for name in ("rank-00001-of-00002.done", "run.json"):
            path = folder / name
            for content in ("{", "{}", "[]"):
                path.write_text(content)
                with pytest.raises(DataError, match=f"{name}: damaged"):
                    self.join(folder)
                if name.endswith(".done"):
                    work_on(folder.with_suffix(""), Shard(1, 2))

    def test_no_folder_to_join(self, tmp_path):
        with pytest.raises(DataError, match="there is nothing to join"):
            WorkFolder(tmp_path / "none", FACTS, Shard(0, 1), join_only=True)

    def test_a_second_process_with_the_same_rank(self, tmp_path):
        first = WorkFolder(tmp_path / "out", FACTS, Shard(0, 2))
        with pytest.raises(DataError, match="another process is working on this rank"):
            WorkFolder(tmp_path / "out", FACTS, Shard(0, 2))
        WorkFolder(tmp_path / "out", FACTS, Shard(1, 2)).close()
        first.close()
        WorkFolder(tmp_path / "out", FACTS, Shard(0, 2)).close()


def test_units_must_be_written_in_order(tmp_path):
    work = WorkFolder(tmp_path / "out", FACTS, Shard(0, 2))
    work.write(0, b"")
    for unit in (0, 1, 4):
        with pytest.raises(ValueError, match="not the next one"):
            work.write(unit, b"")
    with pytest.raises(DataError, match="must hold 2 of 3 units, holds 1"):
        work.finish(3)


def test_of_two_that_finish_together_one_joins(tmp_path):
    works = [work_on(tmp_path / "out", Shard(rank, 2)) for rank in (0, 1)]
    assert [work.finished_by_all() for work in works] == [True, False]
    assert works[0].finished_by_all()  # asking again changes nothing
    works[0].remove()
    assert not works[1].finished_by_all()


SCRIPT = """
import sys
from fairseq_compress.work.work_folder import Shard, WorkFolder
work = WorkFolder(sys.argv[1], {"run": 1}, Shard(0, 1))
for unit in range(150):
    if not work.has(unit):
        work.write(unit, bytes([unit % 256]) * 2000)
work.finish(150)
"""


def test_killed_at_20_random_moments(tmp_path):
    def start(name):
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / name)])

    assert start("undisturbed").wait() == 0
    name = "rank-00000-of-00001.log"
    final = (tmp_path / "undisturbed.work" / name).read_bytes()
    draw = random.Random(2)
    log = tmp_path / "killed.work" / name
    kills = 0
    for size in sorted(draw.randrange(len(final)) for _ in range(20)):
        process = start("killed")
        while process.poll() is None and not (log.exists() and log.stat().st_size >= size):
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert start("killed").wait() == 0
    assert kills >= 15  # a late one may find the work done
    assert log.read_bytes() == final
    for sealed in ("undisturbed", "killed"):
        seal = json.loads((tmp_path / f"{sealed}.work" / name).with_suffix(".done").read_text())
        assert (seal["units"], seal["bytes"]) == (150, len(final))


class TestShardFromEnvironment:
    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
            monkeypatch.delenv(name, raising=False)

    def test_alone(self):
        assert shard_from_environment() == (0, 1)

    def test_torchrun_before_slurm(self, monkeypatch):
        for name, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}.items():
            monkeypatch.setitem(os.environ, name, value)
        assert shard_from_environment() == (3, 4)
        for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
            monkeypatch.setitem(os.environ, name, value)
        assert shard_from_environment() == (1, 2)

    @pytest.mark.parametrize(
        ("rank", "size"), [("0", None), (None, "2"), ("2", "2"), ("-1", "2"), ("a", "2"), ("0", "0"), ("", "1")]
    )
    def test_nonsense(self, monkeypatch, rank, size):
        for name, value in (("RANK", rank), ("WORLD_SIZE", size)):
            if value is not None:
                monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=r"RANK.*got RANK="):
            shard_from_environment()


class Letters(Job):
    """Upper-case letters of a text, one unit each."""

    name, items = "letters", "letters"
    metadata = FACTS

    def __init__(self, output, text="abcdefgh", refused=None):
        self.output, self.text, self.refused, self.computed = output, text, refused, []

    def is_up_to_date(self):
        return self.output.exists()

    def units(self):
        return (Batch(unit, [unit], [letter]) for unit, letter in enumerate(self.text))

    def size(self, unit):
        return len(unit.items)

    def inspect(self, unit):
        if unit.items == [self.refused]:
            raise DataError("refused")

    def compute(self, unit):
        self.computed.append(unit.unit)
        return unit.items[0].upper().encode()

    def join(self, results):
        with atomic_write(self.output, "wb") as stream:
            stream.writelines(payload for _, payload in results)
        return self.output.read_bytes()


class TestRunJob:
    def test_shards_in_any_order(self, tmp_path, capsys):
        output = tmp_path / "out"
        assert run_job(Letters(output), Shard(1, 2)) is None
        assert "shard 1 of 2 is done; the process that finishes last joins all" in capsys.readouterr().err
        last = Letters(output)
        assert run_job(last, Shard(0, 2)) == b"ABCDEFGH"
        assert last.computed == [0, 2, 4, 6]
        assert os.listdir(tmp_path) == ["out"]

    def test_up_to_date(self, tmp_path, capsys):
        output = tmp_path / "out"
        output.write_bytes(b"there")
        work_on(output, Shard(0, 1))  # as a kill after the last byte of the output leaves it
        assert run_job(Letters(output), Shard(0, 1)) is None
        assert capsys.readouterr().err.endswith("out: up to date; nothing to do\n")
        assert os.listdir(tmp_path) == ["out"]

    def test_leftovers_of_another_run_stay(self, tmp_path):
        output = tmp_path / "out"
        output.write_bytes(b"there")
        work_on(output, Shard(0, 1), facts=FACTS | {"beam": 4})
        assert run_job(Letters(output), Shard(0, 1)) is None
        assert (tmp_path / "out.work").is_dir()

    def test_a_folder_that_was_being_removed(self, tmp_path):
        output = tmp_path / "out"
        output.write_bytes(b"there")
        work_on(output, Shard(0, 1))
        (tmp_path / "out.work" / "run.json").unlink()
        assert run_job(Letters(output), Shard(0, 1)) is None
        assert os.listdir(tmp_path) == ["out"]

    def test_bad_input_leaves_nothing(self, tmp_path):
        with pytest.raises(DataError, match="refused"):
            run_job(Letters(tmp_path / "out", refused="h"), Shard(0, 2))
        assert os.listdir(tmp_path) == []

    def test_join_only_and_resuming(self, tmp_path, capsys):
        output = tmp_path / "out"
        with pytest.raises(DataError, match="there is nothing to join"):
            run_job(Letters(output), Shard(0, 1), join_only=True)
        half = WorkFolder(output, FACTS, Shard(0, 1))
        half.write(0, b"A")
        half.close()
        with pytest.raises(DataError, match="rank 0 has not finished"):
            run_job(Letters(output), Shard(0, 1), join_only=True)
        rest = Letters(output)
        assert run_job(rest, Shard(0, 1)) == b"ABCDEFGH"
        assert rest.computed == list(range(1, 8))
        assert "letters 0/1: resumed at 1 of 8 letters" in capsys.readouterr().err


def test_a_folder_of_the_previous_version_is_joined(tmp_path):
    """Seals did not name their format."""
    work_on(tmp_path / "out", Shard(0, 1))
    seal = tmp_path / "out.work" / "rank-00000-of-00001.done"
    content = json.loads(seal.read_text())
    del content["format"]
    seal.write_text(json.dumps(content))
    assert list(WorkFolder(tmp_path / "out", FACTS, Shard(0, 1), join_only=True).payloads()) == expected(11)
