"""Words to the entries of a dictionary."""

from typing import Any

import numpy as np
from fairseq.data import Dictionary


def word_ids(line: str, dictionary: Dictionary) -> np.ndarray:
    """Ids of the words of a line and of the end of the sentence, as int64.

    What ``Dictionary.encode_line(line, add_if_not_exist=False)`` gives, ten times as fast; an unknown word becomes
    the entry for unknown words.
    """
    indices, unknown = dictionary.indices, dictionary.unk()
    ids = [indices.get(word, unknown) for word in line.split()]
    return np.array([*ids, dictionary.eos()], dtype=np.int64)


def count_unknown(sentences: Any, dictionary: Dictionary, most: int = 10_000) -> tuple[int, int]:
    """How many of the tokens of a data set are unknown, and how many there are; of ``most`` sentences all over it."""
    step = max(1, len(sentences) // most)
    sample = [sentences[index] for index in range(0, len(sentences), step)]
    unknown = sum(int((sentence == dictionary.unk()).sum()) for sentence in sample)
    return unknown, sum(len(sentence) - 1 for sentence in sample)
