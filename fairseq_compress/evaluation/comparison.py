"""Experiments: one row a system over its seeds, with differences and significance against a baseline, in Markdown."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from fairseq_compress.corpus.files import PathLike, atomic_write
from fairseq_compress.errors import DataError
from fairseq_compress.evaluation.report import NOT_MEASURED, check_comparable, load_records, markdown_table

Record = Mapping[str, Any]


def write_comparison(inputs: Sequence[PathLike], output: PathLike, title: str, note: str | None = None) -> None:
    """Write the page of :func:`render_comparison` about the records in ``inputs``, atomically.

    Raises:
        ConfigError: no inputs.
        DataError: as ``load_records``, ``check_comparable`` and :func:`render_comparison`.
    """
    records = load_records(inputs)
    check_comparable(records)
    page = render_comparison(records, title, note)
    with atomic_write(output) as file:
        file.write(page)


def render_comparison(records: Sequence[Record], title: str, note: str | None = None) -> str:
    """The page. Records with the same fact ``system`` (or else the same name) are seeds of one system.

    BLEU and chrF2 are means over the seeds, with the sample standard deviation where there are several. ΔBLEU is the
    mean of the differences to the baseline's run with the same seed, p the paired bootstrap's for each seed. Bytes are
    of the first run's file, which is so many times smaller than its parameters in float32; they are told where systems
    differ in them. So is the share of embeddings and output layer in the parameters. Multiply-adds are in millions;
    where they are told, so is the speed of translating the test text. A column about which no record tells anything is
    left out. Where systems were tested against several baselines, each row names its own.

    Raises:
        DataError: runs of one system have the same seed, or were tested against different baselines.
    """
    systems = _systems(records)
    baselines = _baselines(systems)
    table = [_row(name, runs, baselines.get(name, NOT_MEASURED)) for name, runs in systems.items()]
    header = [column for column in table[0] if any(row[column] != NOT_MEASURED for row in table)]
    if len({row["Bytes"] for row in table}) == 1:
        header = [column for column in header if column not in _SIZES]
    if all(row["Times smaller"] in _ONCE for row in table):
        header = [column for column in header if column != "Times smaller"]
    for column in ("Embeddings", "Against"):
        if len({row[column] for row in table} - {NOT_MEASURED}) < 2:
            header = [name for name in header if name != column]
    rows = [[row[column] for column in header] for row in table]
    blocks = [f"# {title}"]
    if note:
        blocks.append(f"> **Note:** {note}")
    blocks.append(f"Translation {records[0]['direction']}, {records[0]['lines']['reference']:,} test sentences.")
    blocks.append(markdown_table(header, rows, texts=sum(column in _TEXTS for column in header)))
    if any(len(runs) > 1 for runs in systems.values()):
        blocks.append("± is the standard deviation over the seeds; p is told seed by seed.")
    if baselines:
        test = next(record["paired_bootstrap"] for record in records if record.get("paired_bootstrap"))
        named = next(iter(baselines.values())) if "Against" not in header else "the system named"
        blocks.append(
            f"ΔBLEU and p are against {named}, each seed against the same seed: paired bootstrap, "
            f"`{test['bleu']['signature']}`."
        )
    signatures = (f"{label} `{records[0][metric]['signature']}`" for metric, label in _METRICS.items())
    blocks.append(f"sacreBLEU signatures, the same for all systems: {', '.join(signatures)}.")
    return "\n\n".join(blocks) + "\n"


_METRICS = {"bleu": "BLEU", "chrf2": "chrF2"}
_TEXTS = ("System", "Data", "Criterion", "Seeds")
_SIZES = ("Bytes", "Times smaller")
_ONCE = ("0.9", "1.0", NOT_MEASURED)  # a plain checkpoint, with its configuration beside the weights


def _fact(record: Record, key: str, default: str = NOT_MEASURED) -> str:
    return str((record.get("facts") or {}).get(key, default))


def _systems(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The runs of each system, in the order in which the systems and their runs come."""
    systems: dict[str, list[Record]] = {}
    for record in records:
        runs = systems.setdefault(_fact(record, "system", record["name"]), [])
        twin = next((run for run in runs if _fact(run, "seed") == _fact(record, "seed")), None)
        if twin is not None:
            raise DataError(
                f"{twin['name']!r} and {record['name']!r} are runs of one system and must differ in seed, "
                f"got {_fact(record, 'seed')} twice"
            )
        runs.append(record)
    return systems


def _baselines(systems: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """The system that each was tested against, of those that were."""
    records = [run for runs in systems.values() for run in runs]
    translations = {record["files"].get("hypothesis", {}).get("name"): record for record in records}
    baselines: dict[str, str] = {}
    for system, runs in systems.items():
        tested = {}
        for run in runs:
            if test := run.get("paired_bootstrap"):
                name = test["baseline"]["name"]
                tested[_fact(translations.get(name, {}), "system", name)] = run["name"]
        if len(tested) > 1:
            (one, first), (other, second) = list(tested.items())[:2]
            raise DataError(
                f"{first!r} was tested against {one} and {second!r} against {other}: runs of one system must have one "
                "baseline, and its runs the same fact 'system' (score --set system=NAME)"
            )
        if tested:
            baselines[system] = next(iter(tested))
    return baselines


def _row(name: str, runs: Sequence[Record], baseline: str) -> dict[str, str]:
    tested = [(run["bleu"], run["paired_bootstrap"]["bleu"]) for run in runs if run.get("paired_bootstrap")]
    differences = [own["score"] - test["baseline_score"] for own, test in tested]
    paces = [float(pace) for run in runs if (pace := (run.get("facts") or {}).get("seconds_per_update"))]
    size = runs[0].get("checkpoint") or {}
    cost = size.get("multiply_adds")
    speeds = [run["speed"]["sentences_per_second"] for run in runs if cost and run.get("speed")]
    return {
        "System": name,
        "Data": _fact(runs[0], "data"),
        "Criterion": _fact(runs[0], "criterion"),
        "Seeds": ", ".join(_fact(run, "seed") for run in runs),
        "Bytes": f"{size['bytes_on_disk']:,}" if size else NOT_MEASURED,
        "Times smaller": f"{size['bytes_float32'] / size['bytes_on_disk']:.1f}" if size else NOT_MEASURED,
        "Embeddings": _share(size),
        **{label: _spread([run[metric]["score"] for run in runs]) for metric, label in _METRICS.items()},
        "ΔBLEU": f"{mean(differences):+.2f}" if differences else NOT_MEASURED,
        "Against": baseline,
        "p": ", ".join(f"{test['p_value']:.3f}" for _, test in tested) or NOT_MEASURED,
        "Multiply-adds (M)": f"{cost / 1e6:,.1f}" if cost else NOT_MEASURED,
        "Sentences a second": f"{mean(speeds):.1f}" if speeds else NOT_MEASURED,
        "Seconds an update": f"{mean(paces):.3f}" if paces else NOT_MEASURED,
    }


def _share(size: Mapping[str, Any]) -> str:
    """Of embeddings and output layer in the parameters."""
    if "bytes_float32_of_embeddings" not in size:
        return NOT_MEASURED
    return f"{100 * size['bytes_float32_of_embeddings'] / size['bytes_float32']:.0f}%"


def _spread(scores: Sequence[float]) -> str:
    spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}"
