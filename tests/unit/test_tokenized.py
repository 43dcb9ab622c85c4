"""BLEU on Moses tokens: what is asked for, and only then."""

import json

import pytest
from sacrebleu.metrics import BLEU

from fairseq_compress.cli.main import main
from fairseq_compress.evaluation.scores import tokenized_bleu


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_equals_bleu_of_text_tokenized_by_hand(tmp_path):
    hypothesis = write(tmp_path / "h", "Ahoj, světe!", "To je (velký) pes.")
    reference = write(tmp_path / "r", "Ahoj, celý světe!", "To je velký pes.")
    got = tokenized_bleu(hypothesis, reference, "cs")
    by_hand = ["Ahoj , světe !", "To je ( velký ) pes ."], [["Ahoj , celý světe !", "To je velký pes ."]]
    assert got["score"] == pytest.approx(BLEU(tokenize="none", force=True).corpus_score(*by_hand).score)
    assert "tok:none" in got["signature"]
    assert got["tokenizer"] == "sacremoses:cs"


@pytest.mark.parametrize("code", ["fra_Latn", "fr-CA", "fra", "FR"])
def test_codes_of_every_form(tmp_path, code):
    """French rules keep an elided article with its apostrophe."""
    hypothesis = write(tmp_path / "h", "L'ami de l'homme est d'ici.", "C'est l'eau.")
    reference = write(tmp_path / "r", "L'ami d'un homme est d'ici.", "C'est de l'eau.")
    scores = [tokenized_bleu(hypothesis, reference, each)["score"] for each in (code, "fr", "en")]
    assert scores[0] == scores[1] != scores[2]


def test_the_record_has_it_only_when_asked(tmp_path):
    hypothesis, reference = write(tmp_path / "h", "Ahoj, světe!"), write(tmp_path / "r", "Ahoj, světe!")
    command = ["score", "--hypothesis", str(hypothesis), "--reference", str(reference), "--source-lang", "en"]
    command += ["--target-lang", "cs", "--output", str(tmp_path / "s.json")]
    for extra, expected in (([], False), (["--tokenized"], True)):
        assert main([*command, *extra]) == 0
        record = json.loads((tmp_path / "s.json").read_text())
        assert ("bleu_tokenized" in record) == expected
    assert record["bleu_tokenized"]["score"] == pytest.approx(100)
