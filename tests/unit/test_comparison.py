"""The table of an experiment: means over seeds, differences, significance, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairseq_compress.cli.main import main
from fairseq_compress.errors import DataError
from fairseq_compress.evaluation.report import render_page
from fairseq_compress.evaluation.significance import METHOD

BLEU = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
TEST = "nrefs:1|bs:1000|seed:12345"


def make_record(system: str, seed: int, bleu: float, against: tuple[str, float, float] | None = None) -> dict[str, Any]:
    """A record; ``against`` is the baseline's translation, its BLEU and the p-value."""
    facts = {"system": system, "seed": str(seed), "data": "gold", "criterion": "c", "seconds_per_update": f"0.{seed}"}
    record = {
        "name": f"{system}.{seed}",
        "direction": "en-cs",
        "bleu": {"score": bleu, "signature": BLEU},
        "bleu_lowercase": {"score": bleu, "signature": "lower"},
        "chrf2": {"score": bleu + 20, "signature": "chrf"},
        "lines": {"reference": 1000},
        "files": {"reference": {"sha256": "ab12"}, "hypothesis": {"name": f"{system}.{seed}.cs"}},
        "facts": facts,
    }
    if against:
        name, score, p_value = against
        test = {"baseline_score": score, "p_value": p_value, "signature": TEST, "method": METHOD}
        record["paired_bootstrap"] = {"baseline": {"name": name}, "bleu": test, "chrf2": test}
    return record


RECORDS = [
    make_record("gold", 1, 26.0),
    make_record("gold", 2, 27.0),
    make_record("a | b", 1, 28.0, ("gold.1.cs", 26.0, 0.004)),
    make_record("a | b", 2, 28.0, ("gold.2.cs", 27.0, 0.0314)),
]


def rows(page: str) -> list[list[str]]:
    """Of the first table, which is the comparison."""
    table = next(block for block in page.split("\n\n") if block.startswith("|"))
    return [line.strip("| ").split(" | ") for line in table.splitlines()]


def test_means_over_seeds_and_differences_seed_by_seed() -> None:
    page = render_page(RECORDS, "Losses", "a note")
    table = rows(page)
    assert table[2] == ["gold", "gold", "c", "1, 2", "26.5 ± 0.7", "46.5 ± 0.7", "–", "–", "–", "0.150"]
    assert table[3] == [
        *("a \\| b", "gold", "c", "1, 2", "28.0 ± 0.0", "48.0 ± 0.0", "+1.50"),
        *("0.0040, 0.0314", "0.0080*, 0.0314*", "0.150"),
    ]
    assert page.startswith("# Losses\n\n> **Note:** a note\n\nTranslation en-cs, 1,000 test sentences.\n")
    assert f"against gold, each seed against the same seed: {METHOD}, `{TEST}`. p (Holm): corrected for the 2" in page
    assert page.count(BLEU) == 1


def test_one_seed_has_no_spread_and_a_baseline_may_stand_outside() -> None:
    page = render_page([RECORDS[2]], "Losses")
    assert rows(page)[2][3:6] == ["1", "28.0", "48.0"]
    assert "±" not in page
    assert "against gold.1.cs: " in page
    assert "ΔBLEU and p" not in render_page([RECORDS[0]], "Losses")


def test_the_baseline_is_named_by_its_record_and_its_translation() -> None:
    """Seeds are mentioned only where there are several pairs of them."""
    assert "against gold (gold.1.cs): " in render_page([RECORDS[0], RECORDS[2]], "Losses")
    records = [make_record("teacher", 1, 30.0), make_record("int8", 1, 29.0, ("teacher.1.cs", 30.0, 0.1))]
    for record in records:
        record["facts"] = {"role": record["name"].split(".")[0]}
    page = render_page(records, "Losses")
    assert "against teacher.1 (teacher.1.cs): " in page
    assert "each seed" not in page


def test_sizes_are_told_where_they_differ_and_empty_columns_are_left_out() -> None:
    records = [make_record("float32", 1, 26.0), make_record("int8", 1, 25.9, ("float32.1.cs", 26.0, 0.3))]
    for record, size in zip(records, (4000, 1000), strict=True):
        record["checkpoint"] = {"bytes": size, "bytes_on_disk": 3 * size, "bytes_float32": 4000}
        record["facts"] = {"system": record["facts"]["system"], "seed": "1"}
    table = rows(render_page(records, "Sizes"))
    size = ["Bytes", "Times smaller than own float32"]
    assert table[0] == ["System", "Seeds", *size, "BLEU", "chrF2", "ΔBLEU", "p", "p (Holm)"]
    assert table[2] == ["float32", "1", "4,000", "1.0", "26.0", "46.0", "–", "–", "–"]
    assert table[3] == ["int8", "1", "1,000", "4.0", "25.9", "45.9", "-0.10", "0.3000", "0.3000"]
    records[1]["checkpoint"] = records[0]["checkpoint"]
    assert "Bytes" not in rows(render_page(records, "Sizes"))[0]


