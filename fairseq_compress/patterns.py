"""Regular expressions that are compiled when they are first used: large sets of characters take milliseconds."""

import re
from typing import Any, cast


class _LazyPattern:
    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, name: str) -> Any:  # only for what the instance does not have yet
        found = getattr(re.compile(self._text), name)  # the module remembers compiled patterns
        setattr(self, name, found)
        return found


def lazy_pattern(text: str) -> re.Pattern[str]:
    """As ``re.compile(text)``, compiled at the first use."""
    return cast("re.Pattern[str]", _LazyPattern(text))
