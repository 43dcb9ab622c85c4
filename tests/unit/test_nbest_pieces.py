"""An n-best file of text as one of pieces: each line as the encoder cuts it, bound to the encoded source."""

from dataclasses import replace
from pathlib import Path

import pytest

from fairseq_compress.cli.main import main
from fairseq_compress.corpus import nbest_pieces
from fairseq_compress.corpus.nbest import (
    NBestEntry,
    NBestList,
    NBestManifest,
    NBestWriter,
    read_nbest,
    source_checksum,
)
from fairseq_compress.corpus.nbest_pieces import encode_nbest
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.corpus.segmentation.text_files import encode_file
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.manifest import sidecar_path

SOURCES = [f"Pes číslo {number} běží." for number in range(7)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "text").write_text("\n".join(SOURCES * 4))
    build_vocabulary([folder / "text"], str(folder / "v"), VocabularySettings(size=300))
    return folder / "v.model"


@pytest.fixture
def files(tmp_path: Path, model: Path) -> tuple[Path, Path, Path]:
    """An n-best file, its source, and the pieces of the source."""
    nbest, source, pieces = (tmp_path / name for name in ("nbest", "source", "pieces"))
    source.write_text("".join(f"{line}\n" for line in SOURCES))
    with nbest.open("wb") as stream:
        writer = NBestWriter(stream)
        for index, line in enumerate(SOURCES):
            hypotheses = [NBestEntry(-0.5, f"A dog, {line}"), NBestEntry(-1.25, f"dogs {index}")][: index % 2 + 1]
            writer.write(NBestList(index, source_checksum(line), hypotheses))
    writer.write_sidecar(nbest, file_sha256(source), {})
    encode_file(SentencePiece(model), source, pieces)
    return nbest, source, pieces


def test_every_line_is_cut_as_the_encoder_cuts_it(
    tmp_path: Path, model: Path, files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbest_pieces, "LISTS_AT_ONCE", 3)
    output = tmp_path / "out"
    assert encode_nbest(Segmentation(model), *files, output) == len(SOURCES)
    encode = SentencePiece(model).encode
    for text, found in zip(read_nbest(files[0]), read_nbest(output, files[2]), strict=True):
        assert [hypothesis.score for hypothesis in found.hypotheses] == [h.score for h in text.hypotheses]
        assert [hypothesis.text for hypothesis in found.hypotheses] == list(encode(h.text for h in text.hypotheses))


def test_pieces_of_another_text_are_refused(tmp_path: Path, model: Path, files: tuple[Path, Path, Path]) -> None:
    lines = files[2].read_text().splitlines()
    files[2].write_text("".join(f"{line}\n" for line in [*lines[1:], lines[0]]))
    with pytest.raises(DataError, match=r"pieces, line 1: must be '▁P.* got '▁P"):
        encode_nbest(Segmentation(model), *files, tmp_path / "out")
    files[2].write_text("".join(f"{line}\n" for line in lines[1:]))
    with pytest.raises(DataError, match="line counts differ"):
        encode_nbest(Segmentation(model), *files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verb(
    tmp_path: Path, model: Path, files: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--sentencepiece-model", "--nbest", "--source", "--pieces", "--output")
    values = (model, *files, tmp_path / "out")
    arguments = [str(item) for pair in zip(names, values, strict=True) for item in pair]
    assert main(["kd-data", "encode", *arguments]) == 0
    assert capsys.readouterr().err.endswith("out: 7 lists\n")


def test_the_languages_stay(files: tuple[Path, Path, Path], model: Path, tmp_path: Path) -> None:
    nbest, source, pieces = files
    facts = {"source_lang": "cs", "target_lang": "zh_CN", "beam": 4}
    replace(NBestManifest.of(nbest), facts=facts).write(sidecar_path(nbest))
    encode_nbest(Segmentation(model), nbest, source, pieces, tmp_path / "encoded")
    found = NBestManifest.of(tmp_path / "encoded").facts
    assert (found["source_lang"], found["target_lang"]) == ("cs", "zh_CN")
    assert "beam" not in found