def test_costs_and_speed_are_told_where_they_were_measured() -> None:
    records = [make_record("gold", 1, 26.0), make_record("a", 1, 28.0)]
    sizes = ({"multiply_adds": 61_440_000}, {"multiply_adds": 1_234_567_890}), (40.04, 7.96)
    for record, size, speed, stored in zip(records, *sizes, (4_100, 3_900), strict=True):
        record["checkpoint"] = size | {"bytes": stored, "bytes_float32": stored, "cost_tokens": 20}
        record["speed"] = {"sentences_per_second": speed, "sentences_per_second_range": [speed - 1, speed + 1]}
    header, _, first, second = rows(render_page(records, "Sizes"))
    assert "Times smaller than own float32" not in header  # of a plain checkpoint it says nothing
    told = [header.index(name) for name in ("Bytes", "Multiply-adds (M)", "Sentences a second")]
    assert [first[i] for i in told] == ["4,100", "61.4", "40.0 (39.0 to 41.0)"]
    assert [second[i] for i in told] == ["3,900", "1,234.6", "8.0 (7.0 to 9.0)"]
    for record in records:
        del record["checkpoint"]["multiply_adds"]
    assert not {"Multiply-adds (M)", "Sentences a second"} & set(rows(render_page(records, "Sizes"))[0])


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(DataError, match=r"'gold.1' and 'gold.1' are runs of one system and must differ in seed, got 1"):
        render_page([RECORDS[0], RECORDS[0]], "Losses")
    other = make_record("a | b", 3, 25.0, ("a.1.cs", 26.0, 0.5))
    with pytest.raises(DataError, match=r"'a \| b.2' was tested against gold and 'a \| b.3' against a.1.cs"):
        render_page([*RECORDS, other], "Losses")


def test_several_baselines_are_named_row_by_row() -> None:
    records = [
        make_record("alone@8", 1, 26.0), make_record("alone@9", 1, 27.0),
        make_record("both@8", 1, 28.0, ("alone@8.1.cs", 26.0, 0.01)),
        make_record("both@9", 1, 28.0, ("alone@9.1.cs", 27.0, 0.02)),
    ]  # fmt: skip
    page = render_page(records, "Sizes")
    header, _, *found = rows(page)
    assert [row[header.index("Against")] for row in found] == ["–", "–", "alone@8", "alone@9"]
    assert [row[header.index("ΔBLEU")] for row in found] == ["–", "–", "+2.00", "+1.00"]
    assert "against the system named, each seed" in page
    assert "Against" not in rows(render_page(RECORDS, "Losses"))[0]


def test_the_share_of_embeddings_where_it_differs() -> None:
    records = [make_record("large", 1, 26.0), make_record("small", 1, 25.0)]
    for record, share in zip(records, (3000, 1010), strict=True):
        sizes = {"bytes": 4000 + share, "bytes_float32": 4000, "bytes_float32_of_embeddings": share}
        record["checkpoint"] = sizes
    header, _, *found = rows(render_page(records, "Sizes"))
    assert [row[header.index("Embeddings")] for row in found] == ["75%", "25%"]
    told = "Embeddings: the part of the parameters in the embeddings and the output layer."
    assert told in render_page(records, "Sizes")
    records[1]["checkpoint"] = records[0]["checkpoint"]
    page = render_page(records, "Sizes")
    assert "Embeddings" not in rows(page)[0]
    assert told not in page


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{index}.json" for index in range(len(RECORDS))]
    for path, record in zip(paths, RECORDS, strict=True):
        path.write_text(json.dumps(record), encoding="utf-8")
    output, table = tmp_path / "out" / "table.md", tmp_path / "out" / "table.json"
    assert main(["report", "--scores", *map(str, paths), "--output", str(output), str(table), "--title", "T"]) == 0
    assert capsys.readouterr().out == f"{output}\n{table}\n"
    assert output.read_text(encoding="utf-8").startswith("# T\n")
    assert sorted(path.name for path in output.parent.iterdir()) == ["table.json", "table.md"]
    found = json.loads(table.read_text(encoding="utf-8"))
    assert [row["System"] for row in found["comparison"]] == ["gold", "a | b"]
    assert [row["System"] for row in found["table"]] == ["gold.1", "gold.2", "a | b.1", "a | b.2"]
    assert [system["name"] for system in found["systems"]] == ["gold.1", "gold.2", "a | b.1", "a | b.2"]
    assert found["systems"][2]["tests"]["bleu"]["p_holm"] == 0.008
    assert str(tmp_path) not in table.read_text(encoding="utf-8")
    assert main(["report", "--scores", str(paths[0]), "--output", str(paths[0])]) == 1
    assert "is also an input" in capsys.readouterr().err
