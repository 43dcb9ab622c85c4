"""``fairseq-compress nbest`` as it is run: against fairseq-generate, in several processes, killed and damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fairseq_compress.corpus.nbest import read_nbest
from fairseq_compress.work.work_folder import Shard, WorkFolder
from tests.conftest import BIN, PLUGIN, run_command, write_pair

# Forks after the imports: a start of Python with torch and fairseq takes seconds, and 20 of them are killed.
KILLER = """
import os, random, signal, sys, time
import fairseq.tasks.translation
import fairseq_compress
from fairseq_compress.cli.main import main
fairseq_compress.register()
output, log, size, *arguments = sys.argv[1:]
draw = random.Random(4)
kills = 0
for bytes_there in [*sorted(draw.randrange(int(size)) for _ in range(20)), None]:
    child = os.fork()
    if child == 0:
        os._exit(main(["nbest", *arguments]))
    if bytes_there is not None:
        while not (os.path.exists(log) and os.path.getsize(log) >= bytes_there):
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit("a child ended by itself")
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        kills += 1
    state = os.waitpid(child, 0)[1]
print(kills, os.waitstatus_to_exitcode(state))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """150 lines of pieces, some empty, one long."""
    folder = tmp_path_factory.mktemp("nbest")
    write_pair(folder / "text", 150, seed=9)
    lines = (folder / "text.en").read_text().splitlines()
    lines[3] = lines[77] = ""
    lines[20] = " ".join(lines[21:26])
    (folder / "text.en").write_text("\n".join(lines) + "\n")
    return folder / "text.en"


