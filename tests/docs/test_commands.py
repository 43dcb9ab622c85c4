"""Every command of README and docs, run as it stands, on tiny models; what cannot be run is checked dry."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fairseq_compress.architecture.reading import from_json
from fairseq_compress.cli.main import VERBS, load_verb
from fairseq_compress.cli.parser import VerbParser
from fairseq_compress.cli.renamed import with_new_names
from fairseq_compress.weights.reading import parse_plan
from tests.helpers.pages import LANGUAGES, PAGES, REASONS, Block, page_name, read_blocks


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_all_blocks(page, prepared, run_script, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(prepared, folder, symlinks=True)
    for block in read_blocks(page.read_text()):
        try:
            check(block, folder, run_script)
        except Exception as error:
            raise AssertionError(f"{page_name(page)}, line {block.line}: {error}") from error


def check(block: Block, folder: Path, run_script) -> None:
    assert block.language in LANGUAGES, f"a block must be one of {', '.join(LANGUAGES)}, got {block.language!r}"
    if block.reason:
        assert block.language == "bash", "only bash is run"
        assert block.reason in REASONS, f"must be one of {', '.join(REASONS)}, got {block.reason!r}"
        check_dry(block.text, folder)
    elif block.language == "bash":
        run_script(block.shortened(), folder)
    elif block.language == "python":
        (folder / "block.py").write_text(block.shortened())
        run_script("python block.py", folder)
    elif block.language == "sh":
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    elif block.language == "yaml" and {"weights", "activations"} & set(yaml.safe_load(block.text)):
        parse_plan(block.text)
    elif block.language == "json" and "encoder" in json.loads(block.text):
        from_json(block.text)


def check_dry(text: str, folder: Path) -> None:
    """The syntax of a script, the verbs and options of our command in it, and the files of the repository it names."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for words in simple_commands(text):
        if "fairseq-compress" in words and words[0] != "pip":
            check_verb(words[words.index("fairseq-compress") + 1 :])
        for word in words:
            if re.match(r"(scripts|configs|benchmarks|data/demo)/[\w./-]+$", word):
                assert (folder / word).exists(), f"{word} does not exist"


def simple_commands(text: str) -> list[list[str]]:
    """The words of each command of a script: what stands between ends of lines, pipes, semicolons and brackets."""
    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\n", "\n; "), posix=True, punctuation_chars=";|&<>()")
    lexer.commenters = "#"
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";|&()"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def check_verb(words: list[str]) -> None:
    """The verb exists under its present name, and so does each option."""
    assert with_new_names(list(words)) == words, f"a former name in {words}"
    verb = next(name for name in (" ".join(words[:2]), *words[:1]) if name in {**VERBS, "help": ""})
    if verb == "help":
        return
    known = VerbParser(verb, load_verb(verb))._option_string_actions
    ours = words[: words.index("--")] if "--" in words else words
    unknown = [word for word in ours if word.startswith("--") and word.split("=")[0] not in known]
    assert not unknown, f"fairseq-compress {verb} has no option {', '.join(unknown)}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fairseq-compress nbest --beam 3 --no-such 4", "has no option --no-such"),
        ("fairseq-compress quantize a b -- data --any-option\nsrun fairseq-compress quantise a", None),
        ("bash scripts/nothing.sh", "scripts/nothing.sh does not exist"),
        ("if true; then", None),
    ],
)
def test_the_dry_check_finds(text, message, tmp_path):
    with pytest.raises((AssertionError, StopIteration, subprocess.CalledProcessError), match=message):
        check_dry(text, tmp_path)


def test_a_command_that_fails_is_found(prepared, run_script, tmp_path):
    page = "```bash\nls > list\nfalse\n```\n"
    with pytest.raises(AssertionError, match="status 1"):
        check(read_blocks(page)[0], tmp_path, run_script)
    assert (tmp_path / "list").exists()
    marked = "<!-- run with: 7=0, exit 3=true -->\n```bash\nexit 7\nexit 3\n```\n"
    check(read_blocks(marked)[0], tmp_path, run_script)
