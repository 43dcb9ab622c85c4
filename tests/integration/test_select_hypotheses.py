"""``fairseq-compress kd-data select`` on files, against a selection written down line by line."""

import json
import math
import random
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import (
    NBestEntry,
    NBestList,
    NBestWriter,
    read_nbest,
    source_checksum,
    untranslated,
)
from fairseq_compress.corpus.nbest_scores import ScoresManifest, format_scores
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.manifest import sidecar_path

SENTENCES = 400
OUTPUTS = ("out.src", "out.tgt", "out.nbest", "out.nbest.json", "report.json")


class Corpus:
    """Random sources, some empty or repeated; lists, some untranslated, with empty and repeated hypotheses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        draw = random.Random(11)
        self.sources = [f"s{draw.randrange(250)}" if draw.random() > 0.03 else " " for _ in range(SENTENCES)]
        self.references = [" ".join(draw.choices("abcd", k=5)) for _ in self.sources]
        by_source = {source: self._hypotheses(draw) for source in sorted(set(self.sources))}
        self.lists = [
            untranslated(index, source_checksum(source))
            if draw.random() < 0.05
            else NBestList(index, source_checksum(source), by_source[source])
            for index, source in enumerate(self.sources)
        ]
        self.reverse = [
            [round(draw.choice([-1.0, -2.0, -3.0, -math.inf]), 6) for _ in item.hypotheses] for item in self.lists
        ]
        self.write()

    @staticmethod
    def _hypotheses(draw: random.Random) -> list[NBestEntry]:
        scores = sorted((round(-3 * draw.random(), 2) for _ in range(4)), reverse=True)
        texts = [" ".join(draw.choices("abcd", k=draw.randint(0, 3))) for _ in scores]
        return [NBestEntry(*pair) for pair in zip(scores, texts, strict=True)]

    def write(self) -> None:
        for name, lines in (("src", self.sources), ("ref", self.references)):
            (self.folder / name).write_text("".join(f"{line}\n" for line in lines))
        with open(self.folder / "n", "wb") as stream:
            writer = NBestWriter(stream)
            for item in self.lists:
                writer.write(item)
        source_sha256 = file_sha256(self.folder / "src")
        writer.write_sidecar(self.folder / "n", source_sha256, {})
        scores = self.folder / "reverse"
        scores.write_text("".join(map(format_scores, self.lists, self.reverse)))
        counts = {"records": writer.hypotheses, "nbest_sha256": writer.sha256, "facts": {}}
        ScoresManifest(sha256=file_sha256(scores), **counts).write(sidecar_path(scores))

    def select(self, *options: object) -> int:
        files = ("--nbest", self.folder / "n", "--source", self.folder / "src")
        outputs = ("--output-source", "--output-target", "--output-nbest", "--report")
        names = [self.folder / name for name in OUTPUTS if name != "out.nbest.json"]
        pairs = [item for pair in zip(outputs, names, strict=True) for item in pair]
        return main(["kd-data", "select", *map(str, [*files, *pairs, *options])])

    def outputs(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in OUTPUTS if (self.folder / name).exists()}

    def expected(self, mode: str, k: int | None, duplicates: bool) -> list[tuple[int, str, list[NBestEntry]]]:
        """(line, source, chosen hypotheses) of what stays, before a reverse model is asked."""
        metric, seen, kept = BLEU(effective_order=True), set(), []
        for index, (source, item) in enumerate(zip(self.sources, self.lists, strict=True)):
            distinct = {}
            for hypothesis in item.hypotheses:
                if hypothesis.text and source.strip():
                    distinct.setdefault(hypothesis.text, hypothesis)
            chosen = list(distinct.values())[: 1 if mode == "best" else k]
            if mode == "interpolate" and chosen:
                reference = [self.references[index]]
                chosen = [max(chosen, key=lambda hyp: metric.sentence_score(hyp.text, reference).score)]
            if chosen and (duplicates or (source, chosen[0].text) not in seen):
                seen.add((source, chosen[0].text))
                kept.append((index, source, chosen))
        return kept

    def check(self, expected: list[tuple[int, str, list[NBestEntry]]]) -> dict:
        """The outputs hold what is expected, and the report adds up."""
        assert (self.folder / "out.src").read_text() == "".join(f"{source}\n" for _, source, _ in expected)
        assert (self.folder / "out.tgt").read_text() == "".join(f"{chosen[0].text}\n" for _, _, chosen in expected)
        lists = list(read_nbest(self.folder / "out.nbest", self.folder / "out.src"))
        assert [item.hypotheses for item in lists] == [chosen for _, _, chosen in expected]
        report = json.loads((self.folder / "report.json").read_text())
        assert report["sources"] == SENTENCES == report["kept"] + sum(report["dropped"].values())
        assert report["kept"] == len(expected)
        counts = report["hypotheses"]
        assert counts["read"] == sum(value for name, value in counts.items() if name != "read")
        assert counts["read"] == sum(len(item.hypotheses) for item in self.lists)
        assert counts["written"] == sum(len(chosen) for _, _, chosen in expected)
        return report


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


@pytest.mark.parametrize(
    ("mode", "k", "options"),
    [
        ("best", None, []),
        ("best", None, ["--keep-duplicates"]),
        ("k-best", None, []),
        ("k-best", 2, ["--k", 2]),
        ("interpolate", None, ["--reference", "ref"]),
        ("interpolate", 2, ["--reference", "ref", "--k", 2, "--metric", "bleu"]),
    ],
)
def test_every_mode(corpus: Corpus, mode: str, k: int | None, options: list) -> None:
    options = [corpus.folder / option if option == "ref" else option for option in options]
    assert corpus.select("--mode", mode, *options) == 0
    report = corpus.check(corpus.expected(mode, k, "--keep-duplicates" in options))
    dropped = report["dropped"]
    assert dropped["untranslated"] == sum(not item.translated for item in corpus.lists) > 0
    assert dropped["empty_source"] > 0
    assert dropped["empty_hypothesis"] > 0
    assert (dropped["duplicate"] > 0) == ("--keep-duplicates" not in options)
    assert all(len(examples) <= 3 for examples in report["examples"].values())


def test_the_worst_by_reverse_score(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpus.select("--mode", "k-best", "--reverse-scores", corpus.folder / "reverse", "--drop-worst", 0.3) == 0
    before = corpus.expected("k-best", None, False)
    badness = []
    for order, (index, _, chosen) in enumerate(before):
        badness.append((corpus.reverse[index][corpus.lists[index].hypotheses.index(chosen[0])], -order))
    worst = {-order for _, order in sorted(badness)[: int(0.3 * len(before))]}
    report = corpus.check([kept for order, kept in enumerate(before) if order not in worst])
    assert report["dropped"]["worst_reverse_score"] == len(worst) == int(0.3 * len(before))
    assert report["best_reverse_score_dropped"] == sorted(badness)[len(worst) - 1][0]
    assert report["files"]["reverse_scores_sha256"] == file_sha256(corpus.folder / "reverse")
    assert "worst_reverse_score, line" in capsys.readouterr().err
    assert sorted(path.name for path in corpus.folder.iterdir()) == sorted(
        ["src", "ref", "n", "n.json", "reverse", "reverse.json", *OUTPUTS]
    )


def test_processes_change_nothing(corpus: Corpus) -> None:
    options = ("--mode", "interpolate", "--metric", "chrf", "--reference", corpus.folder / "ref")
    assert corpus.select(*options) == 0
    alone = corpus.outputs()
    assert corpus.select(*options, "--processes", 2) == 0
    assert corpus.outputs() == alone


def test_pieces_are_joined_before_they_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two segmentations of one text are one hypothesis; the reference is text."""
    text = tmp_path / "text"
    text.write_text("aa ab ba bb\n" * 3)
    vocabulary = ("--input", text, "--vocab-size", 266, "--output", tmp_path / "v")
    assert main(["train-vocabulary", *map(str, vocabulary)]) == 0
    corpus = Corpus(tmp_path)
    corpus.sources, corpus.references = ["▁ a a"] * SENTENCES, ["b a"] * SENTENCES
    pieces = ["▁ a a", "▁ a ▁ b", "▁a a", "▁ b ▁ a"]
    hypotheses = [NBestEntry(-float(place), line) for place, line in enumerate(pieces)]
    corpus.lists = [NBestList(index, source_checksum("▁ a a"), hypotheses) for index in range(SENTENCES)]
    corpus.reverse = [[-1.0] * 4] * SENTENCES
    corpus.write()
    options = ("--sentencepiece-model", tmp_path / "v.model", "--keep-duplicates")
    assert corpus.select("--mode", "k-best", *options) == 0
    assert [hyp.text for hyp in next(read_nbest(tmp_path / "out.nbest")).hypotheses] == [
        pieces[0],
        pieces[1],
        pieces[3],
    ]
    interpolate = ("--mode", "interpolate", "--reference", tmp_path / "ref")
    assert corpus.select(*interpolate, *options) == 0
    assert set((tmp_path / "out.tgt").read_text().splitlines()) == {pieces[3]}
    capsys.readouterr()
    assert corpus.select(*interpolate) == 1
    assert "--sentencepiece-model: required, the hypotheses are pieces" in capsys.readouterr().err
    corpus.references = pieces[:1] * SENTENCES
    corpus.write()
    assert corpus.select(*interpolate, *options) == 1
    assert "--reference, line 1: must be text where --sentencepiece-model joins the" in capsys.readouterr().err
    facts = json.loads((tmp_path / "n.json").read_text())
    (tmp_path / "n.json").write_text(json.dumps(facts | {"facts": {"sentencepiece_model": "0" * 64}}))
    assert corpus.select("--mode", "best", *options) == 1
    assert "--sentencepiece-model: joins subwords, and" in capsys.readouterr().err


