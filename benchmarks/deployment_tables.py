"""Measured tables of pages, made of the raw JSON in ``docs/results``.

    python benchmarks/deployment_tables.py [--results docs/results] [--check] PAGE ...

Every text between ``<!-- measured: NAME -->`` and ``<!-- end of measured -->`` in a page is replaced by the table NAME:

``summary``, ``quality``, ``speed``
    of ``deployment/*.json``, which ``benchmarks/deployment.py`` writes.
``form-sizes``, ``form-equality``
    of ``exported-forms-sizes.json`` and ``exported-forms-equality.json``, of ``benchmarks/exported_forms.py``.

With --check nothing is written, and the exit status is 1 if a page would change.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEER = "ctranslate2 int8"
SCENARIOS = {  # key -> column, unit, whether more is better
    "one, beam 1": ("one sentence, beam 1", "ms", False),
    "one, beam 4": ("one sentence, beam 4", "ms", False),
    "batches, beam 1": ("batches, beam 1", "/s", True),
    "batches, beam 4": ("batches, beam 4", "/s", True),
    "first, beam 1": ("first translation", "s", False),
}
IN_FULL = re.compile(r" packed |plan int8|ctranslate2 float32")  # rows that only the full tables have
MARKED = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end of measured -->)", re.DOTALL)
Json = dict[str, Any]


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first two columns are text."""
    right = [":" if place > 0 else "" for place in range(len(header))]
    lines = [header, [f"---{each}" for each in right], *rows]
    return "".join(f"|{'|'.join(line)}|\n" if line is lines[1] else f"| {' | '.join(line)} |\n" for line in lines)


def deployment(results: Path) -> list[Json]:
    """The rows that were measured, in the order of the benchmark."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((results / "deployment").glob("*.json"))]
    return sorted(found, key=lambda each: (each["model"], place(each["row"])))


def place(row: str) -> tuple[int, int, str]:
    """Of a row in a table."""
    runtimes = ("torch", "onnx", "ctranslate2", "bergamot")
    kinds = ("float32", "int8", "int8_batch", "int8_calibrated", "int8_block", "int4", "plan", "packed")
    ranks = [
        known.index(part) if part in known else len(known)
        for part, known in zip(row.split(), (runtimes, kinds), strict=False)
    ]
    return ranks[0], ranks[1], row


def difference(row: Json, base: Json, key: str) -> str:
    """A score, its difference to the checkpoint's, and the p value of that."""
    score, p_value = row[key]["score"], row[key].get("p_value")
    known = p_value is not None and row["model"] == base["model"]
    tested = "" if not known else f", p {p_value:.2f}" if p_value >= 0.005 else ", p < 0.01"
    return f"{score:.2f}" if row is base else f"{score:.2f} ({score - base[key]['score']:+.2f}{tested})"


def quality(results: Path) -> str:
    header = ["model", "export", "MB", "BLEU", "chrF2", "equal outputs", "differ alone", "peak MB in memory"]
    every = deployment(results)
    measured = [each for each in every if "refused" not in each]
    base = {each["model"]: each for each in measured if each["row"] == "torch float32"}
    rows = []
    for each in measured:
        first = base.get(each["model"], each)
        scores = [difference(each, first, key) for key in ("bleu", "chrf2")]
        rows.append([
            each["model"], each["row"], f"{each['bytes'] / 1e6:.2f}",
            *scores, f"{each['equal']:,}",
            f"{each['differ_alone']:,}", f"{each['peak_bytes'] / 1e6:.0f}",
        ])  # fmt: skip
    one, beams = measured[0], sorted({each["beam"] for each in measured})
    told = (
        f"{one['sentences']:,} sentences, beam {' and '.join(map(str, beams))}; BLEU `{one['bleu']['signature']}`, "
        f"chrF2 `{one['chrf2']['signature']}`, in brackets the difference to the checkpoint, with the p "
        f"value of a two-sided paired bootstrap; "
        f"{machine(one['measured_on'])}.\n\n"
    )
    refused = [f"\n{each['model']}, {each['row']}: {each['refused']}\n" for each in every if "refused" in each]
    return told + table(header, rows) + "".join(refused)


