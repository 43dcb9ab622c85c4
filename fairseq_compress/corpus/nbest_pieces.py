"""Segmentation of an n-best file of text."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice

from fairseq_compress.corpus.nbest import (
    NBestEntry,
    NBestList,
    NBestManifest,
    NBestWriter,
    read_with_source,
    source_checksum,
)
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import (
    PathLike,
    atomic_write,
    check_distinct,
    check_parallel,
    progress,
    read_lines,
)
from fairseq_compress.work.manifest import sidecar_path

LISTS_AT_ONCE = 1024  # through the segmenter


def encode_nbest(
    segmentation: Segmentation, nbest: PathLike, source: PathLike, pieces: PathLike, output: PathLike
) -> int:
    """Write an n-best file with the subwords of every hypothesis, and return the number of lists; scores stay.

    Args:
        source: the text that was translated.
        pieces: that text, segmented by ``fairseq-compress encode`` with the segmentation of the source.
    """
    check_distinct([*segmentation.paths(), nbest, source, pieces], [output, sidecar_path(output)])
    check_parallel(source, pieces)
    manifest, digest = NBestManifest.of(nbest), hashlib.sha256()
    segmenter = segmentation.open((manifest.facts.get("source_lang"), manifest.facts.get("target_lang")))
    if manifest.facts.get("sentencepiece_model", "") is None:
        raise DataError(f"{os.fspath(nbest)}: must hold text, got subwords (nbest without --sentencepiece-model)")
    lists = progress(read_with_source(nbest, source), manifest.sentences, "encode")
    with atomic_write(output, "wb") as stream:
        writer = NBestWriter(stream)
        encoded = encode_lists(lists, segmenter, segmenter.target)
        for (item, line, texts), expected in zip(encoded, read_lines(pieces, digest), strict=True):
            if line != expected:
                where = f"{os.fspath(pieces)}, line {item.index + 1}"
                raise DataError(
                    f"{where}: must be {line[:60]!r} by {segmenter.path or segmentation.kind}, got {expected[:60]!r}"
                )
            entries = [NBestEntry(old.score, text) for old, text in zip(item.hypotheses, texts, strict=True)]
            writer.write(NBestList(item.index, source_checksum(line), entries))
    languages = {key: manifest.facts[key] for key in ("source_lang", "target_lang") if key in manifest.facts}
    origin = {"nbest_sha256": manifest.sha256, "model_sha256": segmentation.identity()} | languages
    writer.write_sidecar(output, digest.hexdigest(), origin)
    return writer.sentences


def encode_lists(
    lists: Iterable[tuple[NBestList, str]], source: Segmenter | None, target: Segmenter | None
) -> Iterator[tuple[NBestList, str, list[str]]]:
    """Yield each list with the pieces of its source and of its hypotheses; None leaves a side unchanged."""
    remaining = iter(lists)
    while part := list(islice(remaining, LISTS_AT_ONCE)):
        lines: Iterable[str] = [line for _, line in part]
        texts: Iterable[str] = [entry.text for nbest, _ in part for entry in nbest.hypotheses]
        lines = lines if source is None else source.encode(lines)
        texts = iter(texts if target is None else target.encode(texts))
        for (nbest, _), line in zip(part, lines, strict=True):
            yield nbest, line, list(islice(texts, len(nbest.hypotheses)))
