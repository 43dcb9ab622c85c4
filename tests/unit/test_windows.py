"""Batches: within their limits, nothing lost, the same for any number of processes; and their progress."""

import io
import random

import pytest

from fairseq_compress.errors import ConfigError
from fairseq_compress.work import progress as work_progress
from fairseq_compress.work.progress import WorkProgress
from fairseq_compress.work.windows import cut_batches, iterate_batches


def test_by_hand():
    # longest first: 7 (room 12 // 7 = 1), 5, 5 (room 2), 4, 3, 1 (room 3); of equal lengths the first comes first
    assert cut_batches([5, 3, 7, 5, 1, 4], max_tokens=12) == [[2], [0, 3], [5, 1, 4]]
    assert cut_batches([5, 3, 7, 5, 1, 4], max_tokens=12, max_sentences=2) == [[2], [0, 3], [5, 1], [4]]
    assert cut_batches([], max_tokens=12) == []
    assert cut_batches([0, 0], max_tokens=1) == [[0], [1]]  # an empty one takes a token of room


@pytest.mark.parametrize("max_sentences", [None, 6])
def test_limits_hold_and_nothing_is_lost(max_sentences):
    draw = random.Random(3)
    lengths = [draw.randint(0, 50) for _ in range(500)]
    batches = cut_batches(lengths, 40, max_sentences)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        longest = lengths[batch[0]]
        assert len(batch) == 1 or len(batch) * longest <= 40  # longer than the limit: alone
        assert max_sentences is None or len(batch) <= max_sentences
        if following:
            assert longest >= lengths[following[0]]
            assert (len(batch) + 1) * longest > 40 or len(batch) == max_sentences  # full


def test_windows_are_independent_of_what_follows():
    items = ["x" * length for length in (3, 1, 2, 9, 9, 4, 5)]
    batches = list(iterate_batches(items, len, max_tokens=6, window=3))
    assert [batch.indices for batch in batches] == [[0, 2], [1], [3], [4], [5], [6]]
    assert [batch.unit for batch in batches] == list(range(6))
    assert all(batch.items == [items[index] for index in batch.indices] for batch in batches)
    assert list(iterate_batches(items[:3], len, max_tokens=6, window=3)) == batches[:2]


def test_one_window_in_memory():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield "x"

    batches = iterate_batches(endless(), len, max_tokens=2, window=10)
    next(batches)
    assert len(read) == 10


@pytest.mark.parametrize(("option", "limits"), [
    ("--max-tokens", {"max_tokens": 0}), ("--max-sentences", {"max_tokens": 5, "max_sentences": 0}),
    ("--window", {"max_tokens": 5, "window": -1}),
])  # fmt: skip
def test_limits_below_one(option, limits):
    with pytest.raises(ConfigError, match=f"{option}: must be at least 1"):
        next(iterate_batches(["a"], len, **limits))


def test_progress_in_lines(monkeypatch):
    now = 100.0
    monkeypatch.setattr(work_progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = WorkProgress(100, "nbest", resumed=40, stream=stream)
    progress.add(1)
    now += 30
    progress.add(14)  # 15 in 30 s: 0.5 a second, 45 left; what was there does not count
    now += 3
    progress.add(45)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "nbest: resumed at 40 of 100 sentences",
        "nbest: 55 of 100 sentences, 0.5 sentences/s, 0:01:30 left",
        "nbest: 100 of 100 sentences, 1.8 sentences/s",
    ]


def test_progress_as_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = WorkProgress(10, "nbest", resumed=4, stream=stream)
    progress.add(6)
    progress.close()
    assert "10/10" in stream.getvalue()
