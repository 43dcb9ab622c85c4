"""``fairseq-compress VERB ...``: finds the verb's module, parses its options, turns errors into one line.

Exit status: 0 done, 1 an error that the message explains, 2 a wrong command line, 130 interrupted (Ctrl-C),
141 the reader of our output went away (``| head``), 143 terminated.
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
from fairseq_compress.errors import FairseqCompressError
from fairseq_compress.extras import explained

PROGRAM = "fairseq-compress"

# verb -> (module in this package, one line of help); the modules are imported only when their verb is called
VERBS: dict[str, tuple[str, str]] = {
    "user-dir": ("user_dir", "the folder of this package, for --user-dir of fairseq's commands"),
    "prepare": ("prepare", "normalize, filter and deduplicate parallel text"),
    "train-vocabulary": ("train_vocabulary", "train a sentencepiece vocabulary and the fairseq dictionary for it"),
    "encode": ("encode", "text to subword pieces, line by line"),
    "decode": ("decode", "subword pieces back to text, line by line"),
    "generate": ("generate", "fairseq-generate with its speed from several timings"),
    "collect-hypotheses": ("collect_hypotheses", "translations out of a fairseq-generate log, in source order"),
    "nbest": ("nbest", "translate a corpus into n-best lists with scores"),
    "cache-teacher": ("cache_teacher", "the top k probabilities of teachers for word_level_kd --teacher-cache"),
    "score-nbest": ("score_nbest", "what a reverse model thinks of each hypothesis of an n-best file"),
    "select-hypotheses": ("select_hypotheses", "training data of a student out of an n-best file"),
    "encode-hypotheses": ("encode_hypotheses", "the hypotheses of an n-best file to subword pieces"),
    "binarize-hypotheses": ("binarize_hypotheses", "K hypotheses a sentence for sequence_level_kd"),
    "encode-dual": ("encode_dual", "text in the vocabularies of a teacher and a student, for dual_vocab_translation"),
    "extract-student": ("extract_student", "the student of dual_vocab_translation as an ordinary checkpoint"),
    "average": ("average", "average the parameters of several checkpoints"),
    "materialize": ("materialize", "a checkpoint as one of fairseq's plain transformer"),
    "quantize": ("quantize", "quantize a trained checkpoint by a plan, at once or in stages with training (iPQ)"),
    "factorize": ("factorize", "a trained checkpoint as one with low-rank layers, and the error of each"),
    "describe": ("describe", "what is compressed in a checkpoint, where its bytes are, and what its model costs"),
    "pack": ("pack", "a checkpoint as it is compressed, in a safetensors file"),
    "export": ("export", "a checkpoint as a model directory for another runtime, tried and described"),
    "translate": ("translate", "raw text in, raw text out, with a model directory or a checkpoint"),
    "time-translation": ("time_translation", "a text through an exported model, with its speed from several timings"),
    "score": ("score", "sacreBLEU and chrF of a translation, as JSON"),
    "report": ("report", "a table and a picture out of the scores of several systems"),
    "compare": ("compare", "a table of an experiment: systems over their seeds, against a baseline"),
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the defaults in the help, save those that say nothing (None of a required option, False of a switch)."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in VERBS:
        return _overview(arguments)
    verb, rest = arguments[0], arguments[1:]
    # A verb that imports fairseq need not tell that one of its speech tasks lacks a package.
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        with explained():
            return _run_verb(verb, rest)
    except FairseqCompressError as error:
        return _fail(verb, str(error))
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
    """Import the module of a verb of :data:`VERBS`."""
    return importlib.import_module(f"fairseq_compress.cli.{VERBS[verb][0]}")


def _run_verb(verb: str, arguments: list[str]) -> int:
    module = load_verb(verb)
    # allow_abbrev: --source would be a fine abbreviation of --source-lang, and a script must not depend on that
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {verb}", description=module.HELP, formatter_class=HelpFormatter, allow_abbrev=False
    )
    module.add_arguments(parser)
    status: int = module.run(parser.parse_args(arguments))
    sys.stdout.flush()  # here, so that a closed pipe is met inside the try of main
    return status


def _overview(arguments: list[str]) -> int:
    """Handle a command line without a known verb: help, version or an error."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:<{width}}{line}" for name, (_, line) in VERBS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--help] [--version] VERB ...",
        description="Distilled and compressed translation models for fairseq.",
        epilog=f"verbs:\n{verbs}\n\n{PROGRAM} VERB --help shows the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    _, rest = parser.parse_known_args(arguments)
    problem = f"unknown verb {rest[0]!r}" if rest else "a verb is missing"
    parser.error(f"{problem}; the verbs are: {', '.join(VERBS)}")


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
