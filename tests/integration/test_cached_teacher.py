"""cache-teacher and word_level_kd --teacher-cache through the real commands: against the live teacher, after kills,
by several processes, and with a cache of something else."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_compress.cli.main import main
from fairseq_compress.datasets.teacher_cache import TeacherCacheDataset, attach_teacher_cache
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.tasks.compressed_translation import CompressedTranslationTask
from fairseq_compress.teachers.cache import TeacherCache
from fairseq_compress.teachers.frozen import FrozenTeachers
from tests.conftest import ROOT, TINY, run_command


def cache_teacher(teacher, data_bin, output, *options, status=0):
    """The verb, in this process."""
    arguments = ["cache-teacher", "--checkpoint", teacher, "--data", data_bin, "--output", output, *options]
    assert main([*map(str, arguments)]) == status
    return output


def refused(capsys, *arguments) -> str:
    """The verb must give one line of error. Returns it."""
    capsys.readouterr()
    cache_teacher(*arguments, status=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(lines) == 1
    return lines[0]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_task(data_bin, kind=TranslationTask, **options):
    options = {
        "train_subset": "train",
        "dataset_impl": None,
        "required_seq_len_multiple": 1,
        "upsample_primary": 1,
    } | options
    return kind.setup_task(TranslationConfig(data=str(data_bin), source_lang="en", target_lang="cs", **options))


@pytest.fixture(scope="module")
def changed_teacher(teacher, tmp_path_factory):
    """Another teacher of the same shape."""
    state = torch.load(teacher, weights_only=False)
    generator = torch.Generator().manual_seed(5)
    for weight in state["model"].values():
        if weight.is_floating_point() and weight.dim() == 2:
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    path = tmp_path_factory.mktemp("changed") / "teacher.pt"
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("several", "truncated", "dtype", "k"), [(False, None, "float16", 8), (True, 4, "float32", 48)]
)
def test_records_equal_a_loop_over_the_live_teachers(
    several, truncated, dtype, k, teacher, changed_teacher, data_bin, tmp_path
):
    """Sentence by sentence, each alone in its batch, softmax in float64."""
    paths = f"{teacher}:{changed_teacher}" if several else str(teacher)
    options = ["--top-k", k, "--dtype", dtype, "--temperature", 2, "--max-tokens", 60]
    options += ["--truncate-source", truncated] if truncated else []
    cache_teacher(paths, data_bin, tmp_path, "--splits", "valid", *options)
    task = make_task(data_bin, truncate_source=bool(truncated), max_source_positions=truncated or 1024)
    task.load_dataset("valid")
    dataset, teachers = task.dataset("valid"), FrozenTeachers(paths, task)
    cache = TeacherCache(tmp_path / "valid")
    cache.align(dataset.tgt_sizes)
    tolerance = {"rtol": 1e-3, "atol": 1e-7} if dtype == "float16" else {"rtol": 1e-4, "atol": 1e-8}
    for index in range(len(dataset)):
        sample = dataset.collater([dataset[index]])
        logits = [output.double() for output in teachers.outputs(sample, source="logits")]
        q = torch.stack([torch.softmax(output / 2, dim=-1) for output in logits]).mean(dim=0).numpy()
        records = cache.records(index)
        assert len(records) == len(q) == len(dataset[index]["target"])
        for record, row in zip(records, q, strict=True):
            np.testing.assert_allclose(record["probabilities"], np.sort(row)[::-1][:k], **tolerance)
            np.testing.assert_allclose(row[record["ids"]], record["probabilities"], **tolerance)
            np.testing.assert_allclose(record["rest"], np.sort(row)[::-1][k:].sum(), **tolerance)
            assert float(record["probabilities"].astype(np.float64).sum() + record["rest"]) == pytest.approx(
                1, abs=2e-3
            )
            assert len(set(record["ids"].tolist())) == k


def test_train_is_joined_from_its_parts(teacher, data_bin, tmp_path):
    """train and train1 are one split, as in training; the cache does not depend on folders."""
    data = shutil.copytree(data_bin, tmp_path / "bin")
    for path in data.glob("valid.*"):
        shutil.copy(path, data / path.name.replace("valid", "train1"))
    cache_teacher(teacher, data, tmp_path / "out", "--dtype", "float32")
    cache, last = TeacherCache(tmp_path / "out" / "train"), TeacherCache(tmp_path / "out" / "valid")
    assert (cache.meta.sentences, last.meta.sentences) == (131, 11)
    end = np.asarray(cache._records)[-last.meta.tokens :]
    np.testing.assert_allclose(end["probabilities"], last._records["probabilities"], rtol=1e-4)
    assert str(tmp_path) not in (cache.folder / "meta.json").read_text()


def test_two_processes_write_the_bytes_of_one(teacher, data_bin, tmp_path, monkeypatch, capsys):
    options = ["--splits", "train", "valid", "--max-tokens", 50]
    cache_teacher(teacher, data_bin, tmp_path / "one", *options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in ((1, "shard 1 of 2 is done; the process that finishes last joins all"), (0, "34 bytes a token")):
        monkeypatch.setenv("RANK", str(rank))
        capsys.readouterr()
        cache_teacher(teacher, data_bin, tmp_path / "two", *options)
        assert said in capsys.readouterr().err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(contents(tmp_path / "one")) == [
        "train/meta.json", "train/records.bin", "valid/meta.json", "valid/records.bin"
    ]  # fmt: skip


def test_join_only_says_which_share_is_missing(teacher, data_bin, tmp_path, monkeypatch, capsys):
    options = ["--splits", "valid", "--max-tokens", 50]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    cache_teacher(teacher, data_bin, tmp_path, *options)
    line = refused(capsys, teacher, data_bin, tmp_path, *options, "--join-only")
    assert "rank-00001-of-00002.done: No such file or directory; rank 1 has not finished" in line
    monkeypatch.setenv("RANK", "1")
    line = refused(capsys, teacher, data_bin, tmp_path, *options, "--top-k", 4)
    assert "belongs to another run: k is 8 there, 4 here" in line
    assert not list((tmp_path / "valid").iterdir())


def test_a_finished_cache_is_neither_made_again_nor_overwritten(teacher, changed_teacher, data_bin, tmp_path, capsys):
    cache_teacher(teacher, data_bin, tmp_path, "--splits", "valid")
    (tmp_path / "valid.work").mkdir()  # as a kill behind the last step leaves it
    before = (tmp_path / "valid" / "records.bin").stat()
    cache_teacher(teacher, data_bin, tmp_path, "--splits", "valid")
    assert (tmp_path / "valid" / "records.bin").stat() == before
    assert [path.name for path in tmp_path.iterdir()] == ["valid"]
    line = refused(capsys, teacher, data_bin, tmp_path, "--splits", "valid", "--top-k", 4)
    assert line.endswith("holds another cache: k is 8 there, 4 here; remove it first")
    line = refused(capsys, changed_teacher, data_bin, tmp_path, "--splits", "valid", "--teacher-data", data_bin)
    assert "holds another cache: teachers is" in line
    other = shutil.copytree(data_bin, tmp_path / "other")
    flip(other / "valid.en-cs.cs.bin", 4)
    line = refused(capsys, teacher, other, tmp_path, "--splits", "valid")
    assert "holds another cache: data valid target.bin is" in line


def test_bad_arguments_give_one_line(teacher, data_bin, tmp_path, capsys):
    cases = [
        (["--top-k", 0, "--max-tokens", 0], "--top-k: must be in [1, inf), got 0; --max-tokens: must be in [1, inf)"),
        (["--top-k", 49], "--top-k: must be in [1, 48], the entries of the dictionary, got 49"),
        (["--temperature", 0], "--temperature: must be in (0, inf), got 0.0"),
        (["--max-tokens", 0], "--max-tokens: must be in [1, inf), got 0"),
        (["--splits", "none"], "--splits none: Dataset not found: none"),
        (["--source-lang", "de"], "has no dictionary of de or cs"),
        (["--source-lang", "cs", "--target-lang", "en"], "the teacher must translate cs-en"),
        (["--truncate-source", 1], "--truncate-source: must be in [2, inf), got 1"),
    ]
    for options, message in cases:
        assert message in refused(capsys, teacher, data_bin, tmp_path / "out", *options)
    assert "no such file" in refused(capsys, tmp_path / "none.pt", data_bin, tmp_path / "out")
    assert "must be one folder" in refused(capsys, teacher, f"{data_bin}:{data_bin}", tmp_path / "out")
    assert not list(tmp_path.rglob("*.bin"))


def attach_and_load(data, cache, teacher_path=None, split="train", **options):
    """What a training does with a cache before its first update."""
    task = make_task(data, CompressedTranslationTask, **options)
    attach_teacher_cache(task, cache, teacher_path, 1.0)
    task.load_dataset(split, combine=split == "train")
    return task.dataset(split)


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_training_refuses_a_cache_of_something_else(rank, teacher, changed_teacher, data_bin, tmp_path, monkeypatch):
    """Other data of the same sizes, other parts, another dictionary, another teacher, records cut or altered."""
    cache = cache_teacher(teacher, data_bin, tmp_path / "cache", "--splits", "train")
    same, other, more, words = (
        shutil.copytree(data_bin, tmp_path / name) for name in ("same", "other", "more", "words")
    )
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert isinstance(attach_and_load(same, cache, str(teacher)), TeacherCacheDataset)

    def refuse(message, *arguments, **options):
        with pytest.raises((ConfigError, DataError), match=message) as caught:
            attach_and_load(*arguments, **options)
        assert "\n" not in str(caught.value)

    refuse("is not the teacher of --teacher-cache", same, cache, str(changed_teacher))
    refuse("is not the teacher of --teacher-cache", same, cache, f"{teacher}:{teacher}")
    for path in more.glob("valid.*"):
        shutil.copy(path, more / path.name.replace("valid", "train1"))
    refuse("made from other data: train1 source.bin" if rank == "0" else "has 120 sentences", more, cache)
    refuse("--upsample-primary: must be 1" if rank == "0" else "has 120 sentences", more, cache, upsample_primary=2)
    for path in words.glob("dict.*.txt"):
        path.write_text("first 9\n" + path.read_text())
    refuse("the teacher's en dictionary must equal the student's; .*; .*the teacher's cs dictionary", words, cache)
    flip(other / "train.en-cs.en.bin", 6)
    shutil.copytree(cache / "train", cache / "valid")
    if rank == "0":  # reads all bytes; the others check the sizes
        refuse("made from other data: train source.bin has sha256", other, cache)
        refuse("made from other data: train source.bin has no such file", same, cache, split="valid")
        flip(cache / "train" / "records.bin")
        refuse("records.bin: altered", same, cache)
        flip(cache / "train" / "records.bin")
    with open(cache / "train" / "records.bin", "ab") as stream:
        stream.truncate(100)
    refuse("records.bin: must have 25024 bytes as meta.json says, has 100", same, cache)
    (cache / "train" / "meta.json").unlink()
    refuse("no finished cache there", same, cache)
    shutil.rmtree(cache / "train")
    refuse("no finished cache there", same, cache)


def test_sentences_that_the_teacher_cannot_take(teacher, data_bin, tmp_path, capsys):
    """They are counted, and a training must leave them out by its own limits."""
    state = torch.load(teacher, weights_only=False)
    state["cfg"]["model"].max_source_positions = 7
    torch.save(state, tmp_path / "short.pt")
    cache = cache_teacher(tmp_path / "short.pt", data_bin, tmp_path / "cache", "--teacher-data", data_bin)
    dataset = make_task(data_bin)
    dataset.load_dataset("train", combine=True)
    unread = int((dataset.dataset("train").src_sizes > 7).sum())
    assert f"{unread} sentences longer than [7, 1024] left out" in capsys.readouterr().err
    assert unread > 10
    with pytest.raises(ConfigError, match=f"--max-source-positions: must be at most 7, got 1024: {unread} longer"):
        attach_and_load(data_bin, cache)
    dataset = attach_and_load(data_bin, cache, max_source_positions=7)
    for index in range(len(dataset)):
        records = dataset.cache.records(index)
        if dataset.src_sizes[index] > 7:
            assert (records["rest"] == 1).all()
        else:
            assert (records["rest"] < 1).all()


@pytest.fixture
def train(train_arguments, teacher, tmp_path):
    """Six updates from a teacher, in the folder of a name: with dropout, a filter by length, accumulated gradients and
    two validation splits. Returns log and weights."""
    left_out = ("--disable-validation", "--no-last-checkpoints")
    arguments = [argument for argument in train_arguments if argument not in left_out] + [
        *TINY, "--arch", "transformer_small", "--criterion", "word_level_kd", "--kd-temperature", "2",
        "--label-smoothing", "0.1", "--teacher-path", str(teacher), "--valid-subset", "valid,test1",
        "--max-source-positions", "8", "--skip-invalid-size-inputs-valid-test", "--update-freq", "2",
        "--dropout", "0.1",
    ]  # fmt: skip

    def run(name, *options, updates=6):
        options = [*options, "--max-update", updates, "--save-dir", tmp_path / name]
        log = run_command("fairseq-train", *arguments, *options).stdout
        state = torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False)
        assert state["optimizer_history"][-1]["num_updates"] == updates
        return log, state["model"]

    return run


def losses(log, kind):
    """Of the updates (``kind`` is their mark in the log), or the validations of a split."""
    return [float(re.search(r"[ |]loss[= ]([\d.]+)", line).group(1)) for line in log.splitlines() if kind in line]


def test_the_whole_vocabulary_trains_as_the_live_teacher(train, teacher, data_bin, tmp_path):
    """k = V in float32 gives the same losses and weights; a run that stops and goes on, the same bits."""
    cache = cache_teacher(teacher, data_bin, tmp_path / "cache", "--top-k", 48, "--dtype", "float32",
                          "--temperature", 2)  # fmt: skip
    options = ["--teacher-cache", cache, "--num-workers", 2]
    live_log, live = train("live")
    log, cached = train("cached", *options)
    assert re.search(r"\d+ samples have invalid sizes and will be skipped", log)
    for kind, number in ((" loss=", 6), ("'valid' subset | loss", 2)):
        assert len(losses(log, kind)) >= number
        assert losses(log, kind) == pytest.approx(losses(live_log, kind), abs=2e-3)
    assert losses(log, "'test1' subset | loss") != pytest.approx(losses(live_log, "'test1' subset | loss"), abs=2e-3)
    for key, weight in live.items():
        torch.testing.assert_close(cached[key], weight, rtol=1e-3, atol=1e-4, msg=key)
    assert "none for split 'test1', only the gold term is computed there" in log
    assert f"{cache}/train: 120 sentences, 736 target tokens, k=48, 292 bytes a token" in log

    train("stopped", *options, updates=4)
    _, resumed = train("stopped", *options)
    for key, weight in cached.items():
        assert torch.equal(resumed[key], weight), key


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import fairseq.tasks.translation
from fairseq_compress.cli.main import main
from tests.integration.test_cached_teacher import contents

teacher, data, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])

def start(output):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        arguments = ["--data", data, "--output", str(output), "--max-tokens", "40", "--splits", "train"]
        os._exit(main(["cache-teacher", "--checkpoint", teacher, *arguments]))
    return pid

def written(output):
    try:
        return sum(log.stat().st_size for log in output.glob("*.work/*.log"))
    except FileNotFoundError:  # removed meanwhile
        return 0

def wait(pid, output, size):  # until that much is written: None, or until the end: the status
    while written(output) < size:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.0005)

whole, size = start(folder / "whole"), 0
while not os.waitpid(whole, os.WNOHANG)[0]:
    size = max(size, written(folder / "whole"))
    time.sleep(0.0005)
expected, draw, kills, finished, resumed = contents(folder / "whole"), random.Random(7), 0, 0, 0
moments = sorted(draw.uniform(0, 1) for _ in range(20))
while kills < 20 or finished == 0:
    output = folder / f"killed{finished}"
    resumed += written(output) > 200
    pid = start(output)
    status = wait(pid, output, moments[kills] * size if kills < 20 else 2 * size)
    if status is None:
        time.sleep(draw.choice([0, 0.003, 0.03]))  # in the middle of a record, or when all are there
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    kills += os.WIFSIGNALED(status)
    if not os.WIFSIGNALED(status):
        assert status == 0
        found = contents(output)
        assert found == expected, sorted(found)
        finished += 1
print(f"{kills} kills, {resumed} starts that went on from records, {finished} times the same {len(expected)} files")
assert resumed >= 5, resumed
"""


def test_twenty_kills_change_no_byte(teacher, data_bin, tmp_path):
    """kill -9 at random moments of the verb, from its start to its end, each followed by a start that goes on.

    The verb runs in a fork of a process that has imported everything, so that the kills hit its work and not imports.
    """
    result = subprocess.run(
        [sys.executable, "-c", KILLS, str(teacher), str(data_bin), str(tmp_path)], capture_output=True, text=True,
        cwd=ROOT, check=False, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    print(result.stdout)
    assert result.returncode == 0, result.stderr