def shift_lists(corpus: Corpus) -> None:
    moved = [item._replace(index=index) for index, item in enumerate([*corpus.lists[1:], corpus.lists[0]])]
    corpus.lists, corpus.reverse = moved, [*corpus.reverse[1:], corpus.reverse[0]]
    corpus.write()


def shift_source(corpus: Corpus) -> None:
    corpus.sources = [*corpus.sources[1:], "new"]
    (corpus.folder / "src").write_text("".join(f"{line}\n" for line in corpus.sources))


def shift_scores(corpus: Corpus) -> None:
    path = corpus.folder / "reverse"
    path.write_text(path.read_text().split("\n", 1)[1] + "399\t-1.000000\n")


def change_last_byte(corpus: Corpus) -> None:
    text = (corpus.folder / "n").read_text()
    (corpus.folder / "n").write_text(f"{text[:-1]}x\n")


def drop_reference(corpus: Corpus) -> None:
    (corpus.folder / "ref").write_text("\n".join(corpus.references[1:]) + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shift_lists, "line 1: list 0 is of another source line than"),
        (shift_source, "line 1: list 0 is of another source line than"),
        (shift_scores, "a score of list 0 must be next, got one of list 1"),
        (change_last_byte, "sha256 must be"),
        (drop_reference, "line counts differ"),
    ],
)
def test_files_that_do_not_belong_together(
    corpus: Corpus, damage, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, and what was there before stays."""
    options = ("--mode", "interpolate", "--reference", corpus.folder / "ref")
    options += ("--reverse-scores", corpus.folder / "reverse", "--drop-worst", 0.1)
    assert corpus.select(*options) == 0
    before = corpus.outputs()
    damage(corpus)
    names = {path.name for path in corpus.folder.iterdir()}
    capsys.readouterr()
    assert corpus.select(*options) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert message in error[0]
    assert corpus.outputs() == before
    assert {path.name for path in corpus.folder.iterdir()} == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "interpolate"], "--reference: is required by --mode interpolate, got none"),
        (
            ["--mode", "best", "--reference", "ref"],
            "--reference: requires --mode interpolate",
        ),
        (["--mode", "best", "--drop-worst", "0.05"], "--reverse-scores: is required by --drop-worst above 0, got none"),
        (["--mode", "best", "--reverse-scores", "reverse"], "--reverse-scores: requires --drop-worst above 0"),
        (["--mode", "best", "--output-source", "src"], "is also an input"),
        (["--mode", "best", "--processes", "0"], "--processes: must be in [1, inf), got 0"),
    ],
)
def test_options_that_contradict(
    corpus: Corpus, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"src", "ref", "reverse"}
    assert corpus.select(*(str(corpus.folder / option) if option in names else option for option in options)) == 1
    assert message in capsys.readouterr().err
    assert corpus.outputs() == {}


def test_nothing_left(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.lists = [untranslated(index, item.checksum) for index, item in enumerate(corpus.lists)]
    corpus.reverse = [[-1.0]] * SENTENCES
    corpus.write()
    assert corpus.select("--mode", "best") == 1
    assert "no pair is left of 400" in capsys.readouterr().err


def test_sentence_bleu_follows_the_target_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def signature(facts: dict, *options: str) -> str:
        (tmp_path / "src").write_text("s\n")
        (tmp_path / "ref").write_text("她昨天买了三本书。\n")
        with open(tmp_path / "n", "wb") as stream:
            writer = NBestWriter(stream)
            texts = [NBestEntry(-1.0, "天气很好。"), NBestEntry(-2.0, "她昨天买了两本书。")]
            writer.write(NBestList(0, source_checksum("s"), texts))
        writer.write_sidecar(tmp_path / "n", file_sha256(tmp_path / "src"), facts)
        command = [
            "kd-data", "select", "--nbest", "n", "--source", "src", "--reference", "ref", "--mode", "interpolate",
            "--output-source", "out.src", "--output-target", "out.tgt", "--report", "report.json",
        ]  # fmt: skip
        assert main([str(tmp_path / word) if (tmp_path / word).is_file() or "." in word else word for word in command]
                    + list(options)) == 0  # fmt: skip
        return str(json.loads((tmp_path / "report.json").read_text())["similarity"]["signature"])

    assert "tok:zh" in signature({"target_lang": "zho_Hans"})
    assert (tmp_path / "out.tgt").read_text() == "她昨天买了两本书。\n"
    assert "tok:13a" in signature({})
    assert "tok:zh" in signature({}, "--target-lang", "zh")
    capsys.readouterr()
    assert "tok:char" in signature({"target_lang": "tha_Thai"}) or "flores200" in signature({"target_lang": "tha_Thai"})
    assert "caution: BLEU of tha_Thai: " in capsys.readouterr().err
