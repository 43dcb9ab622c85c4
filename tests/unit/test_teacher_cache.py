"""Teacher cache: records against a slow loop, the plan of batches, shares and their join, and what is refused."""

import json
import math
import re
import shutil
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.jobs.teacher_cache import SplitBatch, TeacherCacheJob, split_batches
from fairseq_compress.teachers.agreement import Entries
from fairseq_compress.teachers.cache import CacheManifest, TeacherCache, record_dtype
from fairseq_compress.teachers.cache_checksums import data_checksums, dictionary_facts, teacher_checksums
from fairseq_compress.teachers.cache_records import CacheOptions, top_k_records, unread_records
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.sharded import compute_shard
from fairseq_compress.work.windows import WINDOW
from fairseq_compress.work.work_folder import Shard, WorkFolder

VOCABULARY = 12
RECORD = record_dtype(3, VOCABULARY, "float16")
LONGEST = (9, 9)
ALONE = Shard(0, 1)
FACTS = {
    "split": "train", "k": 3, "dtype": "float16", "temperature": 1.0, "precision": "float32", "longest": list(LONGEST),
    "data": {"train source.bin": "aa", "train target.bin": "bb"}, "teachers": ["cc"],
    "dictionaries": {side: dictionary_facts(Dictionary()) | {"entries": VOCABULARY} for side in ("source", "target")},
    "settings": {"source_lang": "en", "target_lang": "cs", "source_truncated_to": None},
}  # fmt: skip


