"""Picking modules of a model by the patterns of a plan."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from fairseq_compress.errors import ConfigError

NAMES_SHOWN = 8


def select(names: Iterable[str], patterns: Sequence[str], argument: str) -> list[str]:
    """The names that match a pattern of the shell (``*`` also matches dots), in their own order.

    Args:
        names: of the modules that may be picked.
        patterns: such as ``encoder.layers.*.fc1``; one that starts with ``!`` takes names away again.
        argument: where the patterns come from, for the message.
    """
    known = list(names)
    picked: set[str] = set()
    for pattern in patterns:
        matching = {name for name in known if fnmatchcase(name, pattern.removeprefix("!"))}
        if pattern.startswith("!"):
            if not matching & picked:
                raise ConfigError(f"{argument}: the pattern {pattern!r} takes no module away")
            picked -= matching
        elif not matching:
            shown = ", ".join(known[:NAMES_SHOWN]) + (", ..." if len(known) > NAMES_SHOWN else "")
            raise ConfigError(f"{argument}: the pattern {pattern!r} matches no module; there are {shown or 'none'}")
        picked |= set() if pattern.startswith("!") else matching
    if not picked:
        raise ConfigError(f"{argument}: the patterns {', '.join(patterns) or '(none)'} pick no module")
    return [name for name in known if name in picked]
