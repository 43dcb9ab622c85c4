"""Lexical shortlists: links, counts, selection, files; loops and dictionaries are the oracle."""

import random
from collections import Counter

import numpy as np
import pytest

from fairseq_compress.corpus import lexical_counts
from fairseq_compress.corpus.lexical_counts import LexicalCounts
from fairseq_compress.corpus.word_links import read_links
from fairseq_compress.decoding.shortlist import LEAST, Lists, Shortlist
from fairseq_compress.decoding.shortlist_file import read_shortlist, write_shortlist
from fairseq_compress.errors import DataError
from fairseq_compress.jobs.shortlist import lists_of

SOURCE, TARGET = 30, 400


def corpus(seed, pairs=200):
    draw = random.Random(seed)
    for _ in range(pairs):
        source = [draw.randrange(4, SOURCE) for _ in range(draw.randint(1, 9))]
        target = [min(int(draw.expovariate(0.01)) + 4, TARGET - 1) for _ in range(draw.randint(1, 9))]
        links = [(draw.randrange(len(source)), draw.randrange(len(target))) for _ in range(draw.randint(0, 12))]
        yield np.array(source), np.array(target), np.array(links, np.int64).reshape(-1, 2)


def counted(seed):
    counts = LexicalCounts(SOURCE, TARGET)
    for pair in corpus(seed):
        counts.add(*pair)
    return counts


def by_dictionaries(seed, first, best):
    """F and B(s) with loops."""
    frequency, table = Counter(), {s: Counter() for s in range(SOURCE)}
    for source, target, links in corpus(seed):
        frequency.update(target.tolist())
        for i, j in links.tolist():
            table[source[i]][target[j].item()] += 1
    always = {t for t, _ in sorted(frequency.items(), key=lambda item: (-item[1], item[0]))[:first]}
    ranked = {s: sorted(row, key=lambda t, row=row: (-row[t] / row.total(), t))[:best] for s, row in table.items()}
    return always, {s: set(row) - always for s, row in ranked.items()}


def by_sets(always, lists, sentence, shared, least):
    chosen = set(range(4)) | always | set().union(*(lists[s] for s in sentence)) | (set(sentence) if shared else set())
    wanted = max(least, len(chosen))
    wanted += -wanted % 64
    if wanted >= TARGET:
        return list(range(TARGET))
    for entry in range(TARGET):
        if len(chosen) < wanted:
            chosen.add(entry)
    return sorted(chosen)


@pytest.mark.parametrize("waiting", [1, 50, 1 << 20])
@pytest.mark.parametrize(("first", "best"), [(0, 1), (5, 3), (40, 100), (1000, 2)])
def test_lists_are_those_of_loops(first, best, waiting, monkeypatch):
    monkeypatch.setattr(lexical_counts, "WAITING", waiting)
    always, lists = by_dictionaries(7, first, best)
    found = lists_of(counted(7), first, best)
    assert set(found.always.tolist()) == always
    for s in range(SOURCE):
        of_source = found.entries[found.offsets[s] : found.offsets[s + 1]].tolist()
        assert of_source == sorted(lists[s])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("first", "best", "least"), [(5, 3, LEAST), (60, 100, 64), (40, 20, 200), (5, 3, 1000)])
def test_entries_of_a_sentence_are_those_of_sets(first, best, least, shared):
    lists = by_dictionaries(3, first, best)
    shortlist = Shortlist(lists_of(counted(3), first, best), TARGET, shared, special=3)
    draw, sizes = random.Random(1), set()
    for length in range(1, 60):
        sentence = [*(draw.randrange(4, SOURCE) for _ in range(length)), 2]
        found = shortlist.of(sentence, least)
        assert found.tolist() == by_sets(*lists, sentence, shared, least)
        sizes.add(len(found))
    assert all(size % 64 == 0 or size == TARGET for size in sizes)
    assert len(sizes) > 1 or (first, best) != (60, 100)


def test_links_of_a_line():
    sizes = [(2, 3), (1, 1), (4, 2)]
    found = list(read_links(["0-0 1-2", "", "3-1"], sizes, "links"))
    assert [each.tolist() for each in found] == [[[0, 0], [1, 2]], [], [[3, 1]]]


@pytest.mark.parametrize(
    ("line", "message"),
    [("0-0 2-0", r"links, line 2: links must be in \[0, 2\) and \[0, 3\), the numbers of subwords, got 2-0"),
     ("0-3", r"got 0-3"), ("0-0 1", "links must be as in 0-1, got '1'"), ("0-0-0", "got '0-0-0'"),
     ("0--1", "got '0--1'"), ("a-0", "got 'a-0'"), (f"0-{10**30}", "links must be as in 0-1, got")],
)  # fmt: skip
def test_wrong_links(line, message):
    with pytest.raises(DataError, match=message) as found:
        list(read_links(["0-0", line], [(1, 1), (2, 3)], "links"))
    assert "\n" not in str(found.value)


FACTS = {"first": 5, "best": 3, "links": 9, "source_dictionary": "s", "target_dictionary": "t"}


@pytest.mark.parametrize(("target", "width"), [(TARGET, 2), (1 << 16, 2), ((1 << 16) + 1, 4)])
def test_a_file_gives_what_was_written(target, width, tmp_path):
    lists = lists_of(counted(5), 5, 3)
    lists = Lists(np.append(lists.always, target - 1), *lists[1:])
    header = write_shortlist(tmp_path / "s", lists, source_entries=SOURCE, target_entries=target, **FACTS)
    assert header.width == width
    found = read_shortlist(tmp_path / "s")
    assert found.header == header
    for one, two in zip(found.lists, lists, strict=True):
        np.testing.assert_array_equal(one, two)


def damaged(data):
    line, _, body = data.partition(b"\n")
    yield "truncated", data[:-1], "must have .* bytes behind its first line, has"
    yield "longer", data + b"\0", "must have .* bytes behind its first line, has"
    yield "altered", data[:-1] + bytes([data[-1] ^ 1]), "was altered: its SHA-256"
    yield "no line", body, "is no shortlist of fairseq-compress: its first line must be JSON"
    yield "empty", b"", "is no shortlist"
    later = line.replace(b"shortlist 1", b"shortlist 2")
    yield "version", later + b"\n" + body, "the format must be 'fairseq-compress shortlist 1', got .*shortlist 2"
    yield "sizes", line.replace(b'"width": 2', b'"width": 3') + b"\n" + body, "width: must be one of 2, 4, got 3"
    yield (
        "entries",
        line.replace(b'"target_entries": 400', b'"target_entries": 9') + b"\n" + body,
        "must be in .0, 9.",
    )
    yield "always", line.replace(b'"always": 5', b'"always": 4') + b"\n" + body[2:], "was altered"


def test_damaged_files(tmp_path):
    path = tmp_path / "s"
    write_shortlist(path, lists_of(counted(5), 5, 3), source_entries=SOURCE, target_entries=TARGET, **FACTS)
    for name, data, message in damaged(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(DataError, match=message) as found:
            read_shortlist(path)
        assert "\n" not in str(found.value), name
    with pytest.raises(DataError, match=r"cannot read .*: No such file or directory; fairseq-compress shortlist"):
        read_shortlist(tmp_path / "none")