def sizes(sentences: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of sources and targets; some are longer than LONGEST."""
    draw = np.random.default_rng(seed)
    return tuple(draw.integers(1, 11, sentences).astype(np.int32) for _ in range(2))


def made_up(batch: SplitBatch) -> np.ndarray:
    """Records that tell which sentence and which of its tokens they are of."""
    records = unread_records(sum(batch.tokens), RECORD)
    if batch.read:
        places = [place for tokens in batch.tokens for place in range(tokens)]
        records["ids"][:, 0] = np.repeat(batch.indices, batch.tokens)
        records["rest"] = places
    return records


def expected_records(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    parts = []
    for index, (here, there) in enumerate(zip(source, target, strict=True)):
        batch = SplitBatch(0, [index], [int(there)], [0], read=bool(here <= LONGEST[0] and there <= LONGEST[1]))
        parts.append(made_up(batch))
    return np.concatenate(parts)


def make_job(output, sentences=150, records=made_up, window=40, max_tokens=30, seed=0):
    """The job of a split, with records that no teacher made."""
    source, target = sizes(sentences, seed)
    dataset = SimpleNamespace(src_sizes=source, tgt_sizes=target, tgt_dict=range(VOCABULARY))
    facts = {name: FACTS[name] for name in ("split", "data", "dictionaries", "teachers", "settings")}
    job = TeacherCacheJob(output, dataset, facts, None, CacheOptions(top_k=3, max_tokens=max_tokens))
    job.longest, job.window = list(LONGEST), window
    job.compute = lambda batch: records(batch).tobytes()
    return job


def compute(job, shard=ALONE, facts=FACTS):
    work = WorkFolder(job.output, facts, shard)
    compute_shard(job, work, 0)
    return work


def write(output, world_size=1, **options):
    """All shards and the join. Returns the manifest of the finished cache."""
    job = make_job(output, **options)
    for rank in range(world_size):
        work = compute(job, Shard(rank, world_size))
    assert work.finished_by_all()
    manifest = job.join(work.payloads())
    work.remove()
    return manifest


@pytest.fixture
def cache(tmp_path):
    """A small finished cache."""
    write(tmp_path / "train")
    return tmp_path / "train"


def test_a_record_has_34_bytes():
    assert record_dtype(8, 32_000, "float16").itemsize == 34
    assert record_dtype(8, 2**16, "float16")["ids"].base == np.dtype("<u2")
    assert record_dtype(8, 2**16 + 1, "float32").itemsize == 8 * 4 + 9 * 4
    assert record_dtype(12, 12, "float32").itemsize == 12 * 2 + 13 * 4  # the whole vocabulary
    for k in (0, 13):
        with pytest.raises(ConfigError, match=rf"--top-k: must be in \[1, 12\], .* got {k}"):
            record_dtype(k, 12, "float16")
    with pytest.raises(ConfigError, match="--dtype"):
        record_dtype(1, 12, "float64")


@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("chunk_rows", [None, 2])
def test_records_equal_a_loop_in_float64(teachers, temperature, chunk_rows):
    generator = torch.Generator().manual_seed(1)
    logits = [4 * torch.randn(9, VOCABULARY, generator=generator) for _ in range(teachers)]
    rows = torch.tensor([5, 0, 3, 8, 7])
    record = record_dtype(3, VOCABULARY, "float32")
    records = top_k_records(logits, rows, temperature, record, chunk_rows)
    for found, row in zip(records, rows.tolist(), strict=True):
        q = [0.0] * VOCABULARY
        for teacher in logits:
            powers = [math.exp(float(z) / temperature) for z in teacher[row]]
            q = [old + new / sum(powers) / teachers for old, new in zip(q, powers, strict=True)]
        order = sorted(range(VOCABULARY), key=lambda v: -q[v])
        assert found["ids"].tolist() == order[:3]
        np.testing.assert_allclose(found["probabilities"], [q[v] for v in order[:3]], rtol=1e-5)
        np.testing.assert_allclose(found["rest"], sum(q[v] for v in order[3:]), rtol=1e-5)


def test_the_mass_that_is_left_keeps_its_digits():
    """By hand: logits 0 and eleven times -30 leave e^-30 each; 1 - Σ in float32 would give 0 or 6e-8."""
    logits = torch.full((1, VOCABULARY), -30.0)
    logits[0, 4] = 0
    record = top_k_records([logits], torch.tensor([0]), 1.0, record_dtype(3, VOCABULARY, "float32"))[0]
    assert record["ids"][0] == 4
    np.testing.assert_allclose(record["rest"], 9 * math.exp(-30), rtol=1e-5)


def test_the_whole_vocabulary_leaves_nothing():
    logits = torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(0))
    records = top_k_records([logits], torch.arange(4), 1.0, record_dtype(VOCABULARY, VOCABULARY, "float32"))
    assert (records["rest"] == 0).all()
    assert [sorted(ids) for ids in records["ids"].tolist()] == [list(range(VOCABULARY))] * 4
    np.testing.assert_allclose(records["probabilities"].sum(axis=1), 1, rtol=1e-6)


def test_logits_that_are_no_numbers_are_refused():
    logits = torch.zeros(2, VOCABULARY)
    logits[1, 3] = math.nan
    for k in (3, VOCABULARY):
        with pytest.raises(CheckpointError, match="no numbers"):
            top_k_records([logits], torch.arange(2), 1.0, record_dtype(k, VOCABULARY, "float16"))


def test_the_plan_has_every_sentence_once_at_its_place():
    source, target = sizes(150)
    batches = list(split_batches(source, target, LONGEST, max_tokens=30, window=40))
    assert [batch.unit for batch in batches] == list(range(len(batches)))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(150))
    for batch in batches:
        lengths = np.maximum(source, target)[batch.indices]
        assert batch.tokens == target[batch.indices].tolist()
        assert batch.starts == [int(target[:index].sum()) for index in batch.indices]
        assert batch.read == bool((lengths <= 9).all())
        assert len(batch.indices) == 1 or len(lengths) * max(lengths) <= 30
        assert len({index // 40 for index in batch.indices}) == 1  # of one window


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_shares_join_to_the_order_of_the_sentences(world_size, tmp_path):
    meta = write(tmp_path / "train", world_size)
    source, target = sizes(150)
    cache = TeacherCache(tmp_path / "train")
    cache.check_records()
    cache.align(target)
    np.testing.assert_array_equal(
        np.concatenate([cache.records(index) for index in range(150)]), expected_records(source, target)
    )
    assert meta == cache.meta == CacheManifest.read(tmp_path / "train" / "meta.json")
    unread = int(((source > 9) | (target > 9)).sum())
    assert (meta.sentences, meta.tokens, meta.unread) == (150, int(target.sum()), unread)
    assert unread > 10
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["meta.json", "records.bin", "train"]


def test_what_was_written_is_not_made_again(tmp_path):
    write(tmp_path / "whole")
    made: list[int] = []

    def until_ten(batch: SplitBatch) -> np.ndarray:
        if len(made) == 10:
            raise KeyboardInterrupt
        made.append(batch.unit)
        return made_up(batch)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "stopped", records=until_ten)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "records.bin.tmp-999").touch()  # as a kill leaves it that hits a join

    def the_others(batch: SplitBatch) -> np.ndarray:
        assert batch.unit not in made
        return made_up(batch)

    write(tmp_path / "stopped", records=the_others)
    assert len(list((tmp_path / "stopped").iterdir())) == 2
    for name in ("records.bin", "meta.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "foreign"])
def test_bad_shares_are_refused(damage, tmp_path):
    for facts, name in ((FACTS, "train"), (FACTS | {"k": 4}, "other")):
        for rank in range(2):
            compute(make_job(tmp_path / name), Shard(rank, 2), facts).close()
    share = tmp_path / "train.work" / "rank-00001-of-00002.log"
    data = share.read_bytes()
    if damage == "missing":
        share.unlink()
    elif damage == "truncated":
        share.write_bytes(data[:-5])
    elif damage == "altered":
        share.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    else:
        shutil.copy(tmp_path / "other.work" / share.name, share)
    with pytest.raises(DataError, match=share.name):
        make_job(tmp_path / "train").join(WorkFolder(tmp_path / "train", FACTS, Shard(0, 2), join_only=True).payloads())
    assert not list((tmp_path / "train").glob("*"))  # nothing half-joined stays


def test_a_share_of_other_sentences_is_refused(tmp_path):
    """Shares that fit each other but not the plan: the records would be of other tokens."""
    work = compute(make_job(tmp_path / "train", window=WINDOW))
    with pytest.raises(DataError, match=r"unit \d+ must have \d+ bytes, has \d+"):
        make_job(tmp_path / "train", window=WINDOW, seed=1).join(work.payloads())


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Eight times the sentences: the writer may hold more for the table of sizes only, which is made before."""
    peaks = []
    for sentences in (600, 4_800):
        job = make_job(tmp_path / str(sentences), sentences, window=200, max_tokens=900)
        tracemalloc.start()
        work = compute(job)
        job.join(work.payloads())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "4800" / "records.bin").stat().st_size > 300_000
    assert peaks[1] < 1.1 * peaks[0] + 20_000, peaks


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("records.bin", lambda data: data[:-1], "must have .* bytes as meta.json says"),
        ("records.bin", lambda data: data + b"x", "must have .* bytes as meta.json says"),
        ("records.bin", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "altered"),
        ("records.bin", None, "No such file"),
        ("meta.json", None, "no finished cache there"),
        ("meta.json", lambda data: data[:40], "damaged"),
        ("meta.json", lambda data: data.replace(b'"k": 3', b'"k": 4'), "damaged"),
        ("meta.json", lambda data: data.replace(b'"tokens"', b'"token"'), "damaged"),
        ("meta.json", lambda data: data.replace(b'"unread": ', b'"unread": "x", "y": '), "damaged"),
        ("meta.json", lambda data: data.replace(b"cache 1", b"cache 9"), "format must be"),
        ("meta.json", lambda data: b"[1]", "damaged"),
        ("meta.json", lambda data: b"\xff\xfe", "damaged"),
    ],
)
def test_damaged_files_are_refused(name, change, message, cache):
    path = cache / name
    data = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(data))
    with pytest.raises(DataError, match=message) as caught:
        TeacherCache(cache).check_records()
    assert "\n" not in str(caught.value)


