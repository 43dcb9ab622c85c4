"""The table of an experiment: one row a system over its seeds, differences and significance against a baseline."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from fairseq_compress.errors import DataError
from fairseq_compress.evaluation.records import Record, Test, adjusted_tests, fact, speed_of, weight_bytes
from fairseq_compress.evaluation.significance import LEVEL, METHOD

NOT_MEASURED = "–"
METRICS = {"bleu": "BLEU", "chrf2": "chrF2"}
OWN_RATIO = "Times smaller than own float32"
TEXTS = ("System", "Data", "Criterion", "Seeds")


def has_comparison(records: Sequence[Record]) -> bool:
    """Whether the records are runs of systems, or one was tested against a baseline."""
    return any(fact(record, "system") is not None or record.get("paired_bootstrap") for record in records)


def comparison_blocks(records: Sequence[Record]) -> list[str]:
    """The table of :func:`comparison_table` with explanations, in Markdown."""
    header, rows = comparison_table(records)
    blocks = [markdown_table(header, rows, texts=sum(column in TEXTS for column in header))]
    systems = _systems(records)
    if any(len(runs) > 1 for runs in systems.values()):
        blocks.append("± is the standard deviation over the seeds; p is given seed by seed.")
    if baselines := _baselines(systems):
        tests = [record["paired_bootstrap"]["bleu"] for record in records if record.get("paired_bootstrap")]
        signature = f", `{tests[0]['signature']}`" if "signature" in tests[0] else ""
        blocks.append(
            f"ΔBLEU and p are against {_against(records, baselines, header)}: {METHOD}{signature}. "
            f"p (Holm): corrected for the {len(tests)} tests of this page; *: at most {LEVEL}."
        )
    explained = {
        OWN_RATIO: "bytes of the same weights in float32 / bytes.",
        "Embeddings": "the part of the parameters in the embeddings and the output layer.",
    }
    if found := [f"{column}: {text}" for column, text in explained.items() if column in header]:
        blocks.append(" ".join(found))
    return blocks


def comparison_table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and rows. Records with the same fact ``system`` (or else the same name) are seeds of one system.

    BLEU and chrF2 are means over the seeds, with the sample standard deviation. ΔBLEU is the mean difference to the
    baseline's run with the same seed, p that of the paired bootstrap for each seed, also with Holm's correction. Bytes
    (of the first run's weights) and the fraction of embeddings and output layer in the parameters are shown where
    systems differ in them, the speed where multiply-adds are known. Columns that are empty in all rows are omitted.
    """
    systems = _systems(records)
    baselines = _baselines(systems)
    tests = {record["name"]: test for record, test in zip(records, adjusted_tests(records), strict=True)}
    table = [_row(name, runs, tests, baselines.get(name, NOT_MEASURED)) for name, runs in systems.items()]
    hidden = {column for column in table[0] if all(row[column] == NOT_MEASURED for row in table)}
    if len({row["Bytes"] for row in table}) == 1:
        hidden |= {"Bytes", OWN_RATIO}
    if all(row[OWN_RATIO] in ("1.0", NOT_MEASURED) for row in table):
        hidden.add(OWN_RATIO)
    hidden |= {
        column for column in ("Embeddings", "Against") if len({row[column] for row in table} - {NOT_MEASURED}) < 2
    }
    header = [column for column in table[0] if column not in hidden]
    return header, [[row[column] for column in header] for row in table]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table in Markdown; after the first ``texts`` columns all others are numbers, aligned right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def cell(text: object) -> str:
    """Text with bars and line breaks escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def speed_cell(speed: tuple[float, float, float] | None) -> str:
    """Median, and in brackets minimum and maximum."""
    return NOT_MEASURED if speed is None else f"{speed[0]:.1f} ({speed[1]:.1f} to {speed[2]:.1f})"


def _systems(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs of each system, in the order in which the systems and their runs come."""
    systems: dict[str, list[Record]] = {}
    for record in records:
        runs = systems.setdefault(fact(record, "system") or record["name"], [])
        twin = next((run for run in runs if fact(run, "seed") == fact(record, "seed")), None)
        if twin is not None:
            raise DataError(
                f"{twin['name']!r} and {record['name']!r} are runs of one system and must differ in seed, "
                f"got {fact(record, 'seed')} twice"
            )
        runs.append(record)
    return systems


