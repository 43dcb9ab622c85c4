"""``fairseq-compress kd-data score`` against fairseq's own forced decoding, and its restarts."""

import json
import math
import random
import re
import shutil
from pathlib import Path

import pytest
from fairseq.data import Dictionary

from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import NBestEntry, NBestList, read_nbest, source_checksum, untranslated
from fairseq_compress.corpus.nbest_scores import ScoreReader
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.jobs import reverse_scores
from fairseq_compress.teachers import loading
from tests.conftest import PLUGIN, TINY, run_command
from tests.helpers.k_best_corpus import binarize_lines, write_nbest

BATCHES = ["--max-tokens", "60", "--window", "50"]


class Reverse:
    """A model from the hypotheses' language to the sources', trained for two updates, and an n-best file."""

    def __init__(self, folder: Path, data_bin: Path, train_arguments: list[str]) -> None:
        self.folder = folder
        options = [*train_arguments, *TINY, "--arch", "transformer_small", "-s", "cs", "-t", "en"]
        run_command("fairseq-train", *options, "--lr", "0.05", "--max-update", 10, "--save-dir", folder,
                    "--save-interval-updates", 10)  # fmt: skip
        (self.checkpoint,) = folder.glob("checkpoint_*_10.pt")
        self.data_bin = data_bin
        draw, sources, lists = random.Random(2), [], []
        for index in range(40):
            source = " ".join(f"a{draw.randrange(24)}" for _ in range(draw.randint(1, 9))) if index != 7 else ""
            texts = [" ".join(f"z{draw.randrange(24)}" for _ in range(draw.randint(1, 9))) for _ in range(4)]
            hypotheses = [NBestEntry(-float(place), text) for place, text in enumerate(texts[: draw.randint(1, 4)])]
            sources.append(source)
            lists.append(NBestList(index, source_checksum(source), hypotheses))
        lists[20] = untranslated(20, lists[20].checksum)
        self.sources, self.lists = sources, lists
        self.nbest = write_nbest(folder / "n", sources, lists)

    def arguments(self, output: Path, *options: object, checkpoint: object = None) -> list[str]:
        files = ["--nbest", self.nbest, "--source", f"{self.nbest}.src", "--output", output, *BATCHES]
        model = ["--checkpoint", checkpoint or self.checkpoint, "--data", self.data_bin, "--device", "cpu"]
        return ["kd-data", "score", *map(str, [*files, *model, *options])]

    def score(self, output: Path, *options: object, checkpoint: object = None) -> int:
        return main(self.arguments(output, *options, checkpoint=checkpoint))

    def read(self, output: Path) -> list[list[float]]:
        reader = ScoreReader(output, self.nbest)
        scores = [reader.take(item) for item in read_nbest(self.nbest)]
        reader.finish()
        return scores


