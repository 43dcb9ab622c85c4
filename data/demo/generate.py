#!/usr/bin/env python3
"""Writes the synthetic English-Czech demo corpus: train, valid and test, .en and .cs.

    python data/demo/generate.py --output-dir DIR --seed 1 --train 12000 --valid 500 --test 500

Needs the standard library only. One seed decides every byte. No sentence of valid or test, in either language, occurs
in train or in the other; every English word of valid and test occurs in train. See README.md beside this file.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo_grammar.sentences import MAX_WORDS, Pair, Sentences

MAX_PAIRS = 1_000_000  # the grammar makes more, but drawing new ones gets slow
# Far more than ever needed, unless train is too small to hold the words of the rest.
MAX_TRIES, MAX_TRIES_PER_PAIR = 5000, 100
FEWEST_MAX_WORDS = 5  # there are few shorter sentences


class CorpusError(Exception):
    """The corpus that was asked for cannot be made; the message is one line."""


def english_words(pair: Pair) -> set[str]:
    """The words of the English side, lower-case, without marks."""
    return {word.strip(",.?").lower() for word in pair.english.split()}


def draw(
    next_pair: Callable[[], Pair], count: int, name: str, seen: set[str], accept: Callable[[Pair], bool]
) -> list[Pair]:
    """``count`` accepted pairs neither side of which is in ``seen``, to which both sides are added.

    Raises: CorpusError when pairs are refused so often that there is no hope.
    """
    pairs: list[Pair] = []
    for _ in range(MAX_TRIES + MAX_TRIES_PER_PAIR * count):
        if len(pairs) == count:
            return pairs
        pair = next_pair()
        if pair.english not in seen and pair.czech not in seen and accept(pair):
            seen.update(pair)
            pairs.append(pair)
    if len(pairs) == count:
        return pairs
    raise CorpusError(f"--{name} {count}: only {len(pairs)} such pairs found; make --train larger or --{name} smaller")


def add_noise(pairs: list[Pair], rate: float, seed: int) -> list[Pair]:
    """Replaces each word, on both sides and with probability ``rate``, by one from anywhere in the same language.

    Crawled corpora are full of wrong translations, and to learn from a teacher that has seen through them is half of
    what distillation is for. Marks at the end of a word and a capital at the start of a sentence stay.
    """
    noise = random.Random(f"{seed} noise")
    words = [[word.strip(",.?") for pair in pairs for word in pair[side].split()] for side in (0, 1)]

    def disturb(sentence: str, vocabulary: list[str]) -> str:
        result = []
        for number, word in enumerate(sentence.split()):
            if noise.random() < rate:
                other = vocabulary[int(noise.random() * len(vocabulary))]
                word = (other[0].upper() + other[1:] if number == 0 else other) + word[len(word.rstrip(",.?")) :]
            result.append(word)
        return " ".join(result)

    return [Pair(disturb(pair[0], words[0]), disturb(pair[1], words[1])) for pair in pairs]


def make_corpus(
    seed: int,
    train: int,
    valid: int,
    test: int,
    noise: float = 0.0,
    max_words: int = MAX_WORDS,
    choice: int | None = None,
) -> dict[str, list[Pair]]:
    """The three parts; ``noise`` is for train alone. Raises: CorpusError."""
    sentences = Sentences(seed, max_words, choice)
    seen: set[str] = set()
    corpus = {"train": draw(sentences.pair, train, "train", seen, lambda pair: True)}
    if noise > 0:
        corpus["train"] = add_noise(corpus["train"], noise, seed)
        seen.update(sentence for pair in corpus["train"] for sentence in pair)
    known = set().union(*map(english_words, corpus["train"]))
    for name, count in (("valid", valid), ("test", test)):
        corpus[name] = draw(sentences.pair, count, name, seen, lambda pair: english_words(pair) <= known)
    return corpus


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes the lines under a temporary name beside the path and renames it: never a half-written file."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(line + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_corpus(corpus: dict[str, list[Pair]], directory: Path) -> None:
    """Writes PART.en and PART.cs for every part. Raises: OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, pairs in corpus.items():
        write_lines(directory / f"{name}.en", (pair.english for pair in pairs))
        write_lines(directory / f"{name}.cs", (pair.czech for pair in pairs))


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PAIRS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_PAIRS}, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 up, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        if 0 <= float(text) < 1:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number from 0 to under 1, got {text!r}")


def _max_words(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not FEWEST_MAX_WORDS <= int(text) <= MAX_WORDS:
        raise argparse.ArgumentTypeError(f"must be a whole number from {FEWEST_MAX_WORDS} to {MAX_WORDS}, got {text!r}")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"generate.py: error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = _Parser(description="Write the synthetic English-Czech demo corpus.", allow_abbrev=False)
    parser.add_argument("--output-dir", type=Path, required=True, help="directory of the six files; made if missing")
    parser.add_argument("--seed", type=_seed, default=1, help="decides every sentence (default: 1)")
    for name, default in (("train", 12000), ("valid", 500), ("test", 500)):
        parser.add_argument(f"--{name}", type=_size, default=default, help=f"pairs in {name} (default: {default})")
    parser.add_argument("--noise", type=_rate, default=0.0, help="share of words of train that are wrong (default: 0)")
    parser.add_argument(
        "--max-words", type=_max_words, default=MAX_WORDS, help=f"of an English sentence (default: {MAX_WORDS})"
    )
    parser.add_argument(
        "--choice", type=_size, help="of how many words each word is chosen, the most frequent that fit (default: all)"
    )
    options = parser.parse_args(arguments)
    try:
        sizes = (options.train, options.valid, options.test)
        corpus = make_corpus(options.seed, *sizes, options.noise, options.max_words, options.choice)
        write_corpus(corpus, options.output_dir)
    except CorpusError as error:
        print(f"generate.py: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"generate.py: error: --output-dir {options.output_dir}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {options.train} + {options.valid} + {options.test} synthetic pairs to {options.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