@pytest.fixture(scope="module")
def command(teacher, data_bin, corpus):
    """The options of every run; batches are small, so that there are many units."""
    return [
        "--checkpoint", str(teacher), "--data", str(data_bin), "--source", str(corpus), "--beam", "3",
        "--max-len-b", "12", "--max-tokens", "60", "--window", "64",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    """The file of one process."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run_here(command, output) == 0
    assert not output.with_name("out.work").exists()
    return output


def run_here(command, output, *more, rank=None, world_size=None):
    from fairseq_compress.cli.main import main

    names = ("RANK", "WORLD_SIZE")
    before = {name: os.environ.pop(name, None) for name in names}
    try:
        if world_size is not None:
            os.environ.update(zip(names, (str(rank), str(world_size)), strict=True))
        return main(["nbest", *command, "--output", str(output), *more])
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


def contents(output):
    return [path.read_bytes() for path in (output, output.with_name(f"{output.name}.json"))]


def test_the_hypotheses_of_fairseq_generate(teacher, data_bin, tmp_path):
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t", "cs",
        "--cpu", "--path", teacher, "--gen-subset", "test2", "--beam", 4, "--nbest", 4, "--lenpen", 0.6,
        "--max-len-b", 15, "--batch-size", 4,
    ).stdout  # fmt: skip
    rows = [line.split("\t") for line in log.splitlines() if line[:2] in ("S-", "H-")]
    sources = {int(row[0][2:]): row[1] for row in rows if row[0].startswith("S")}
    expected = {index: [] for index in sources}
    for name, *rest in rows:
        if name.startswith("H"):
            expected[int(name[2:])].append((float(rest[0]) * 0.6931471805599453, rest[1]))
    source = tmp_path / "source"
    source.write_text("".join(f"{sources[index]}\n" for index in range(9)))
    options = ["--checkpoint", str(teacher), "--data", str(data_bin), "--source", str(source), "--beam", "4"]
    assert run_here([*options, "--lenpen", "0.6", "--max-len-b", "15"], tmp_path / "out") == 0
    for each in read_nbest(tmp_path / "out", source):
        assert [text for _, text in each.hypotheses] == [text for _, text in expected[each.index]]
        assert [score for score, _ in each.hypotheses] == pytest.approx(
            [score for score, _ in expected[each.index]], abs=1e-3
        )


def test_two_processes_equal_one(command, undisturbed, corpus, tmp_path):
    run_command("fairseq-compress", "nbest", *command, "--output", tmp_path / "started", "--processes", 2)
    assert contents(tmp_path / "started") == contents(undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["started", "started.json"]
    for rank in (1, 0):  # one after the other, as a job array may run
        assert run_here(command, tmp_path / "array", rank=rank, world_size=2) == 0
        assert (tmp_path / "array").exists() == (rank == 0)
    assert contents(tmp_path / "array") == contents(undisturbed)
    assert sum(1 for _ in read_nbest(tmp_path / "array", corpus)) == 150


def test_killed_at_20_random_moments(command, undisturbed, tmp_path):
    output = tmp_path / "killed"
    log = tmp_path / "killed.work" / "rank-00000-of-00001.log"
    size = 20_000  # bytes; the log is longer, see below
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(output), str(log), str(size), *command, "--output", str(output)],
        stdout=subprocess.PIPE, text=True, timeout=300, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.stdout.split() == ["20", "0"]
    assert undisturbed.stat().st_size > size
    assert contents(output) == contents(undisturbed)


def test_done_already(command, undisturbed, capsys):
    leftovers = undisturbed.with_name("out.work")  # of a kill after the last byte of the output
    facts = json.loads(undisturbed.with_name("out.json").read_text())["facts"]
    WorkFolder(undisturbed, facts, Shard(0, 1)).finish(0)
    before = undisturbed.stat().st_mtime_ns
    assert run_here(command, undisturbed) == 0
    assert "up to date; nothing to do" in capsys.readouterr().err
    assert undisturbed.stat().st_mtime_ns == before
    assert not leftovers.exists()


@pytest.fixture(scope="module")
def shares(command, tmp_path_factory):
    """A run of two processes before its join: rank 1 has finished, rank 0 lacks its seal."""
    output = tmp_path_factory.mktemp("shares") / "out"
    assert run_here(command, output, rank=1, world_size=2) == 0
    keep = output.with_name("rank 1")
    shutil.copytree(output.with_name("out.work"), keep)
    assert run_here(command, output, rank=0, world_size=2) == 0
    return keep


class TestRefused:
    @pytest.fixture
    def folder(self, shares, tmp_path):
        shutil.copytree(shares, tmp_path / "out.work")
        return tmp_path / "out.work"

    def fails(self, command, folder, capsys, message, *more, **shard):
        output = folder.with_suffix("")
        assert run_here(command, output, *more, **shard) == 1
        assert message in capsys.readouterr().err
        assert not output.exists()

    def test_a_missing_share(self, command, folder, capsys):
        self.fails(command, folder, capsys, "rank 0 has not finished", "--join-only")

    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
    def test_a_damaged_share(self, command, folder, capsys, damage):
        log = folder / "rank-00001-of-00002.log"
        data = bytearray(log.read_bytes())
        assert run_here(command, folder.with_suffix("").with_name("other"), rank=0, world_size=2) == 0
        for path in folder.with_name("other.work").iterdir():
            if path.name.startswith("rank-00000"):
                shutil.copy(path, folder)
        if damage == "truncated":
            log.write_bytes(data[:-1])
        elif damage == "altered":
            data[len(data) // 2] ^= 1
            log.write_bytes(data)
        else:
            log.unlink()
        message = {"truncated": "must have", "altered": "altered since", "missing": "cannot read"}[damage]
        self.fails(command, folder, capsys, message, "--join-only")
        if damage != "missing":
            return
        assert run_here(command, folder.with_suffix(""), rank=1, world_size=2) == 0  # done again, and joined
        assert folder.with_suffix("").exists()

    def test_another_run(self, command, folder, capsys):
        self.fails([*command, "--lenpen", "0.5"], folder, capsys, "lenpen is 1.0 there, 0.5 here", rank=0, world_size=2)

    def test_another_number_of_processes(self, command, folder, capsys):
        self.fails(command, folder, capsys, "shared by 2 processes, not by 3", rank=0, world_size=3)

    def test_a_source_that_changed_between_the_shares(self, command, corpus, folder, capsys):
        before = corpus.read_bytes()
        try:
            corpus.write_bytes(before[:-1] + b" a1\n")
            self.fails(command, folder, capsys, "belongs to another run: source is", rank=0, world_size=2)
        finally:
            corpus.write_bytes(before)


def test_long_lines_before_any_work(teacher, data_bin, tmp_path, capsys):
    source = tmp_path / "source"
    source.write_text("a1 a2\n" + "a1 " * 1100 + "\na3\n")
    options = ["--checkpoint", str(teacher), "--data", str(data_bin), "--source", str(source), "--max-len-b", "5"]
    assert run_here(options, tmp_path / "out") == 1
    assert "line 2: 1101 tokens, the model takes 1024; 1 of 3 lines are too long" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert run_here(options, tmp_path / "out", "--long-lines", "skip") == 0
    assert "1 left untranslated" in capsys.readouterr().err
    assert [each.translated for each in read_nbest(tmp_path / "out", source)] == [True, False, True]
    assert json.loads((tmp_path / "out.json").read_text())["facts"]["long_lines"] == "skip"


def test_wrong_options_in_one_line(command, tmp_path, capsys):
    cases = {
        "--processes: must be in [1, inf), got 0": ["--processes", "0"],
        "--nbest: must be from 1 to --beam": ["--nbest", "4"],
        "--source-lang: must be en, the language of checkpoint": ["--source-lang", "de"],
        "--device cuda: there is no such device": ["--device", "cuda"],
    }
    for message, options in cases.items():
        assert run_here(command, tmp_path / "out", *options) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_children_end_with_their_parent(command, tmp_path):
    process = subprocess.Popen(
        [str(BIN / "fairseq-compress"), "nbest", *command, "--output", str(tmp_path / "out"), "--processes", "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        children = wait_for_children(process.pid, 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 60
    while any(is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(child) for child in children)


def wait_for_children(pid, count):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/task/{pid}/children") as stream:
            children = [int(child) for child in stream.read().split()]
        if len(children) == count:
            return children
        time.sleep(0.02)
    raise AssertionError("no children were started")


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
