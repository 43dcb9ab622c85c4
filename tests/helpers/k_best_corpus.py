"""A binarized corpus whose targets are the best of several hypotheses, for the tests of K-best training."""

import random
import shutil
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

from fairseq_compress.corpus.nbest import NBestEntry, NBestList, NBestWriter, source_checksum
from fairseq_compress.work.files import file_sha256
from tests.conftest import write_pair

LINES = 120  # of the train part of the fixture data_bin


def make_lists(folder: Path) -> tuple[list[str], list[NBestList]]:
    """Sources of ``data_bin`` and 1 to 4 hypotheses of each; the first is its target, others have unknown words."""
    write_pair(folder / "train", LINES, 0)
    sources, targets = ((folder / f"train.{language}").read_text().splitlines() for language in ("en", "cs"))
    draw, lists = random.Random(7), []
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        texts = [target]
        for _ in range(draw.randrange(4)):
            texts.append(" ".join(f"z{draw.randrange(24)}" for _ in range(draw.randint(1, 11))))
        scores = sorted((round(-2 * draw.random(), 6) for _ in texts), reverse=True)
        hypotheses = [NBestEntry(*pair) for pair in zip(scores, texts, strict=True)]
        lists.append(NBestList(index, source_checksum(source), hypotheses))
    return sources, lists


def write_nbest(path: Path, sources: list[str], lists: list[NBestList]) -> Path:
    """The n-best file with its sidecar; the sources beside it, as PATH.src."""
    text = Path(f"{path}.src")
    text.write_text("".join(f"{line}\n" for line in sources))
    with open(path, "wb") as stream:
        writer = NBestWriter(stream)
        for item in lists:
            writer.write(item)
    writer.write_sidecar(path, file_sha256(text), {})
    return path


def copy_data(data_bin: Path, folder: Path) -> Path:
    """A folder of the train and valid parts of ``data_bin`` to write into."""
    folder.mkdir()
    for path in data_bin.iterdir():
        if path.name.startswith(("train.", "valid.", "dict.")):
            shutil.copy(path, folder)
    return folder


def binarize_lines(prefix: Path, lines: list[str], dictionary: Dictionary) -> None:
    """PREFIX.bin and PREFIX.idx, as fairseq-preprocess writes them."""
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for line in lines:
        builder.add_item(dictionary.encode_line(line, add_if_not_exist=False))
    builder.finalize(f"{prefix}.idx")
