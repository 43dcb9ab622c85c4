"""Numpy scalars and arrays in checkpoints, built from their bytes without calling numpy's unpickling code.

``--eval-bleu`` and other metrics of fairseq leave numpy values in ``extra_state``. A pickle of one names a function of
numpy, ``numpy.dtype`` and, for an array, ``numpy.ndarray``, and hands a state to what they make. numpy trusts such a
state: a wrong dtype turns bytes of the file into pointers. So torch's unpickler gets functions and classes of this
module under numpy's names, which accept plain numbers and texts only.
"""

import math
import pickle
from typing import Any

import numpy as np

KINDS = "biufcSU"  # bool, integers, floats, complex numbers, bytes, texts


class PickledDtype:
    """In place of ``numpy.dtype``: a type of numbers or texts, and a byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        dtype = np.dtype(code) if type(code) is str else np.dtype(object)
        if dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"it holds numpy values of dtype {code!r}, must be numbers or texts")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, byte_order, *structure = state[:5]
        if byte_order not in ("<", ">", "|", "=") or structure != [None, None, None]:
            raise pickle.UnpicklingError("it holds numpy values of a structured dtype, must be numbers or texts")
        self.dtype = self.dtype.newbyteorder(byte_order)

    def __reduce__(self) -> Any:
        return self.dtype.__reduce__()

    def read(self, data: bytes | str, shape: tuple[int, ...]) -> np.ndarray:
        """The values of an array, in C order."""
        # numpy 1 wrote bytes as text in some protocols
        raw = data.encode("latin1") if isinstance(data, str) else data
        sizes = type(shape) is tuple and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or type(raw) is not bytes or len(raw) != math.prod(shape) * self.dtype.itemsize:
            raise pickle.UnpicklingError("it holds a damaged numpy value: bytes and shape differ")
        return np.frombuffer(raw, self.dtype).copy() if raw else np.zeros(math.prod(shape), self.dtype)


class PickledArray:
    """In place of an array of ``numpy.ndarray``; :func:`plain_arrays` makes an array of it."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, data = state
        if type(dtype) is not PickledDtype:
            raise pickle.UnpicklingError("it holds a damaged numpy array: no dtype")
        self.array = dtype.read(data, shape).reshape(shape, order="F" if fortran_order else "C")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.array.__reduce_ex__(protocol)


def empty_array(kind: type, shape: Any, code: Any) -> PickledArray:
    """In place of ``_reconstruct``: arrays get their contents from :meth:`PickledArray.__setstate__`."""
    if kind is not PickledArray:
        raise pickle.UnpicklingError(f"it holds an array of the class {kind!r}, must be numpy.ndarray")
    return PickledArray()


def scalar(dtype: PickledDtype, data: bytes | str = b"") -> Any:
    """In place of ``scalar``: one number or text."""
    if type(dtype) is not PickledDtype:
        raise pickle.UnpicklingError("it holds a damaged numpy value: no dtype")
    return dtype.read(data, ())[0]


def no_bytes() -> bytes:
    """In place of ``bytes``, which pickles call for empty ones."""
    return b""


# what torch's unpickler builds for each name in a file; numpy 2 moved its modules
NUMPY_CLASSES: tuple[tuple[Any, str], ...] = (
    (PickledDtype, "numpy.dtype"),
    (PickledArray, "numpy.ndarray"),
    *((empty_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (no_bytes, "builtins.bytes"),
    *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)


def plain_arrays(value: Any) -> Any:
    """``value`` with real arrays and dtypes in place of those of this module, in dictionaries, lists and tuples."""
    if type(value) is PickledArray:
        return value.array
    if type(value) is PickledDtype:
        return value.dtype
    if isinstance(value, dict):
        for key, part in value.items():
            value[key] = plain_arrays(part)
    elif type(value) is list:
        value[:] = map(plain_arrays, value)
    elif type(value) is tuple:
        return tuple(map(plain_arrays, value))
    return value
