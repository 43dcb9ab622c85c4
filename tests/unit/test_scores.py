"""Scores of a translation: equal to sacreBLEU's own command, checked input, the record and the verb."""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_compress.cli.main import main
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.evaluation.scores import paired_bootstrap, parse_facts, score_files, system_record

REFERENCE = [
    "Dvě malé děti si hrají na písku.",
    "Muž v červené bundě jede na kole.",
    "Žena čte knihu, zatímco prší; je jí zima.",
    "Pes běží přes \u2028louku.",  # U+2028 is no end of a line here
    "Starý pán prodává na trhu ovoce.",
] * 3
HYPOTHESIS = [
    "Dvě malé děti si hrají v písku.",
    "muž v Červené bundě jede na kole.",
    "Žena čte knihu zatímco prší.",
    "",
    "Starý pán prodává ovoce na trhu.",
] * 3


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "system.cs", HYPOTHESIS), write(tmp_path / "reference.cs", REFERENCE)


def sacrebleu_command(hypothesis: Path, reference: Path, *options: str) -> Any:
    command = [sys.executable, "-m", "sacrebleu", str(reference), "-i", str(hypothesis), "-w", "6", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_scores_equal_those_of_the_sacrebleu_command(pair: tuple[Path, Path]) -> None:
    ours = score_files(*pair)
    bleu, chrf = sacrebleu_command(*pair, "-m", "bleu", "chrf")
    lowercase = sacrebleu_command(*pair, "-m", "bleu", "-lc")
    for mine, theirs in ((ours["bleu"], bleu), (ours["chrf2"], chrf), (ours["bleu_lowercase"], lowercase)):
        assert round(mine["score"], 6) == theirs["score"]
        assert mine["signature"] == theirs["signature"]
    assert 0 < ours["bleu"]["score"] < ours["bleu_lowercase"]["score"] < 100
    assert "case:lc" in ours["bleu_lowercase"]["signature"]
    assert chrf["name"] == "chrF2"
    assert [round(p, 1) for p in ours["bleu"]["precisions"]] == [
        float(p) for p in bleu["verbose_score"].split(" (")[0].split("/")
    ]
    assert ours["bleu"]["brevity_penalty"] < 1


def test_lines_and_checksums(pair: tuple[Path, Path]) -> None:
    scores = score_files(*pair, source=pair[1])
    assert scores["lines"] == {"hypothesis": 15, "reference": 15, "empty_hypotheses": 3}
    assert scores["files"]["hypothesis"]["name"] == "system.cs"
    assert scores["files"]["reference"]["sha256"] == hashlib.sha256(pair[1].read_bytes()).hexdigest()
    assert scores["files"]["source"] == scores["files"]["reference"]


def test_perfect_translation_has_100(pair: tuple[Path, Path]) -> None:
    scores = score_files(pair[1], pair[1])
    assert [scores[metric]["score"] for metric in ("bleu", "bleu_lowercase", "chrf2")] == pytest.approx([100] * 3)


def test_bad_files_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    hypothesis, reference = pair
    short, empty = write(tmp_path / "short.cs", HYPOTHESIS[:-1]), write(tmp_path / "empty.cs", [])
    latin2 = tmp_path / "latin2.cs"
    latin2.write_bytes("\n".join(REFERENCE).replace("\u2028", "").encode("iso-8859-2") + b"\n")
    for bad, message in (
        ((short, reference), r"short\.cs has 14, .*reference\.cs has 15"),
        ((hypothesis, empty), r"empty\.cs is empty"),
        ((latin2, reference), r"latin2\.cs, line 1: not valid UTF-8"),
        ((tmp_path / "none.cs", reference), r"cannot read .*none\.cs"),
        ((hypothesis, reference, short), r"short\.cs has 14"),
    ):
        with pytest.raises(DataError, match=message):
            score_files(*bad)


def test_paired_bootstrap_tells_better_from_equal(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    hypothesis, reference = pair
    same = paired_bootstrap(hypothesis, hypothesis, reference)
    assert same["bleu"]["p_value"] == same["chrf2"]["p_value"] == 1.0
    better = paired_bootstrap(reference, hypothesis, reference)
    assert better == paired_bootstrap(reference, hypothesis, reference)  # the seed is fixed
    assert better["bleu"]["p_value"] < 0.01
    assert better["bleu"]["difference"] == pytest.approx(100 - better["bleu"]["baseline_score"])
    assert "two-sided" in better["bleu"]["method"]
    assert better["bleu"]["baseline_score"] == score_files(*pair)["bleu"]["score"]
    assert "seed:12345" in better["chrf2"]["signature"]
    assert json.loads(json.dumps(better)) == better
    assert better["bleu"]["mean"] > better["bleu"]["baseline_mean"] > 0


def test_record_holds_size_speed_and_facts(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    shared = torch.randn(10, 4)
    weights = {"a.weight": shared, "b.weight": shared, "encoder.layers.1.fc1.bias": torch.randn(3)}
    moments = {index: {"exp_avg": torch.randn(43), "exp_avg_sq": torch.randn(43)} for index in range(9)}
    state = {
        "model": weights | {"encoder.version": torch.Tensor([3]), "decoder.layers.0.codes": torch.zeros(5).byte()},
        "args": argparse.Namespace(arch="transformer_tiny", encoder_embed_dim=4),
        "optimizer_history": [{"num_updates": 30}],
        "last_optimizer_state": {"state": moments},
    }
    torch.save(state, tmp_path / "c.pt")
    record = system_record(
        *pair, "en", "cs", checkpoint=tmp_path / "c.pt", translation_seconds=[2.5, 3.0, 2.0], facts={"seed": "1"}
    )
    assert (record["name"], record["direction"]) == ("system", "en-cs")
    size = (tmp_path / "c.pt").stat().st_size
    sizes = {"parameters": 43, "bytes": 4 * 43 + 5, "bytes_on_disk": size, "bytes_float32": 172}
    model = {"architecture": "transformer_tiny", "encoder_layers": 2, "decoder_layers": 1, "width": 4, "updates": 30}
    assert record["checkpoint"] == {"name": "c.pt", **sizes, "bytes_float32_of_embeddings": 0, **model}
    assert size > 10 * record["checkpoint"]["bytes"]
    words = sum(len(line.split()) for line in HYPOTHESIS)
    assert record["speed"] == {
        "timings": [2.5, 3.0, 2.0],
        "timed_sentences": 15,
        "sentences_per_second": 6.0,
        "sentences_per_second_range": [5.0, 7.5],
        "words_per_second": pytest.approx(words / 2.5),
    }
    assert record["facts"] == {"seed": "1"}
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--translation-seconds: must be finite numbers above 0"):
            system_record(*pair, "en", "cs", translation_seconds=[1.0, 1.0, seconds])
    with pytest.raises(ConfigError, match="--translation-seconds: must be at least 3 timings, got 1"):
        system_record(*pair, "en", "cs", translation_seconds=[1.0])
    for sentences in (0, 16):
        with pytest.raises(ConfigError, match=rf"--timed-sentences: must be in \[1, 15\], .* got {sentences}"):
            system_record(*pair, "en", "cs", translation_seconds=[1.0] * 3, timed_sentences=sentences)
    with pytest.raises(ConfigError, match="--timed-sentences: requires --translation-seconds"):
        system_record(*pair, "en", "cs", timed_sentences=3)
    part = system_record(*pair, "en", "cs", translation_seconds=[0.5, 1.0, 2.0], timed_sentences=5)["speed"]
    assert (part["sentences_per_second"], part["words_per_second"]) == (5.0, pytest.approx(words / 3))
    with pytest.raises(ConfigError, match="--source-lang: must be"):
        system_record(*pair, "", "cs")


def test_facts_stay_text() -> None:
    assert parse_facts(["seed=1", "hardware=2 cores, a=b", "empty="]) == {
        "seed": "1",
        "hardware": "2 cores, a=b",
        "empty": "",
    }
    for bad in (["seed"], ["=1"], ["seed=1", "seed=2"]):
        with pytest.raises(ConfigError, match="--set"):
            parse_facts(bad)


def test_the_verb_writes_json_without_torch_or_fairseq(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    output = tmp_path / "out" / "scores.json"
    arguments = ["score", "--hypothesis", str(pair[0]), "--reference", str(pair[1]), "--output", str(output)]
    arguments += ["--source-lang", "en", "--target-lang", "cs", "--name", "tiny", "--set", "a=1", "b=2", "--set", "c=3"]
    code = (
        "import sys; from fairseq_compress.cli.main import main; status = main(sys.argv[1:]);"
        "assert not {'torch', 'fairseq'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    record = json.loads(output.read_text(encoding="utf-8"))
    assert done.stdout.startswith(f"tiny: BLEU {record['bleu']['score']:.2f}, lowercase ")
    assert record["facts"] == {"a": "1", "b": "2", "c": "3"}
    assert record["checkpoint"] is record["speed"] is None


def test_the_verb_keeps_its_inputs(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["score", "--hypothesis", str(pair[0]), "--reference", str(pair[1]), "--output", str(pair[0])]
    assert main([*arguments, "--source-lang", "en", "--target-lang", "cs"]) == 1
    assert "fairseq-compress score: error: " in capsys.readouterr().err
    assert pair[0].read_text(encoding="utf-8").startswith("Dvě malé")


def test_the_target_language_chooses_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hypothesis = write(tmp_path / "h", ["今天北京的天气非常好，我们想出去。", "她昨天下午在商店买了三本书。"])
    reference = write(tmp_path / "r", ["今天北京的天气很好，我们想出去。", "她昨天下午在街角的商店买了三本书。"])
    for language, tokenizer, high in (("zh", "zh", True), ("zho_Hant", "zh", True), (None, "13a", False)):
        found = system_record(hypothesis, reference, "en", language, baseline=hypothesis)
        assert (found["bleu"]["score"] > 50) == high
        signatures = [found["bleu"], found["bleu_lowercase"], found["paired_bootstrap"]["bleu"]]
        assert all(f"tok:{tokenizer}|" in each["signature"] for each in signatures)
        assert found["direction"] == f"en-{language or 'und'}"
        told = ["give the language with --target-lang" in caution for caution in found["cautions"]]
        assert told == ([] if high else [True])
    command = ["score", "--hypothesis", str(hypothesis), "--reference", str(reference), "--output", str(tmp_path / "s")]
    assert main(command) == 0
    assert "caution: 100% of the letters of the reference" in capsys.readouterr().err
    assert main([*command, "--target-lang", "zh_CN"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*command, "--tokenized"]) == 1
    assert "--tokenized: requires --target-lang" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("▁Dvě ▁malé ▁dě ti", True), ("Dvě malé dě@@ ti", True), ("malé dě@@", True), ("Dvě<0xC5> malé", True),
        ("Dvě malé děti", False), ("pište na a@b.cz @@@x", False),
    ],
)  # fmt: skip
def test_pieces_that_are_scored_as_text_are_told(tmp_path: Path, line: str, told: bool) -> None:
    text, other = ["Dvě malé děti.", "", "ne"], "Pes."
    hypothesis = write(tmp_path / "h", [*text, line])
    found = score_files(hypothesis, write(tmp_path / "r", [*text, other]), target_lang="cs")["cautions"]
    assert [caution.split(" are subword")[0] for caution in found] == ["33% of the lines of the hypothesis"] * told
    found = score_files(write(tmp_path / "r", [*text, other]), hypothesis, target_lang="cs")["cautions"]
    assert [caution.split(" are subword")[0] for caution in found] == ["33% of the lines of the reference"] * told


def test_one_odd_line_of_many_is_no_caution(tmp_path: Path) -> None:
    lines = write(tmp_path / "h", ["▁ is the mark"] + ["Dvě malé děti."] * 99)
    assert score_files(lines, lines, target_lang="cs")["cautions"] == []


def test_the_verb_prints_the_difference_and_its_p_value(pair, tmp_path, capsys) -> None:
    hypothesis, reference = pair
    words = ["score", "--hypothesis", reference, "--reference", reference, "--baseline", hypothesis, "--source-lang",
             "en", "--target-lang", "cs", "--output", tmp_path / "scores.json"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    test = json.loads((tmp_path / "scores.json").read_text())["paired_bootstrap"]["bleu"]
    line = capsys.readouterr().out.splitlines()[1]
    want = f"BLEU {test['difference']:+.2f} against {hypothesis}, p = {test['p_value']:.4f} (paired bootstrap)"
    assert line == want
    assert test["difference"] > 0
