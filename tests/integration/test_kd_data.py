"""``fairseq-compress kd-data``: the folder is what its steps make, called one after the other."""

from pathlib import Path

import pytest

from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import NBestEntry, NBestList, NBestWriter, source_checksum
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.corpus.segmentation.text_files import encode_file
from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary
from fairseq_compress.work.files import file_sha256
from tests.conftest import run_command

SOURCES = [f"The dog number {number} runs." for number in range(9)]
REFERENCES = [f"Pes číslo {number} běží." for number in range(9)]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary, a binarized corpus, and an n-best file of text."""
    folder = tmp_path_factory.mktemp("kd-data")
    for language, lines in (("en", SOURCES), ("cs", REFERENCES)):
        (folder / f"train.{language}").write_text("".join(f"{line}\n" for line in lines))
    build_vocabulary([folder / "train.en", folder / "train.cs"], str(folder / "v"), VocabularySettings(size=320))
    for language in ("en", "cs"):
        encode_file(SentencePiece(folder / "v.model"), folder / f"train.{language}", folder / f"pieces.{language}")
    run_command(
        "fairseq-preprocess", "-s", "en", "-t", "cs", "--trainpref", folder / "pieces", "--validpref",
        folder / "pieces", "--srcdict", folder / "v.dict.txt", "--joined-dictionary", "--destdir", folder / "bin",
    )  # fmt: skip
    with (folder / "nbest").open("wb") as stream:
        writer = NBestWriter(stream)
        for index, line in enumerate(SOURCES):
            texts = [f"Pes {index} utíká.", REFERENCES[index], f"Psi {index}"][: index % 3 + 1]
            entries = [NBestEntry(-0.5 - place, text) for place, text in enumerate(texts)]
            writer.write(NBestList(index, source_checksum(line), entries))
    facts = {"sentencepiece_model": file_sha256(folder / "v.model"), "source_lang": "en", "target_lang": "cs"}
    writer.write_sidecar(folder / "nbest", file_sha256(folder / "train.en"), facts)
    return folder


def by_steps(corpus: Path, folder: Path, *options: object) -> Path:
    """The folder of the steps, called alone."""
    folder.mkdir()
    model = ("--sentencepiece-model", corpus / "v.model")
    encode = ("--nbest", corpus / "nbest", "--source", corpus / "train.en", "--pieces", corpus / "pieces.en")
    assert call("kd-data", "encode", *encode, *model, "--output", folder / "nbest") == 0
    outputs = ("--output-source", folder / "train.en", "--output-target", folder / "train.cs")
    if "k-best" in options:
        outputs += ("--output-nbest", folder / "chosen")
    select = ("--nbest", folder / "nbest", "--source", corpus / "pieces.en")
    assert call("kd-data", "select", *select, *model, *outputs, *options) == 0
    run_command(
        "fairseq-preprocess", "-s", "en", "-t", "cs", "--trainpref", folder / "train", "--validpref",
        corpus / "pieces", "--srcdict", corpus / "v.dict.txt", "--joined-dictionary", "--destdir", folder / "bin",
    )  # fmt: skip
    if "k-best" in options:
        binarize = ("--nbest", folder / "chosen", "--data", folder / "bin", "--source", folder / "train.en")
        assert call("kd-data", "binarize", *binarize) == 0
    return folder / "bin"


@pytest.mark.parametrize("mode", ["best", "k-best", "interpolate"])
def test_all_steps_in_one_call(mode: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--mode", mode]
    if mode == "interpolate":
        options += ["--reference", str(corpus / "train.cs"), "--metric", "chrf"]
    files = ("--nbest", corpus / "nbest", "--source", corpus / "train.en", "--sentencepiece-model", corpus / "v.model")
    output = tmp_path / "kd"
    command = ("kd-data", *files, "--data", corpus / "bin", "--output", output, *options)
    assert call(*command) == 0
    expected = by_steps(corpus, tmp_path / "steps", *options)
    names = {path.name for path in expected.iterdir()}
    assert {path.name for path in output.iterdir()} == names
    for name in names - {"preprocess.log"}:
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name
    assert ("train.en-cs.kbest.bin" in names) == (mode == "k-best")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kd", "kd.steps", "steps"]
    capsys.readouterr()
    assert call(*command) == 1
    assert capsys.readouterr().err == (
        f"fairseq-compress kd-data: error: --output: {output} exists; choose another name or remove it\n"
    )


def test_what_does_not_fit_is_refused_at_once(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--nbest", corpus / "nbest", "--source", corpus / "train.en", "--sentencepiece-model", corpus / "v.model")
    wrong = ("--mode", "interpolate", "--drop-worst", 0.1)
    assert call("kd-data", *files, "--data", corpus / "bin", "--output", tmp_path / "kd", *wrong) == 1
    assert capsys.readouterr().err == (
        "fairseq-compress kd-data: error: --reverse-checkpoint: must be given with --drop-worst above 0, and not "
        "without; --reference: must be given with --mode interpolate, and not without\n"
    )
    assert list(tmp_path.iterdir()) == []
