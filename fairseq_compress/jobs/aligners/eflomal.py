"""Links of eflomal (Östling and Tiedemann 2016), a Bayesian model with a Markov chain and fertilities.

Each direction gives its own links, and a link that both have counts twice.
"""

import importlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.corpus.word_links import read_links
from fairseq_compress.errors import DataError
from fairseq_compress.extras import explained
from fairseq_compress.jobs.aligners import Ints, Pair
from fairseq_compress.work.files import read_lines


def eflomal_links(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Ints]]:
    """Align all pairs; the text is written to a temporary folder as ids, which eflomal cannot change to lower case."""
    with explained():
        eflomal: Any = importlib.import_module("eflomal")
    with tempfile.TemporaryDirectory() as folder:
        source, target, forward, reverse = (Path(folder) / name for name in ("source", "target", "forward", "reverse"))
        with source.open("w") as one, target.open("w") as two:
            for pair in pairs:
                for stream, ids in zip((one, two), pair, strict=True):
                    stream.write(" ".join(map(str, ids.tolist())) + "\n")
        with source.open(encoding="utf-8") as one, target.open(encoding="utf-8") as two:
            try:
                eflomal.Aligner().align(one, two, links_filename_fwd=str(forward), links_filename_rev=str(reverse))
            except (ValueError, RuntimeError, OSError) as error:
                raise DataError(f"--aligner: eflomal cannot align the text: {error}") from None
        sides = [_links(source, target, path) for path in (forward, reverse)]
        for pair, *links in zip(_pairs(source, target), *sides, strict=True):
            yield pair, np.concatenate(links)


def _pairs(source: Path, target: Path) -> Iterator[Pair]:
    for lines in zip(read_lines(source), read_lines(target), strict=True):
        yield Pair(*(np.array(line.split(), np.int64) for line in lines))


def _links(source: Path, target: Path, path: Path) -> Iterator[Ints]:
    lengths = (pair.sizes for pair in _pairs(source, target))
    return read_links(read_lines(path), lengths, path)
