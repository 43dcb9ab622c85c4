"""Tables of pages from raw JSON; the pages have those of the JSON in ``docs/results``."""

import importlib.util
import json
import sys

import pytest

from tests.conftest import ROOT

NAME = ROOT / "benchmarks" / "deployment_tables.py"
PAGES = ("deployment.md", "what-survives.md")
MACHINE = {"date": "2026-12-01", "processor": "P", "instructions": ["avx2"], "cores": 2, "versions": {}}
PAGE = "before\n<!-- measured: {} -->\nold\n<!-- end of measured -->\nafter\n"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("deployment_tables", NAME)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def write(folder, row, bleu, p_value=None, **more):
    scores = {key: {"score": value, "signature": key} for key, value in {"bleu": bleu, "chrf2": 50.0}.items()}
    scores["bleu"] |= {} if p_value is None else {"p_value": p_value}
    found = {"model": "m", "row": row, "beam": 5, "sentences": 9, "equal": 8, "differ_alone": 1, "bytes": 1230000}
    found |= {"peak_bytes": 2e6, "measured_on": MACHINE, "timed_on": MACHINE} | scores | more
    (folder / "deployment").mkdir(exist_ok=True)
    (folder / "deployment" / f"{row}.json").write_text(json.dumps(found))


def test_quality(tables, tmp_path):
    write(tmp_path, "onnx int4", 29.5, p_value=0.031)
    write(tmp_path, "torch float32", 30.0)
    (tmp_path / "deployment" / "b.json").write_text(
        json.dumps({"model": "m", "row": "bergamot x", "refused": "no SSRU"})
    )
    page = tables.renewed(PAGE.format("quality"), tmp_path)
    assert page.startswith("before\n<!-- measured: quality -->\n9 sentences, beam 5; BLEU `bleu`, chrF2 `chrf2`")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| m | torch float32 | 1.23 | 30.00 | 50.00 | 8 | 1 | 2 |",
        "| m | onnx int4 | 1.23 | 29.50 (-0.50, p 0.03) | 50.00 (+0.00) | 8 | 1 | 2 |",
    ]
    assert page.endswith("\nm, bergamot x: no SSRU\n<!-- end of measured -->\nafter\n")
    assert tables.renewed(page, tmp_path) == page


def test_speed(tables, tmp_path):
    write(
        tmp_path, "onnx int4", 0, timing={"one, beam 1": [4.0, 2.0, 3.0], "batches, beam 1": [300.0], "one, beam 4": []}
    )
    write(tmp_path, "ctranslate2 int8", 0, timing={"one, beam 1": [6.0], "first, beam 1": [0.5]})
    page = tables.renewed(PAGE.format("speed"), tmp_path)
    assert "| m | onnx int4 | 3.0 ms (0.50) |  | 300 /s |  |  |\n" in page
    assert "| m | ctranslate2 int8 | 6.0 ms (1.00) |  |  |  | 0.50 s (1.00) |\n" in page


def test_without_timings(tables, tmp_path):
    write(tmp_path, "onnx int4", 0)
    assert "\nNot measured yet: " in tables.renewed(PAGE.format("speed"), tmp_path)


def test_an_unknown_table_is_named(tables, tmp_path):
    with pytest.raises(SystemExit, match="no table of the name qualty; there are summary, quality"):
        tables.renewed(PAGE.format("qualty"), tmp_path)


def test_the_pages_are_those_of_the_results(tables, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--check", *(str(ROOT / "docs" / page) for page in PAGES)])
    assert tables.main() == 0, capsys.readouterr().out
