"""What is timed of an exported model: its own time, on an even sample of the lines."""

import time
from typing import Any

import pytest

from fairseq_compress import runtimes
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation import timing
from fairseq_compress.evaluation.timing import Timings, check_timings, evenly
from fairseq_compress.runtimes.opened import OpenedModel

SLOW, FAST = 0.2, 0.01


class SlowSegmenter:
    clean = staticmethod(str)

    def encode(self, texts):
        time.sleep(SLOW)
        return iter(texts)

    def decode(self, lines):
        return iter(lines)


class Model:
    longest = 50

    def __init__(self) -> None:
        self.calls: list[list[list[str]]] = []

    def translate(self, sentences):
        self.calls.append(sentences)
        time.sleep(FAST)
        return [[Hypothesis(-1.0, [piece.upper() for piece in sentence])] for sentence in sentences]


def test_segmentation_is_not_timed(monkeypatch):
    model, opened = Model(), []

    def open_model(path, options):
        opened.append(path)
        segmenter: Any = SlowSegmenter()
        return OpenedModel(model, SearchOptions(), ("en", "cs"), segmenter, (), {}, {})

    monkeypatch.setattr(runtimes, "open", open_model)
    lines = ["a b", "", "c", " ".join("ab" * 35)]
    translated, timings = timing.translate_and_time("model", lines, 3)
    assert opened == ["model"]
    assert translated == ["A B", "", "C", lines[3].upper()]
    assert (timings.sentences, len(timings.seconds)) == (4, 3)
    assert all(FAST <= value < SLOW for value in timings.seconds)
    assert model.calls[1] == model.calls[2] == model.calls[3]
    assert [len(sentence) for sentence in model.calls[1]] == [1, 2, *map(len, model.calls[0][2:])]  # by length


def test_a_sample_is_even_and_has_both_ends():
    assert evenly(range(5), 5) == evenly(range(5), 9) == [0, 1, 2, 3, 4]
    assert evenly(range(20), 5) == [0, 4, 9, 14, 19]
    assert evenly([], 4) == []


def test_timings_are_printed_and_three_at_least():
    assert Timings(4, [0.5, 0.25, 1]).lines() == ["# sentences: 4", "# seconds: 0.5000 0.2500 1.0000"]
    check_timings("--runs", 3)
    with pytest.raises(ConfigError, match=r"--runs: must be at least 3 timings, got 2"):
        check_timings("--runs", 2)
