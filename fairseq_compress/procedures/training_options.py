"""Options of ``fairseq-train`` from a checkpoint: its architecture, languages and dictionaries."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY
from omegaconf import DictConfig, OmegaConf

from fairseq_compress.errors import ConfigError
from fairseq_compress.shipped import did_you_mean

TASK = "compressed_translation"
OF_TASK = (
    *("source_lang", "target_lang", "left_pad_source", "left_pad_target"),
    *("max_source_positions", "max_target_positions"),
)
# Not repeated: files that may be gone, and noise that would overwrite the weights.
LEFT_OUT = (
    *("encoder_embed_path", "decoder_embed_path"),
    *("quant_noise_pq", "quant_noise_pq_block_size", "quant_noise_scalar"),
)
ENDS = ("--max-update", "--max-epoch", "--patience", "--stop-time-hours", "--stop-min-lr")


def last_value(arguments: Sequence[str], *names: str) -> str | None:
    """The last value of an option in a command line, ``--name VALUE`` or ``--name=VALUE``."""
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    places = [place for place, word in enumerate(words[:-1]) if word in names]
    return words[places[-1] + 1] if places else None


def check_training(arguments: Sequence[str]) -> None:
    """Refuse a training that could not start, or would never end."""
    missing = [] if last_value(arguments, "--optimizer") else ["--optimizer"]
    if not any(last_value(arguments, name) for name in ENDS):
        missing.append(f"one of {', '.join(ENDS)}")
    if missing:
        raise ConfigError(
            f"fairseq-train: requires {' and '.join(missing)} after --, got neither a default nor a value"
        )


def checkpoint_options(cfg: DictConfig, arguments: Sequence[str]) -> list[str]:
    """Options of ``fairseq-train`` that build the model of a checkpoint, or that of an ``--arch`` in ``arguments``."""
    model = _values(cfg.model)
    given = last_value(arguments, "--arch", "-a")
    arch = given or str(model.get("arch") or model.get("_name"))
    if arch not in ARCH_MODEL_REGISTRY:
        guess = did_you_mean(arch, ARCH_MODEL_REGISTRY, listed=False)
        raise ConfigError(f"{'--arch' if given else '--checkpoint'}: unknown architecture {arch!r}{guess}")
    known = {name: value for name, value in model.items() if name not in LEFT_OUT}
    of_task = {name: value for name, value in _values(cfg.task).items() if name in OF_TASK}
    options = _options(ARCH_MODEL_REGISTRY[arch], known) + _options(TASK_REGISTRY[TASK], of_task)
    return [f"--arch={arch}", *dict.fromkeys(options)]


def check_dictionaries(data: str, cfg: DictConfig, arguments: Sequence[str], entries: Sequence[int]) -> None:
    """Refuse data whose dictionaries do not have the ``entries`` of source and target in a checkpoint."""
    folder = Path(data.split(":")[0])
    names = ("--source-lang", "-s"), ("--target-lang", "-t")
    for own, key, count in zip(names, OF_TASK, entries, strict=False):
        path = folder / f"dict.{last_value(arguments, *own) or getattr(cfg.task, key, None)}.txt"
        if not path.is_file():
            raise ConfigError(f"fairseq-train {data}: must be a folder of fairseq-preprocess, has no {path.name}")
        if (found := len(Dictionary.load(str(path)))) != count:
            raise ConfigError(
                f"fairseq-train {data}: must have the dictionaries of --checkpoint; {path.name} has {found} entries, "
                f"the checkpoint's embedding {count}"
            )


def _values(group: Any) -> Mapping[str, Any]:
    if isinstance(group, argparse.Namespace):
        return vars(group)
    container: Any = OmegaConf.to_container(OmegaConf.create(group), resolve=True, enum_to_str=True)
    return dict(container)


def _options(declares: Any, values: Mapping[str, Any]) -> list[str]:
    """Options that give ``values``, by the ``add_args`` of a model or a task."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    declares.add_args(parser)
    found, done = [], set()
    for action in parser._actions:
        value = values.get(action.dest)
        if not action.option_strings or value is None or action.dest in done:
            continue
        option = max(action.option_strings, key=len)
        if action.nargs == 0:  # a switch
            if value == action.const and value != action.default:
                found.append(option)
        else:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            found.append(f"{option}={text}")
            done.add(action.dest)
    return found