def test_what_was_not_the_cache_s_is_refused(cache, tmp_path):
    opened = TeacherCache(cache)
    opened.check_data(FACTS["data"])
    refusals = [
        (lambda: opened.check_data(FACTS["data"] | {"train target.bin": "dd"}), "train target.bin has sha256 dd"),
        (lambda: opened.check_data({"train source.bin": "aa"}), "train target.bin has no such file"),
        (lambda: opened.check_data(FACTS["data"] | {"train1 source.bin": "ee"}), "train1 source.bin has sha256 ee"),
        (lambda: opened.align(np.array([1, 2])), "has 150 sentences .* the data have 2 of 3"),
    ]
    for call, message in refusals:
        with pytest.raises((ConfigError, DataError), match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert str(cache) in str(caught.value)


def fitting(opened):
    """What a student reads that fits the cache."""
    return replace(opened.reading(), longest=(9, 9), unread=0)


def test_whatever_differs_comes_in_one_list(cache):
    opened = TeacherCache(cache)
    student = fitting(opened)
    assert opened.differences(student, 1.0, None, []) == []
    assert opened.differences(student, 1.0, "t.pt", FACTS["teachers"]) == []
    option = f"--teacher-cache {cache}"
    other = Dictionary()
    other.add_symbol("word")
    different = replace(student, entries=(Entries.of(other),) * 2, truncated_to=100, longest=(10, 9))
    expected = [
        rf"{option}: the teacher's en dictionary must equal .*; teacher 12 entries of .*, student 5 entries of .*",
        rf"{option}: the teacher's cs dictionary must equal .*; teacher 12 entries of .*, student 5 entries of .*",
        rf"--truncate-source: .* with the teacher, whole sources \({option}\), got sources cut to 100 tokens",
        rf"--max-source-positions: must be at most 9, got 10: \d+ longer sentences of {option} were not read .*",
        rf"--kd-temperature: must be 1.0, the temperature of {option}, got 2.0",
        rf"--teacher-path t.pt: is not the teacher of {option}: sha256 ee, the cache was made with .*",
    ]
    found = opened.differences(different, 2.0, "t.pt", ["ee"])
    assert len(found) == len(expected)
    for message, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, message), message
    (languages,) = opened.differences(replace(student, languages=("de", "en")), 1.0, None, [])
    assert languages.startswith(f"{option}: the teacher must translate de-en as the student does, it translates ")


