"""fairseq-generate in this process, and then its search alone on a sample of its batches, several times."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from fairseq import tasks
from fairseq_cli import generate

from fairseq_compress.evaluation.timing import LEAST_TIMINGS, SAMPLE_SENTENCES, Timings, evenly

SAMPLE_BATCHES = 4


class _Call(NamedTuple):
    search: Callable[[], Any]
    sentences: int


def generate_and_time(runs: int = LEAST_TIMINGS) -> Timings:
    """Run fairseq-generate by ``sys.argv`` with its batches in memory, and time a sample of them ``runs`` times."""
    calls: list[_Call] = []
    original = tasks.setup_task

    def setup_task(*args: Any, **kwargs: Any) -> Any:
        task = original(*args, **kwargs)
        step = task.inference_step

        def inference_step(generator: Any, models: Any, sample: Any, *rest: Any, **named: Any) -> Any:
            calls.append(_Call(lambda: step(generator, models, sample, *rest, **named), sample["id"].numel()))
            return step(generator, models, sample, *rest, **named)

        task.inference_step = inference_step
        return task

    tasks.setup_task = setup_task
    try:
        generate.cli_main()
    finally:
        tasks.setup_task = original
    sample = spread(calls)
    return Timings(sum(call.sentences for call in sample), [_seconds(sample) for _ in range(runs)])


def spread(calls: Sequence[_Call]) -> list[_Call]:
    """Batches of about :data:`SAMPLE_SENTENCES` sentences or all, evenly over the lengths."""
    total = sum(call.sentences for call in calls)
    return evenly(calls, max(SAMPLE_BATCHES, -(-len(calls) * SAMPLE_SENTENCES // max(1, total))))


def _seconds(calls: Sequence[_Call]) -> float:
    _wait()
    begin = time.perf_counter()
    for call in calls:
        call.search()
    _wait()
    return time.perf_counter() - begin


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
