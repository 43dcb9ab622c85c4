"""Options that are declared once (:mod:`fairseq_compress.options`) as fairseq's dataclasses."""

import inspect
from dataclasses import Field, dataclass, field
from types import NoneType, UnionType
from typing import Any, Optional, TypeVar, dataclass_transform, get_args

from fairseq_compress.options import default_of, help_of, option, options_of, plain

T = TypeVar("T")


# For mypy options are keywords: it would take one with a positional default for one without.
@dataclass_transform(kw_only_default=True, field_specifiers=(option, field))
def fairseq_options(cls: type[T]) -> type[T]:
    """Decorator in place of ``@dataclass``: choices become fairseq's ``ChoiceEnum``, ``X | None`` ``Optional[X]``.

    fairseq's parser and hydra know no other forms. The help gets the range of the option.
    """
    from fairseq.dataclass import ChoiceEnum

    for name, kind in inspect.get_annotations(cls).items():
        declared: Any = cls.__dict__.get(name)
        if not isinstance(declared, Field) or "needs" not in declared.metadata:
            continue
        declared.metadata = {**declared.metadata, "help": help_of(declared)}  # type: ignore[assignment]
        if isinstance(kind, UnionType) and NoneType in get_args(kind):
            kind = Optional[next(each for each in get_args(kind) if each is not NoneType)]  # noqa: UP045
        if declared.metadata["choices"] is not None:
            kind = ChoiceEnum(list(declared.metadata["choices"]))
        cls.__annotations__[name] = kind
    return dataclass(cls)


def configured(kind: type[T], cfg: Any) -> T:
    """The options of ``kind``, a dataclass of :func:`fairseq_options`, as fairseq's configuration ``cfg`` has them."""
    return kind(**{each.name: plain(getattr(cfg, each.name, default_of(each))) for each in options_of(kind)})
