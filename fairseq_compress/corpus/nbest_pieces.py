"""An n-best file of text as one of pieces: cut by the vocabulary of a student, as its other training text is."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice

from fairseq_compress.corpus.nbest import (
    Hypothesis,
    NBestList,
    NBestWriter,
    read_sidecar,
    read_with_source,
    sidecar_path,
    source_checksum,
    write_sidecar,
)
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import (
    PathLike,
    atomic_write,
    check_distinct,
    check_parallel,
    file_sha256,
    progress,
    read_lines,
)

LISTS_AT_ONCE = 1024


def encode_nbest(model: PathLike, nbest: PathLike, source: PathLike, pieces: PathLike, output: PathLike) -> int:
    """Write an n-best file with the pieces of every hypothesis, bound to the pieces of its source; scores stay.

    Args:
        model: sentencepiece model.
        source: text that the lists of ``nbest`` are of.
        pieces: that text as ``fairseq-compress encode`` cut it with ``model``.

    Returns:
        the number of lists.

    Raises:
        ConfigError: the output is also an input.
        DataError: a file is missing or damaged, the lists are of another text, or the pieces are of another text or
            model (the first line that is off is named).
    """
    check_distinct([model, nbest, source, pieces], [output, sidecar_path(output)])
    check_parallel(source, pieces)
    segmenter, facts, digest = Segmenter(model), read_sidecar(nbest), hashlib.sha256()
    lists = progress(read_with_source(nbest, source), facts["sentences"], "encode")
    with atomic_write(output, "wb") as stream:
        writer = NBestWriter(stream)
        encoded = _encode(lists, segmenter)
        for (pieces_of_source, nbest_list), line in zip(encoded, read_lines(pieces, digest), strict=True):
            if pieces_of_source != line:
                where = f"{os.fspath(pieces)}, line {nbest_list.index + 1}"
                raise DataError(f"{where}: must be {pieces_of_source[:60]!r} by {os.fspath(model)}, got {line[:60]!r}")
            writer.write(nbest_list)
    languages = {key: facts["facts"][key] for key in ("source_lang", "target_lang") if key in facts["facts"]}
    origin = {"nbest_sha256": facts["sha256"], "model_sha256": file_sha256(model)} | languages
    write_sidecar(output, writer.sentences, writer.hypotheses, writer.sha256, digest.hexdigest(), origin)
    return writer.sentences


def _encode(lists: Iterable[tuple[NBestList, str]], segmenter: Segmenter) -> Iterator[tuple[str, NBestList]]:
    """The pieces of each source, and its list in pieces."""
    remaining = iter(lists)
    while part := list(islice(remaining, LISTS_AT_ONCE)):
        texts = (text for nbest, line in part for text in (line, *(found.text for found in nbest.hypotheses)))
        encoded = segmenter.encode(texts)
        for nbest, _ in part:
            source = next(encoded)
            hypotheses = [Hypothesis(found.score, next(encoded)) for found in nbest.hypotheses]
            yield source, NBestList(nbest.index, source_checksum(source), hypotheses)
