"""One value of ``benchmarks/deployment.py``, in a process of its own, which imports no more than ``translate`` does."""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from fairseq_compress import runtimes
from fairseq_compress.evaluation.timing import evenly

ONE_SENTENCES, WARM_UP = 100, 10
Json = dict[str, Any]


def open_model(job: Json, beam: int | None) -> Any:
    from fairseq_compress.corpus.segmentation.choice import Segmentation
    from fairseq_compress.runtimes.options import RuntimeOptions

    search = {} if beam is None else {"beam": beam}
    more = {"data": job["data"], "segmentation": Segmentation(job["sentencepiece"])} if job["is_file"] else {}
    return runtimes.open(job["path"], RuntimeOptions(search, **more))


def outputs_of(model: Any, lines: list[bytes]) -> list[tuple[str, float]]:
    found = (each.hypotheses[0] for each in model.translate(lines))
    return [(best.text, best.score) for best in found]


def quality(job: Json, lines: list[bytes]) -> Json:
    """The outputs, and how many differ alone."""
    model = open_model(job, job["beam"])
    whole = outputs_of(model, lines)
    peak = peak_bytes()
    alone = [outputs_of(model, [line])[0] for line in lines]
    pairs = list(zip(whole, alone, strict=True))
    return {
        "outputs": [text for text, _ in whole],
        "differ_alone": sum(one[0] != two[0] for one, two in pairs),
        "scores_differ_alone": sum(one[1] != two[1] for one, two in pairs),
        "peak_bytes": peak,
    }


def timing(job: Json, lines: list[bytes]) -> float:
    model = open_model(job, job["beam"])
    if job["scenario"] == "batches":
        outputs_of(model, evenly(lines, WARM_UP * 8))
        begin = time.perf_counter()
        outputs_of(model, lines)
        return len(lines) / (time.perf_counter() - begin)
    sentences = evenly(sorted(lines, key=len), ONE_SENTENCES)
    seconds = []
    for line in [*sentences[:: len(sentences) // WARM_UP], *sentences]:
        begin = time.perf_counter()
        outputs_of(model, [line])
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds[-len(sentences) :])


def peak_bytes() -> int:
    """The largest resident size of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    job = json.loads(sys.argv[1])
    lines = Path(job["source"]).read_bytes().splitlines()
    print(json.dumps(quality(job, lines) if job["scenario"] == "quality" else timing(job, lines)))


if __name__ == "__main__":
    main()
