"""Byte-pair encoding by loops, and files of merges."""

from collections import Counter
from itertools import pairwise

END_OF_WORD = "</w>"


def by_loop(symbols, ranks):
    """All occurrences of the pair of the lowest rank, from left to right, until there is none."""
    word = list(symbols)
    while found := {pair for pair in pairwise(word) if pair in ranks}:
        best = min(found, key=ranks.__getitem__)
        place, merged_word = 0, []
        while place < len(word):
            both = tuple(word[place : place + 2]) == best
            merged_word.append("".join(word[place : place + 1 + both]))
            place += 1 + both
        word = merged_word
    return word


def learned(lines, count, apart=False):
    """The merges of the most frequent pairs, by a loop."""
    words = Counter(word for line in lines for word in line.split())
    ends = [END_OF_WORD] if apart else []
    cut = {word: [*word[:-1], word[-1], *ends] if apart else [*word[:-1], word[-1] + END_OF_WORD] for word in words}
    merges = []
    for _ in range(count):
        pairs = Counter()
        for word, parts in cut.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        cut = {word: by_loop(parts, {best: 0}) for word, parts in cut.items()}
    return merges


def write_codes(path, merges, header="#version: 0.2\n", counts=False):
    path.write_text(header + "".join(f"{one} {two}{' 7' * counts}\n" for one, two in merges), encoding="utf-8")
    return path


def encode_by_loop(line, merges):
    """The subwords of a line with ``@@``."""
    ranks, words = {pair: rank for rank, pair in enumerate(merges)}, []
    for word in line.split():
        parts = by_loop([*word[:-1], word[-1] + END_OF_WORD], ranks)
        words.append("@@ ".join(parts).removesuffix(END_OF_WORD))
    return " ".join(words)
