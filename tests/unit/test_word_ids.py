"""Words of a dictionary, and the warning of text that was not cut into them."""

import numpy as np
import torch
from fairseq.data import Dictionary

from fairseq_compress.corpus.vocabulary_match import warn_of_unknown
from fairseq_compress.teachers.dictionaries import count_unknown, word_ids


def dictionary():
    entries = Dictionary()
    for word in "abc":
        entries.add_symbol(word)
    return entries


def test_ids():
    entries = dictionary()
    assert word_ids("a x c", entries).tolist() == [4, 3, 6, 2]
    assert word_ids("", entries).tolist() == [2]


def test_unknown_tokens_of_a_data_set():
    entries = dictionary()
    sentences = [torch.from_numpy(word_ids(line, entries)) for line in ("a b", "x y a", "", "b x")]
    assert count_unknown(sentences, entries) == (3, 7)
    many = [np.array([3, 2])] * 50 + [np.array([4, 2])] * 50
    assert count_unknown(many, entries, most=10) == (5, 10)
    assert count_unknown([], entries) == (0, 0)


def test_the_warning(caplog):
    warn_of_unknown("text", 5, 100)
    warn_of_unknown("text", 0, 0)
    assert caplog.text == ""
    warn_of_unknown("text", 1234, 2000)
    assert "text: 61.7% of its 2,000 words are unknown to the model (<unk>)" in caplog.text
    assert "--sentencepiece-model" in caplog.text
