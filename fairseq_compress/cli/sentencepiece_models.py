"""``--sentencepiece-model``, or one for each side."""

import argparse

OPTIONS = ("sentencepiece_model", "source_sentencepiece_model", "target_sentencepiece_model")


def add_sentencepiece_arguments(parser: argparse._ActionsContainer, text: str) -> None:
    """Declare the three options; ``text`` is the help of the first."""
    parser.add_argument("--sentencepiece-model", metavar="M.model", help=text)
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-sentencepiece-model", metavar="M.model", help=f"that of the {side} side, if it has its own"
        )


def given_models(args: argparse.Namespace) -> tuple[str, str | None] | None:
    """The model of the source, and that of the target or None if it is the same; None without any of the options.

    Raises:
        ConfigError: only one side has a model.
    """
    both, *own = (getattr(args, option) for option in OPTIONS)
    source, target = (each or both for each in own)
    if source is None and target is None:
        return None
    if source is None or target is None:
        from fairseq_compress.errors import ConfigError

        missing = "source" if source is None else "target"
        raise ConfigError(
            f"--{missing}-sentencepiece-model: must be given too, or --sentencepiece-model for both sides"
        )
    return source, None if target == source else target