def summary(results: Path) -> str:
    """One model, the rows that one chooses from."""
    header = ["export", "MB", "BLEU", "equal outputs", "depend on their batch", "one sentence, ms", "sentences/s"]
    measured = [each for each in deployment(results) if "refused" not in each and not IN_FULL.search(each["row"])]
    first, rows = measured[0], []
    for each in measured:
        if each["model"] == first["model"] or each["row"].endswith(" own"):
            own = medians(each)
            times = [own.get("one, beam 1"), own.get("batches, beam 4")]
            name = each["row"] if each["model"] == first["model"] else f"{each['row']}, {each['model']}"
            rows.append([
                name, f"{each['bytes'] / 1e6:.2f}", difference(each, first, "bleu"),
                f"{each['equal']:,}", f"{each['differ_alone']:,}", "" if times[0] is None else f"{times[0]:.1f}",
                "" if times[1] is None else f"{times[1]:,.0f}",
            ])  # fmt: skip
    parameters = next((each["parameters"] for each in measured if "parameters" in each), 0)
    told = (
        f"{parameters:,} parameters, {first['sentences']:,} sentences, beam {first['beam']}; one sentence at "
        f"beam 1, many at beam 4; {machine(first['measured_on'])}:\n\n"
    )
    return told + table(header, rows)


def speed(results: Path) -> str:
    header = ["model", "export", *(name for name, _, _ in SCENARIOS.values())]
    every = [each for each in deployment(results) if any(each.get("timing", {}).values())]
    if not every:
        return "Not measured yet: `benchmarks/deployment.py --only-timing`, on an idle machine.\n"
    peers = {each["model"]: medians(each) for each in every if each["row"] == PEER}
    rows = []
    for each in every:
        cells, own, peer = [], medians(each), peers.get(each["model"], {})
        for key, (_, unit, more) in SCENARIOS.items():
            value = own.get(key)
            ratio = value / peer[key] if value is not None and key in peer else None
            digits = "{:,.0f}" if more else "{:.2f}" if unit == "s" else "{:.1f}"
            shown = "" if value is None else digits.format(value) + f" {unit}"
            cells.append(shown + ("" if ratio is None else f" ({ratio:.2f})"))
        rows.append([each["model"], each["row"], *cells])
    rounds = max(len(values) for each in every for values in each["timing"].values())
    told = (
        f"Medians of {rounds} interleaved rounds, in brackets relative to {PEER}; {machine(every[0]['timed_on'])}.\n\n"
    )
    return told + table(header, rows)


def medians(row: Json) -> dict[str, float]:
    return {key: statistics.median(values) for key, values in row.get("timing", {}).items() if values}


def machine(facts: Json) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    instructions = f" with {', '.join(facts['instructions'])}" if facts["instructions"] else ""
    return f"{facts['date']}, {facts['processor']}{instructions}, {facts['cores']} cores; {versions}"


def form_sizes(results: Path) -> str:
    found = json.loads((results / "exported-forms-sizes.json").read_text(encoding="utf-8"))
    run = found.pop("run")
    plans = [key for key in next(iter(found.values())) if key not in ("float32", "parameters")]
    header = ["form", "parameters", *(f"{plan}: {what}" for plan in plans for what in ("packed MB", "exported"))]
    rows = []
    for form, sizes in found.items():
        cells = [form, f"{sizes['parameters']:,}"]
        for plan in plans:
            if "refused" in sizes[plan]:
                cells += ["", ""]
                continue
            packed, whole = sizes[plan]["packed"], sizes[plan]["all"]
            cells += [f"{packed / 1e6:.2f}", f"{whole / 1e6:.2f} ({whole / packed - 1:+.1%})"]
        rows.append(cells)
    return f"`{run['arch']}`, {run['vocabulary']:,} entries, newly initialized.\n\n" + table(header, rows)


def form_equality(results: Path) -> str:
    found = json.loads((results / "exported-forms-equality.json").read_text(encoding="utf-8"))
    run = found.pop("run")
    header = ["form", "parameters", "equal translations", "distinct translations", "words"]
    rows = [
        [form, f"{each['parameters']:,}", f"{each['sentences'] - len(each['unequal']):,} of {each['sentences']:,}",
         f"{each['distinct']:,}", f"{each['words']:,}"]
        for form, each in found.items()
    ]  # fmt: skip
    told = f"`{run['arch']} {' '.join(run['options'])}`, {run['vocabulary']:,} entries, {run['updates']:,} updates.\n\n"
    return told + table(header, rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "summary": summary, "quality": quality, "speed": speed, "form-sizes": form_sizes, "form-equality": form_equality,
}  # fmt: skip


def renewed(page: str, results: Path) -> str:
    """A page with the tables of today."""
    if unknown := {name for _, name, _ in MARKED.findall(page)} - TABLES.keys():
        raise SystemExit(f"no table of the name {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]](results)}{found[3]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    changed = []
    for path in args.pages:
        page = path.read_text(encoding="utf-8")
        if (new := renewed(page, args.results)) != page:
            changed.append(path)
            if not args.check:
                path.write_text(new, encoding="utf-8")
    for path in changed:
        print(f"{path}: {'differs from its JSON' if args.check else 'written'}")
    return int(args.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
