"""``fairseq-compress VERB ...``: imports the verb's module, parses its options, reports errors in one line.

Exit status: 0 done, 1 an error that the message explains, 2 a command line that cannot be parsed, 130 interrupted
(Ctrl-C), 141 the reader of our output went away (``| head``), 143 terminated.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import NoReturn

from fairseq_compress import __version__
from fairseq_compress.cli.parser import PROGRAM, VerbParser
from fairseq_compress.cli.renamed import with_new_names
from fairseq_compress.errors import FairseqCompressError
from fairseq_compress.extras import explained
from fairseq_compress.shipped import did_you_mean

# group -> verb -> (module in this package, one line of help); a module is imported only when its verb is called
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "prepare": ("prepare", "normalize, filter and deduplicate parallel text"),
        "train-vocabulary": ("train_vocabulary", "train a SentencePiece model and the fairseq dictionary for it"),
        "encode": ("encode", "segment text into subwords, line by line"),
        "decode": ("decode", "join subwords to text, line by line"),
        "encode-dual": ("encode_dual", "encode text in the vocabularies of a teacher and a student"),
    },
    "teach": {
        "nbest": ("nbest", "translate a corpus into n-best lists with scores"),
        "kd-data": ("kd_data", "make training data for a student from n-best lists"),
        "cache-teacher": ("cache_teacher", "store the k largest probabilities of a teacher for word_level_kd"),
    },
    "compress": {
        "average": ("average", "average the weights of several checkpoints"),
        "quantize": ("quantize", "quantize with a plan, without training or stage by stage (QAT, iPQ); pack"),
        "factorize": ("factorize", "replace linear layers by low-rank ones (truncated SVD)"),
        "materialize": ("materialize", "convert to fairseq's plain transformer with dense weights"),
        "extract-student": ("extract_student", "extract the student of a dual-vocabulary training"),
        "import": ("import_model", "convert a model of another toolkit to a checkpoint"),
    },
    "deploy": {
        "export": ("export", "convert for ONNX Runtime or CTranslate2, verified against the checkpoint"),
        "shortlist": ("shortlist", "make a lexical shortlist, with which export computes fewer outputs"),
        "translate": ("translate", "translate text with a checkpoint or a model directory"),
    },
    "measure": {
        "describe": ("describe", "bytes of every weight, parameters and multiply-adds"),
        "time": ("timing", "translate a text and time it"),
        "score": ("score", "BLEU, chrF2, size and speed of a system, as JSON"),
        "report": ("report", "compare systems: one page, a picture, and JSON"),
    },
    "more": {
        "help": ("help", "options and examples of a verb: help VERB"),
        "user-dir": ("user_dir", "the folder of this package, for --user-dir of fairseq's commands"),
    },
}
# The steps of kd-data; a verb of two words is called by both.
STEPS = {f"kd-data {step}": (f"kd_{step}", "") for step in ("collect", "score", "encode", "select", "binarize")}
VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items() if name != "help"} | STEPS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = ["--help"] if arguments == ["help", "help"] else [*arguments[1:], "--help"]
    if arguments:
        arguments = with_new_names(arguments)
    verb = next((name for name in (" ".join(arguments[:2]), *arguments[:1]) if name in VERBS), None)
    if verb is None:
        return _overview(arguments)
    if verb == "kd-data" and arguments[1:] and not arguments[1].startswith("-"):
        steps = [name.split()[1] for name in STEPS]
        VerbParser(verb, load_verb(verb)).error(f"unknown step {arguments[1]!r}{did_you_mean(arguments[1], steps)}")
    # A verb that imports fairseq need not say that one of its speech tasks lacks a package.
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        with explained():
            module = load_verb(verb)
            status: int = module.run(VerbParser(verb, module).read(arguments[len(verb.split()) :])) or 0
        sys.stdout.flush()  # here, so that a closed pipe is handled below
        return status
    except FairseqCompressError as error:
        message = str(error)
        for other, own in getattr(load_verb(verb), "SPELLING", {}).items():
            message = message.replace(other, own)
        return _fail(verb, message)
    except BrokenPipeError:
        _drop_output()
        return 141  # 128 + SIGPIPE, which Windows does not have
    except OSError as error:  # a full disk, a folder without permission
        return _fail(verb, str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, previous)


def load_verb(verb: str) -> ModuleType:
    return importlib.import_module(f"fairseq_compress.cli.{VERBS[verb][0]}")


def _overview(arguments: list[str]) -> int:
    """Handle a command line without a known verb: help, version or an error."""
    width = max(len(name) for group in GROUPS.values() for name in group) + 2
    groups = (
        f"{title}:\n" + "\n".join(f"  {name:<{width}}{line}" for name, (_, line) in group.items())
        for title, group in GROUPS.items()
    )
    parser = argparse.ArgumentParser(
        prog=PROGRAM, usage=f"{PROGRAM} [--help] [--version] VERB ...",
        description="Distilled and compressed translation models for fairseq.", epilog="\n\n".join(groups),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    words = [word for word in arguments if word != "--help"] if arguments[1:] else arguments  # help NO-VERB
    _, rest = parser.parse_known_args(words)
    names = [name for name in VERBS if name not in STEPS]
    problem = f"unknown verb {rest[0]!r}{did_you_mean(rest[0], names, listed=False)}" if rest else "a verb is missing"
    parser.error(f"{problem}; the verbs are: {', '.join(names)}")


def _fail(verb: str, message: str) -> int:
    print(f"{PROGRAM} {verb}: error: {message}", file=sys.stderr)
    try:
        if sys.stdout is not None:  # else it was closed before we started
            sys.stdout.flush()
    except OSError:  # a full disk
        _drop_output()
    return 1


def _drop_output() -> None:
    """What is still in the buffer would raise again when the interpreter closes the standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    """Leave through the ``finally`` blocks, so that temporary files go."""
    raise SystemExit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