def test_where_every_sentence_was_read_any_limit_will_do(cache):
    opened = TeacherCache(cache)
    opened.meta = replace(opened.meta, unread=0)
    assert opened.differences(replace(fitting(opened), longest=(5000, 5000)), 1.0, None, []) == []


def test_checksums_of_data_and_teachers(tmp_path):
    for name in ("train.cs-en.en", "train.cs-en.cs", "train1.en-cs.en", "train1.en-cs.cs"):
        for kind in ("bin", "idx"):
            (tmp_path / f"{name}.{kind}").write_bytes(f"{name} {kind}".encode())
    found = data_checksums(tmp_path, "train", "en", "cs", parts=2)
    assert list(found) == [
        f"{part} {side}.{kind}" for part in ("train", "train1") for side in ("source", "target")
        for kind in ("bin", "idx")
    ]  # fmt: skip
    assert found["train source.idx"] == file_sha256(tmp_path / "train.cs-en.en.idx")  # either order of languages
    assert found["train1 target.bin"] == file_sha256(tmp_path / "train1.en-cs.cs.bin")
    with pytest.raises(DataError, match=r"has no binarized train2\.en-cs"):
        data_checksums(tmp_path, "train", "en", "cs", parts=3)
    first, second = tmp_path / "train.cs-en.en.bin", tmp_path / "train.cs-en.cs.bin"
    assert teacher_checksums(f"{first}:{second}") == teacher_checksums(f"{second}:{first}")
    assert len(teacher_checksums(f"{first}:{first}")) == 2
    with pytest.raises(ConfigError, match="--teacher-path"):
        teacher_checksums(":")
    with pytest.raises(DataError, match="cannot read"):
        teacher_checksums(str(tmp_path / "none.pt"))


def test_meta_json_is_the_same_for_the_same_facts(cache):
    text = (cache / "meta.json").read_text()
    assert json.loads(text)["bytes_per_token"] == RECORD.itemsize == 14
    assert CacheManifest.read(cache / "meta.json").to_json() == text
