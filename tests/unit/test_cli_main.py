"""The command as a process: help, exit statuses, and what it imports."""

import dataclasses
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_compress.cli.main import GROUPS, STEPS, VERBS, load_verb, main
from fairseq_compress.cli.parser import VerbParser

HEAVY = ("torch", "fairseq", "sentencepiece", "sacrebleu", "matplotlib", "wandb")


def run_command(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fairseq_compress.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert all(f"\n{title}:\n" in output for title in GROUPS)
    assert all(f"  {verb} " in output for verb in {*VERBS} - {*STEPS})


def test_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    setup = Path(__file__).resolve().parents[2] / "setup.py"
    asked = subprocess.run(
        [sys.executable, setup.name, "--version"], cwd=setup.parent, capture_output=True, text=True, check=True
    )
    assert capsys.readouterr().out == f"fairseq-compress {asked.stdout.split()[-1]}\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["transform"], "unknown verb 'transform'"), ([], "a verb is missing"), (["--bogus"], "unknown verb '--bogus'")],
)
def test_a_wrong_verb_lists_the_verbs(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert problem in error
    assert all(verb in error for verb in {*VERBS} - {*STEPS})


@pytest.mark.parametrize("arguments", [["qantize"], ["help", "qantize"], ["qantize", "a", "b"]])
def test_a_near_miss_is_suggested(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "unknown verb 'qantize'; did you mean quantize?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_contract_and_its_own_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = load_verb(verb)
    assert dataclasses.is_dataclass(module.Options)
    assert list(inspect.signature(module.run).parameters) == ["args"]
    outputs = []
    for arguments in ([*verb.split(), "--help"], ["help", *verb.split()]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert f"usage: fairseq-compress {verb} " in outputs[0]
    assert "default: None" not in outputs[0]


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_every_verb_are_right(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    module = load_verb(verb)
    assert len(module.EXAMPLES) == 2
    for example in module.EXAMPLES:
        VerbParser(verb, module).read(shlex.split(re.split(" ?[<>] ", example)[0]))


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        (["decode", "--inptu", "m"], ["unknown option --inptu; did you mean --input?"]),
        (["decode", "--input", "i"], ["required: --output"]),
        (["export", "a", "b", "c"], ["unexpected argument 'c'"]),
        (["export", "a", "b", "--output", "c"], ["--output: is given twice, the other is 'b'"]),
        (["kd-data", "slect"], ["unknown step 'slect'; did you mean select? available: "]),
        (["factorize", "a", "b", "--rank", "many"], ["argument --rank: invalid int value: 'many'"]),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], problems: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"fairseq-compress {arguments[0]}: error: ")
    assert all(problem in error for problem in problems)


def test_all_problems_of_values_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    values = "--checkpoint c --source s --output o --window 0 --precision f --beam 0 --source-sentencepiece-model m"
    assert main(["nbest", *values.split()]) == 1
    assert capsys.readouterr().err == (
        "fairseq-compress nbest: error: --precision: must be one of float32, bfloat16, int8, got 'f'; --window: must "
        "be in [1, inf), got 0; --target-sentencepiece-model: must be given too, or --sentencepiece-model for both "
        "sides; --beam: must be in [1, inf), got 0\n"
    )


def test_positions_and_options_mean_the_same() -> None:
    parser = VerbParser("materialize", load_verb("materialize"))
    forms = (["a.pt", "b.pt"], ["--output", "b.pt", "a.pt"], ["a.pt", "--output=b.pt"])
    assert len({parser.read(form) for form in forms}) == 1


def test_the_help_tells_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    output = capsys.readouterr().out
    assert "(default: 250)" in output
    assert "(default: False)" not in output


def test_options_cannot_be_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["encode", "--sentencepiece", "m", "--input", "i", "--output", "o"])
    assert "unknown option --sentencepiece; did you mean --sentencepiece-model?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "user-dir"])  # which has none
def test_missing_options_are_status_2(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sys.exit(main(verb.split()))
    assert caught.value.code == 1 + (verb != "time")  # which has two ways, neither required
    assert f"fairseq-compress {verb}: error: " in capsys.readouterr().err


def imports_after(*statements: str) -> set[str]:
    """The heavy modules that a fresh interpreter has loaded after the statements."""
    report = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*statements, report])], capture_output=True, text=True, timeout=60, check=True
    )
    return set(eval(done.stdout.splitlines()[-1]))


def test_parsing_options_imports_nothing_heavy() -> None:
    loads = [f"VerbParser({verb!r}, load_verb({verb!r}))" for verb in VERBS]
    assert imports_after("from fairseq_compress.cli.main import VerbParser, load_verb", *loads) == set()


def test_prepare_and_collect_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    (tmp_path / "log").write_text("D-0\t-1\tjedna\n")
    prepare = ["prepare", "--source-lang", "en", "--target-lang", "cs", "--output", str(tmp_path / "o")]
    prepare += ["--source", str(tmp_path / "a"), "--target", str(tmp_path / "a")]
    collect = ["kd-data", "collect", "--input", str(tmp_path / "log"), "--output", str(tmp_path / "h")]
    collect += ["--expected-lines", "1"]
    start = "from fairseq_compress.cli.main import main"
    assert imports_after(start, f"assert main({prepare}) == 0", f"assert main({collect}) == 0") == set()


def test_encoding_imports_neither_torch_nor_fairseq() -> None:
    imports = (
        "import fairseq_compress.corpus.segmentation.sentencepiece_model",
        "import fairseq_compress.corpus.vocabulary",
    )
    assert imports_after(*imports) == {"sentencepiece"}


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        ('DataError("a.txt is empty")', 1, "fairseq-compress encode: error: a.txt is empty\n"),
        ('OSError(28, "No space left on device", "a")', 1, "error: [Errno 28] No space left on device: 'a'\n"),
        ("KeyboardInterrupt()", 130, ""),
        ("BrokenPipeError()", 141, ""),
    ],
)
def test_failures_are_a_status_and_one_line(raised: str, status: int, message: str) -> None:
    script = (
        "import sys; from fairseq_compress.cli import main, encode, user_dir\n"
        "from fairseq_compress.errors import DataError\n"
        "encode.Options = user_dir.Options\n"
        f"def run(args): raise {raised}\n"
        "encode.run = run\n"
        "sys.exit(main.main(['encode']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert done.stderr.endswith(message)
    assert done.stderr.count("\n") == message.count("\n")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = importlib.import_module("fairseq_compress.cli.encode")
    monkeypatch.setattr(encode, "Options", load_verb("user-dir").Options)
    monkeypatch.setattr(encode, "run", lambda args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["encode"])


def test_termination_removes_the_temporary_file(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from fairseq_compress.cli import main, encode, user_dir\n"
        "from fairseq_compress.work.files import atomic_write\n"
        "encode.Options = user_dir.Options\n"
        "def run(args):\n"
        f"    with atomic_write({str(tmp_path / 'a')!r}) as stream:\n"
        "        stream.write('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "encode.run = run\n"
        "sys.exit(main.main(['encode']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_help_as_a_process() -> None:
    done = run_command("--help")
    assert done.returncode == 0
    assert done.stderr == ""
