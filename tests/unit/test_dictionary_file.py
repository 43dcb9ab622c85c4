"""Damaged dictionaries end in one line that names file and line, wherever fairseq loads them; languages of a folder."""

import codecs
from pathlib import Path

import pytest
from fairseq import tasks
from fairseq.data import Dictionary, data_utils
from omegaconf import OmegaConf

import fairseq_compress
from fairseq_compress.corpus.dictionary_file import Entry, read_entries
from fairseq_compress.errors import DataError
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask

fairseq_compress.register()
TEXT = "▁a 3\nž 2\n</w> 1\n\u200c 1\nmadeupword0000 0\n"
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "ž", "</w>", "\u200c", "madeupword0000"]
DAMAGED = {
    "twice": (TEXT + "ž 1\n", "line 6: must be a new symbol, 'ž' is in line 2 already"),
    "special": (TEXT + "<pad> 1\n", "line 6: must be a new symbol, '<pad>' is one of fairseq's own symbols already"),
    "no count": ("▁a 3\nž\n", "line 2: must be a symbol, a space and its count, got 'ž'"),
    "number alone": ("▁a 3\n5\n", "line 2: must be a symbol, a space and its count, got '5'"),
    "no number": ("▁a many\n", "line 1: must be a symbol, a space and its count, got '▁a many'"),
    "an empty line": (TEXT + "\n", "line 6: must be a symbol, a space and its count, got ''"),
    "empty": ("", "is empty: at least one entry is needed"),
}


def write(folder: Path, content: str | bytes, name: str = "dict.en.txt") -> str:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    content, message = DAMAGED[kind]
    with pytest.raises(DataError) as caught:
        Dictionary.load(write(tmp_path, content))
    assert str(caught.value).removeprefix(f"{tmp_path}/dict.en.txt").lstrip(", ") == message


def test_other_encodings_and_missing_files(tmp_path: Path) -> None:
    for encoding, byte in (("utf-16", "0xff at column 1"), ("iso-8859-2", "0xbe at column 1")):
        content = "ž 1\n".encode(encoding)
        with pytest.raises(DataError, match=rf"dict\.en\.txt, line 1: not valid UTF-8 \(byte {byte}\)"):
            Dictionary.load(write(tmp_path, content))
    with pytest.raises(DataError, match=r"cannot read .*none\.txt: No such file"):
        Dictionary.load(str(tmp_path / "none.txt"))


@pytest.mark.parametrize("content", [TEXT, codecs.BOM_UTF8 + TEXT.encode(), TEXT.replace("\n", "\r\n"), TEXT.rstrip()])
def test_a_byte_order_mark_and_line_ends_change_no_entry(tmp_path: Path, content: str | bytes) -> None:
    dictionary = Dictionary.load(write(tmp_path, content))
    assert dictionary.symbols == SYMBOLS
    assert dictionary.count[4:] == [3, 2, 1, 1, 0]


def test_what_fairseq_takes_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "a b 3\nc 2 #fairseq:overwrite\nc 4 #fairseq:overwrite\n<unk> 5 #fairseq:overwrite\n")
    assert [tuple(entry) for entry in read_entries(path)] == [
        (1, "a b", 3, False), (2, "c", 2, True), (3, "c", 4, True), (4, "<unk>", 5, True),
    ]  # fmt: skip
    ours, theirs = Dictionary.load(path), Dictionary()
    with open(path, encoding="utf-8") as stream:
        theirs.add_from_file(stream)  # an open file goes fairseq's own way
    assert (ours.symbols, ours.count, ours.indices) == (theirs.symbols, theirs.count, theirs.indices)
    assert Entry._fields == ("number", "symbol", "occurrences", "overwrite")


def test_our_task_and_its_parents_say_it(tmp_path: Path) -> None:
    write(tmp_path, TEXT)
    write(tmp_path, TEXT + "ž 1\n", "dict.cs.txt")
    cfg = CompressedTranslationConfig(data=str(tmp_path), source_lang="en", target_lang="cs")
    for task in (CompressedTranslationTask, CompressedTranslationTask.__mro__[1]):
        with pytest.raises(DataError, match=r"dict\.cs\.txt, line 6: must be a new symbol"):
            task.setup_task(cfg)


@pytest.mark.parametrize("name", ["translation", "compressed_translation"])
def test_a_task_tells_the_languages_that_it_found(tmp_path: Path, name: str) -> None:
    for language in ("eng_Latn", "zh-Hant"):
        write(tmp_path, TEXT, f"dict.{language}.txt")
    (tmp_path / "train.eng_Latn-zh-Hant.eng_Latn.idx").touch()
    options = OmegaConf.structured(tasks.TASK_DATACLASS_REGISTRY[name](data=str(tmp_path)))
    cfg = OmegaConf.create(OmegaConf.to_container(options) | {"_name": name})
    tasks.setup_task(cfg)
    assert (cfg.source_lang, cfg.target_lang) == ("eng_Latn", "zh-Hant")


@pytest.mark.parametrize(
    ("languages", "files", "pair"),
    [
        (("en", "cs"), ("train.en-cs.en.idx",), ("en", "cs")),
        (("cs", "en"), ("train.en-cs.en.idx", "valid.en-cs.cs.bin"), ("en", "cs")),
        (("en", "zh-Hant"), ("valid.en-zh-Hant.zh-Hant.idx",), ("en", "zh-Hant")),
        (("zh-Hant", "sr-Latn"), ("test.sr-Latn-zh-Hant.sr-Latn.idx",), ("sr-Latn", "zh-Hant")),
        (("pt_BR", "eng_Latn"), ("train.pt_BR-eng_Latn.pt_BR.idx",), ("pt_BR", "eng_Latn")),
        ((), ("train.en-cs.en.idx",), ("en", "cs")),  # a folder without dictionaries
        (("zh-Hant", "en"), (), (None, None)),  # which stock fairseq takes for text of zh and Hant
    ],
)
def test_the_languages_of_a_folder(tmp_path: Path, languages, files, pair) -> None:
    for name in (*(f"dict.{language}.txt" for language in languages), *files, "preprocess.log"):
        (tmp_path / name).touch()
    assert tuple(data_utils.infer_language_pair(str(tmp_path))) == pair