@pytest.fixture(scope="module")
def reverse(data_bin: Path, train_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Reverse:
    return Reverse(tmp_path_factory.mktemp("reverse"), data_bin, train_arguments)


@pytest.fixture(scope="module")
def scores(reverse: Reverse) -> Path:
    output = reverse.folder / "scores"
    assert reverse.score(output) == 0
    return output


def test_scores_are_those_of_fairseq(reverse: Reverse, scores: Path, tmp_path: Path) -> None:
    pairs = [(item.index, place) for item in reverse.lists if item.translated for place in range(len(item.hypotheses))]
    dictionary = Dictionary.load(str(reverse.data_bin / "dict.en.txt"))
    for language, lines in (
        ("cs", [reverse.lists[index].hypotheses[place].text for index, place in pairs]),
        ("en", [reverse.sources[index] for index, _ in pairs]),
    ):
        binarize_lines(tmp_path / f"test.cs-en.{language}", lines, dictionary)
        shutil.copy(reverse.data_bin / f"dict.{language}.txt", tmp_path)
    log = run_command(
        "fairseq-generate", tmp_path, "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "cs", "-t", "en",
        "--cpu", "--path", reverse.checkpoint, "--score-reference", "--max-tokens", 300,
    ).stdout  # fmt: skip
    expected = {int(number): float(score) for number, score in re.findall(r"^H-(\d+)\t(\S+)", log, re.MULTILINE)}
    assert len(expected) == len(pairs)
    found = reverse.read(scores)
    for number, (index, place) in enumerate(pairs):
        assert found[index][place] == pytest.approx(expected[number] * math.log(2), abs=1e-4)
    assert found[20] == [-math.inf]
    assert len({score for of_list in found for score in of_list}) > len(pairs) / 2


def test_facts_and_an_output_that_is_there(reverse: Reverse, scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(Path(f"{scores}.json").read_text())
    assert facts["records"] == sum(len(item.hypotheses) for item in reverse.lists)
    assert facts["facts"]["max_tokens"] == 60
    assert not Path(f"{scores}.work").exists()
    before = scores.stat().st_mtime_ns
    assert reverse.score(scores) == 0
    assert "up to date; nothing to do" in capsys.readouterr().err
    assert scores.stat().st_mtime_ns == before


def test_two_processes_and_other_batches(
    reverse: Reverse, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shares of two ranks join to the bytes of one process; other batches round otherwise at most."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, message in (("1", "shard 1 of 2 is done; the process that finishes last joins all"), ("0", "scores, 1")):
        monkeypatch.setenv("RANK", rank)
        capsys.readouterr()
        assert reverse.score(tmp_path / "two") == 0
        assert "without a score" in capsys.readouterr().err if rank == "0" else message in capsys.readouterr().err
    assert (tmp_path / "two").read_bytes() == scores.read_bytes()
    assert Path(f"{tmp_path / 'two'}.json").read_bytes() == Path(f"{scores}.json").read_bytes()
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert reverse.score(tmp_path / "other", "--max-sentences", 3, "--window", 7) == 0
    for one, other in zip(reverse.read(scores), reverse.read(tmp_path / "other"), strict=True):
        assert one == pytest.approx(other, abs=2e-6)


def test_a_run_that_stopped_goes_on(
    reverse: Reverse, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    original = reverse_scores.record_scores

    def stop_after_three(models, records):
        calls.append(len(records))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(models, records)

    monkeypatch.setattr(reverse_scores, "record_scores", stop_after_three)
    assert reverse.score(tmp_path / "s") == 130
    assert not (tmp_path / "s").exists()
    assert reverse.score(tmp_path / "s", "--precision", "bfloat16") == 1
    assert "belongs to another run" in capsys.readouterr().err
    assert reverse.score(tmp_path / "s", "--join-only") == 1
    assert "has not finished" in capsys.readouterr().err
    assert reverse.score(tmp_path / "s") == 0
    assert (tmp_path / "s").read_bytes() == scores.read_bytes()
    done = calls.copy()
    assert reverse.score(tmp_path / "whole", "--max-sentences", 1000) == 0
    assert sum(done) - done[3] == sum(calls[len(done) :])  # no batch was scored twice, but the one that was stopped


def test_text_is_cut_into_pieces(
    reverse: Reverse, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An n-best file of text, cut by the sentencepiece model, has the scores of the same file in pieces."""
    (tmp_path / "text").write_text("ab ba\n" * 3)
    prefix = tmp_path / "v"
    vocabulary = ("--input", tmp_path / "text", "--vocab-size", 264, "--output", prefix)
    assert main(["train-vocabulary", *map(str, vocabulary)]) == 0
    segmenter = SentencePiece(f"{prefix}.model")
    lists = [
        item._replace(
            checksum=source_checksum(next(segmenter.encode([source]))),
            hypotheses=[NBestEntry(found.score, next(segmenter.encode([found.text]))) for found in item.hypotheses],
        )
        for source, item in zip(reverse.sources, reverse.lists, strict=True)
    ]
    monkeypatch.setattr(reverse_scores, "MOST_UNKNOWN_WORDS", 1.0)  # the model knows no such pieces
    pieces = write_nbest(tmp_path / "pieces", list(segmenter.encode(reverse.sources)), lists)
    options = ("--sentencepiece-model", f"{prefix}.model")
    assert reverse.score(tmp_path / "one", *options) == 1
    assert f"{prefix}.model does not belong to its source dictionary" in capsys.readouterr().err
    monkeypatch.setattr(loading, "mismatch", lambda *arguments: None)
    assert reverse.score(tmp_path / "one", *options) == 0
    assert reverse.score(tmp_path / "two", "--nbest", pieces, "--source", f"{pieces}.src") == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() != scores.read_bytes()


def test_processes_of_its_own(reverse: Reverse, scores: Path, tmp_path: Path) -> None:
    """The command gives the same bytes with another number of processes and of threads."""
    for processes, threads in ((1, "1"), (2, "2")):
        arguments = reverse.arguments(tmp_path / f"s{processes}", "--processes", processes)
        run_command("fairseq-compress", *arguments, OMP_NUM_THREADS=threads)
    assert (tmp_path / "s1").read_bytes() == (tmp_path / "s2").read_bytes()
    for one, other in zip(reverse.read(scores), reverse.read(tmp_path / "s1"), strict=True):
        assert one == pytest.approx(other, abs=2e-6)


def test_an_ensemble_of_one_model_twice(reverse: Reverse, scores: Path, tmp_path: Path) -> None:
    assert reverse.score(tmp_path / "s", checkpoint=f"{reverse.checkpoint}:{reverse.checkpoint}") == 0
    for one, other in zip(reverse.read(scores), reverse.read(tmp_path / "s"), strict=True):
        assert one == pytest.approx(other, abs=2e-6)


def test_what_is_refused(reverse: Reverse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = [item._replace(hypotheses=[NBestEntry(-1.0, "text")]) for item in reverse.lists]
    text = write_nbest(tmp_path / "text", reverse.sources, strange)
    for options, message in [
        (["--nbest", text], "40 of 40 words are not in the model's dictionary"),
        (["--max-tokens", 0], "--max-tokens: must be in [1, inf), got 0"),
        (["--source", reverse.nbest], "is of another source line than"),
        (["--output", reverse.nbest], "is also an input"),
        (["--checkpoint", tmp_path / "none.pt"], "no such file"),
    ]:
        assert reverse.score(tmp_path / "s", *options) == 1
        assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"text", "text.json", "text.src"}  # nothing is in the way
