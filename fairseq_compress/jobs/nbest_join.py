"""Joining the shares of an n-best run in source order.

Each list carries the checksum of the source line that was decoded. The join reads the source again and compares line by
line: lists that slipped by a line, or a source that changed in between, cannot pass.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

from fairseq_compress.corpus.nbest import (
    Hypothesis,
    NBestList,
    NBestWriter,
    read_sidecar,
    source_checksum,
    untranslated,
    write_sidecar,
)
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, atomic_write, file_sha256, read_lines
from fairseq_compress.work.sharded import Shard, ShardedWork


class Counts(NamedTuple):
    """What was written."""

    sentences: int
    hypotheses: int
    untranslated: int


def join(work: ShardedWork, source: PathLike, output: PathLike, facts: Mapping[str, Any]) -> Counts:
    """Write all lists in source order, and the sidecar.

    Raises:
        DataError: a shard is missing or damaged, a line has no list or two, or a list is of another line than the
            source now has in its place. Nothing is written then.
    """
    digest = sha256()
    lines = read_lines(source, digest)
    left_out = 0
    with atomic_write(output, "wb") as stream:
        writer = NBestWriter(stream)
        for nbest in _in_order(work):
            line = next(lines, None)
            place = f"{os.fspath(source)}, line {nbest.index + 1}"
            if line is None:
                raise DataError(f"{place}: was decoded, but the file ends before it: it changed in between")
            if (found := source_checksum(line)) != nbest.checksum:
                raise DataError(
                    f"{place}: has the checksum {found}, what was decoded as this line had {nbest.checksum}: the file "
                    f"changed in between, or the lists slipped"
                )
            writer.write(nbest)
            left_out += not nbest.translated
        if next(lines, None) is not None:
            raise DataError(f"{os.fspath(source)}: has more lines than the {writer.sentences} that were decoded")
        if digest.hexdigest() != facts["source"]:
            raise DataError(f"{os.fspath(source)}: changed since it was decoded (SHA-256 differs)")
    write_sidecar(output, writer.sentences, writer.hypotheses, writer.sha256, digest.hexdigest(), facts)
    return Counts(writer.sentences, writer.hypotheses, left_out)


def is_complete(output: PathLike, facts: Mapping[str, Any]) -> bool:
    """Whether the output is there already, undamaged and made from the same facts."""
    try:
        sidecar = read_sidecar(output)
        return sidecar["facts"] == facts and sidecar["sha256"] == file_sha256(output)
    except DataError:
        return False


def remove_leftovers(output: PathLike, facts: Mapping[str, Any]) -> None:
    """Remove the work folder of a run that was killed between the last byte of its output and its end."""
    with suppress(DataError):  # of another run, not finished, or just being removed
        work = ShardedWork(output, facts, Shard(0, 1), join_only=True)
        if work.finished_by_all():
            work.remove()


def _in_order(work: ShardedWork) -> Iterator[NBestList]:
    """The lists of all units in source order. Units are batches of one window after the other, so few have to wait."""
    waiting: dict[int, NBestList] = {}
    expected = 0
    for unit, payload in work.payloads():
        for index, checksum, hypotheses in json.loads(payload):
            if index < expected or index in waiting:
                raise DataError(f"{work.folder}: unit {unit} has line {index + 1} a second time")
            best = [Hypothesis(score, text) for score, text in hypotheses]
            waiting[index] = NBestList(index, checksum, best) if best else untranslated(index, checksum)
        while expected in waiting:
            yield waiting.pop(expected)
            expected += 1
    if waiting:
        raise DataError(f"{work.folder}: line {expected + 1} is in no unit")