def _baselines(systems: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """The system that each was tested against, of those that were."""
    records = [run for runs in systems.values() for run in runs]
    baselines: dict[str, str] = {}
    for system, runs in systems.items():
        tested = {}
        for run in runs:
            if test := run.get("paired_bootstrap"):
                tested[_system_of(test["baseline"]["name"], records)] = run["name"]
        if len(tested) > 1:
            (one, first), (other, second) = list(tested.items())[:2]
            raise DataError(
                f"{first!r} was tested against {one} and {second!r} against {other}: runs of one system must have one "
                "baseline, and its runs the same fact 'system' (score --set system=NAME)"
            )
        if tested:
            baselines[system] = next(iter(tested))
    return baselines


def _system_of(translation: str, records: Sequence[Record]) -> str:
    """The system whose translation is the file of this name; the file's name if no record tells it."""
    found = [record for record in records if record["files"].get("hypothesis", {}).get("name") == translation]
    return (fact(found[-1], "system") or found[-1]["name"]) if found else translation


def _against(records: Sequence[Record], baselines: Mapping[str, str], header: Sequence[str]) -> str:
    """The baseline in words: its name, its translation if it is one, and the pairing of seeds if there are any."""
    files = {record["paired_bootstrap"]["baseline"]["name"] for record in records if record.get("paired_bootstrap")}
    named = "the system named" if "Against" in header else next(iter(baselines.values()))
    if len(files) == 1 and files != {named}:
        named += f" ({next(iter(files))})"
    paired = len(files) > 1 and any(fact(record, "seed") is not None for record in records)
    return f"{named}, each seed against the same seed" if paired else named


def _row(name: str, runs: Sequence[Record], tests: Mapping[str, Mapping[str, Test]], baseline: str) -> dict[str, str]:
    tested = [found["bleu"] for run in runs if (found := tests[run["name"]])]
    paces = [float(pace) for run in runs if (pace := fact(run, "seconds_per_update"))]
    size = runs[0].get("checkpoint") or {}
    cost, stored = size.get("multiply_adds"), weight_bytes(runs[0])
    return {
        "System": name,
        "Data": fact(runs[0], "data") or NOT_MEASURED,
        "Criterion": fact(runs[0], "criterion") or NOT_MEASURED,
        "Seeds": ", ".join(fact(run, "seed") or NOT_MEASURED for run in runs),
        "Bytes": f"{stored:,}" if stored else NOT_MEASURED,
        OWN_RATIO: f"{size['bytes_float32'] / stored:.1f}" if stored else NOT_MEASURED,
        "Embeddings": _share(size),
        **{label: _spread([run[metric]["score"] for run in runs]) for metric, label in METRICS.items()},
        "ΔBLEU": f"{mean(test.difference for test in tested):+.2f}" if tested else NOT_MEASURED,
        "Against": baseline,
        "p": ", ".join(f"{test.p_value:.4f}" for test in tested) or NOT_MEASURED,
        "p (Holm)": ", ".join(f"{test.p_holm:.4f}{'*' * test.significant}" for test in tested) or NOT_MEASURED,
        "Multiply-adds (M)": f"{cost / 1e6:,.1f}" if cost else NOT_MEASURED,
        "Sentences a second": _speed(runs) if cost else NOT_MEASURED,
        "Seconds an update": f"{mean(paces):.3f}" if paces else NOT_MEASURED,
    }


def _speed(runs: Sequence[Record]) -> str:
    """The mean of the runs' medians, and the least and greatest of all timings."""
    speeds = [speed for run in runs if (speed := speed_of(run))]
    if not speeds:
        return NOT_MEASURED
    medians, least, greatest = zip(*speeds, strict=True)
    return speed_cell((mean(medians), min(least), max(greatest)))


def _share(size: Mapping[str, float]) -> str:
    """Of embeddings and output layer in the parameters."""
    if "bytes_float32_of_embeddings" not in size:
        return NOT_MEASURED
    return f"{100 * size['bytes_float32_of_embeddings'] / size['bytes_float32']:.0f}%"


def _spread(scores: Sequence[float]) -> str:
    return f"{mean(scores):.1f}" + (f" ± {stdev(scores):.1f}" if len(scores) > 1 else "")
