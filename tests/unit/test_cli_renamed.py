"""Old names of verbs and options: they do the work of the new ones, and one line tells them."""

import re
from pathlib import Path

import pytest

from fairseq_compress.cli.main import VERBS, load_verb
from fairseq_compress.cli.parser import VerbParser
from fairseq_compress.cli.renamed import OPTIONS, with_new_names
from fairseq_compress.cli.renamed import VERBS as OLD_VERBS

# A command line of version 0.2, and what it is now.
OLD_AND_NEW = [
    ("pack --checkpoint c.pt --output packed.bin --plan int4",
     "quantize --format packed --checkpoint c.pt --output packed.bin --plan int4"),
    ("compare --inputs a.json b.json --output t.md --json t.json --title T",
     "report --scores a.json b.json --output t.md --output t.json --title T"),
    ("generate --runs 4 -- bin --path c.pt --model m", "time --runs 4 -- bin --path c.pt --model m"),
    ("time-translation --model exported --source test.en", "time --checkpoint exported --source test.en"),
    ("collect-hypotheses --input log --source s --output o", "kd-data collect --input log --source s --output o"),
    ("score-nbest --nbest n --source s --checkpoint r.pt --output o",
     "kd-data score --nbest n --source s --checkpoint r.pt --output o"),
    ("select-hypotheses --nbest n --source s --mode best --decode-model m --output-source a --output-target b",
     "kd-data select --nbest n --source s --mode best --sentencepiece-model m --output-source a --output-target b"),
    ("encode-hypotheses --model m --nbest n --source s --pieces p --output o",
     "kd-data encode --sentencepiece-model m --nbest n --source s --pieces p --output o"),
    ("binarize-hypotheses --nbest n --data d", "kd-data binarize --nbest n --data d"),
    ("prepare --source-lang en --target-lang cs --source a --target b --output-prefix=p",
     "prepare --source-lang en --target-lang cs --source a --target b --output=p"),
    ("train-vocabulary --input a --vocab-size 300 --output-prefix p",
     "train-vocabulary --input a --vocab-size 300 --output p"),
    ("encode --model m --input i --output o", "encode --sentencepiece-model m --input i --output o"),
    ("decode --model m --input i --output o", "decode --sentencepiece-model m --input i --output o"),
    ("encode-dual --source-lang en --target-lang cs --trainpref t --teacher-model a --teacher-dict b --student-model c "
     "--student-dict d --output o",
     "encode-dual --source-lang en --target-lang cs --trainpref t --teacher-sentencepiece-model a "
     "--teacher-dictionary b --student-sentencepiece-model c --student-dictionary d --output o"),
    ("cache-teacher --teacher-path t.pt --data d --output o", "cache-teacher --checkpoint t.pt --data d --output o"),
    ("average --inputs a.pt b.pt --output o.pt", "average --checkpoint a.pt b.pt --output o.pt"),
    ("average --checkpoint-dir d --last 3 --output o.pt", "average --checkpoint d --last 3 --output o.pt"),
    ("export --checkpoint c --output o --sentencepiece-model m --check-source a --check-reference b",
     "export --checkpoint c --output o --sentencepiece-model m --source a --reference b"),
    ("translate --model m --beam 4", "translate --checkpoint m --beam 4"),
    ("report --inputs a.json --output-dir o", "report --scores a.json --output o"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
def test_an_old_command_line(old, new, capsys):
    words = with_new_names(old.split())
    assert words == new.split()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith(f"fairseq-compress {old.split()[0]}: ")
    assert line.endswith("; version 0.3 drops the old names\n")
    verb = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
    VerbParser(verb, load_verb(verb)).read(words[len(verb.split()) :])
    assert with_new_names(words) == words
    assert capsys.readouterr().err == ""


def test_every_old_name_is_in_the_table_above():
    lines = [old.replace("=", " ").split() for old, _ in OLD_AND_NEW]
    assert set(OLD_VERBS) | set(OPTIONS) == {line[0] for line in lines}
    for verb, options in (OPTIONS | {verb: new.options for verb, new in OLD_VERBS.items()}).items():
        assert set(options) <= {word for line in lines if line[0] == verb for word in line}


def test_the_line(capsys):
    with_new_names(["time-translation", "--model", "m", "--source", "s"])
    assert capsys.readouterr().err == (
        "fairseq-compress time-translation: time-translation is now time, --model is now --checkpoint; "
        "version 0.3 drops the old names\n"
    )


def test_documentation_uses_the_new_names():
    root = Path(__file__).resolve().parents[2]
    old = re.compile(rf"(?:`|fairseq-compress )({'|'.join(OLD_VERBS)})(?:[ `]|$)", re.MULTILINE)
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted((root / "scripts").rglob("*.sh"))]
    assert {page.name: found for page in pages if (found := old.findall(page.read_text()))} == {}
