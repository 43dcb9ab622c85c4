"""The report: its table, what it refuses to compare, and its picture."""

import copy
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from fairseq_compress.cli.main import main
from fairseq_compress.errors import DataError
from fairseq_compress.evaluation.picture import Point, comparison_figure, draw_comparison, pareto_front, point_of
from fairseq_compress.evaluation.records import facts_of, read_systems
from fairseq_compress.evaluation.report import render_page, write_report
from fairseq_compress.evaluation.significance import METHOD

CASED = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
CHRF = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def make_record(name: str, bleu: float, size: int | None, speed: float | None, **facts: str) -> dict[str, Any]:
    return {
        "name": name,
        "direction": "en-cs",
        "bleu": {"score": bleu, "signature": CASED},
        "bleu_lowercase": {"score": bleu + 0.5, "signature": CASED.replace("mixed", "lc")},
        "chrf2": {"score": bleu + 20, "signature": CHRF},
        "lines": {"hypothesis": 1000, "reference": 1000},
        "files": {"reference": {"name": "test.cs", "sha256": "ab12"}},
        # The file of a training holds Adam's moments too: three times the weights.
        "checkpoint": size
        and {"parameters": size // 4, "bytes": size, "bytes_on_disk": 3 * size, "bytes_float32": size},
        "speed": speed and {"sentences_per_second": speed, "sentences_per_second_range": [speed - 1, speed + 2]},
        "facts": facts,
    }


TEACHER = make_record("teacher", 30.04, 124_000_000, 20.0, role="teacher", seed="1", updates="9000")
STUDENT = make_record("student | tiny", 27.0, 15_500_000, 90.0, role="student", seed="1")
UNKNOWN = make_record("unmeasured", 26.0, None, None, seed="1")


def save(folder: Path, *records: dict[str, Any]) -> list[Path]:
    paths = [folder / f"{index}.json" for index in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        path.write_text(json.dumps(record), encoding="utf-8")
    return paths


def rows(page: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]


def test_table_has_sizes_speeds_and_ratios_against_the_teacher() -> None:
    page = render_page([STUDENT, TEACHER, UNKNOWN], "Systems", "synthetic demo corpus")
    table = rows(page)
    assert table[0][-5:] == ["Parameters", "MB of weights", "Sentences/s", "Times smaller", "Times faster"]
    fast, slow = "90.0 (89.0 to 92.0)", "20.0 (19.0 to 22.0)"
    assert table[2] == ["student \\| tiny", "27.0", "27.5", "47.0", "3,875,000", "15.5", fast, "8.0×", "4.5×"]
    assert table[3] == ["teacher", "30.0", "30.5", "50.0", "31,000,000", "124.0", slow, "1.0×", "1.0×"]
    assert table[4] == ["unmeasured", "26.0", "26.5", "46.0", "–", "–", "–", "–", "–"]
    assert page.startswith("# Systems\n\n> **Note:** synthetic demo corpus\n")
    assert "bytes of the weights" in page
    assert page.count(CASED) == 1
    assert "The same for all systems: seed = 1." in page
    assert ["teacher", "teacher", "9000"] in table


def test_without_a_teacher_there_are_no_ratios() -> None:
    assert "Times smaller" not in render_page([STUDENT, UNKNOWN], "Systems")


def with_test(record: dict[str, Any], p_value: float) -> dict[str, Any]:
    numbers = {"baseline_score": 26.2, "p_value": p_value, "signature": "bs:10000", "method": METHOD}
    return record | {"paired_bootstrap": {"baseline": {"name": "no-kd.cs"}, "bleu": numbers, "chrf2": numbers}}


def test_bootstrap_tests_are_shown_with_holms_correction() -> None:
    records = [TEACHER, with_test(STUDENT, 0.02), with_test(UNKNOWN, 0.03)]  # 2 * 0.02, and then max(0.04, 0.03)
    page = render_page(records, "Systems")
    header, _, _, student, unknown = rows(page)[:5]
    shown = [header.index(name) for name in ("System", "ΔBLEU", "p", "p (Holm)")]
    assert [student[i] for i in shown] == ["student \\| tiny", "+0.80", "0.0200", "0.0400*"]
    assert [unknown[i] for i in shown] == ["unmeasured", "-0.20", "0.0300", "0.0400*"]
    assert "ΔBLEU and p are against no-kd.cs: " in page
    assert "p (Holm): corrected for the 2 tests of this page" in page
    page = render_page([with_test(STUDENT, 0.03), with_test(UNKNOWN, 0.04)], "Systems")
    assert " 0.0300 | 0.0600 |" in page
    assert "0.0400*" not in page
    assert "Holm" not in render_page([TEACHER], "Systems")


def test_facts_of_the_model_come_from_its_checkpoint() -> None:
    told = STUDENT["checkpoint"] | {"architecture": "tiny", "encoder_layers": 3, "decoder_layers": 1, "updates": 7}
    record = STUDENT | {"checkpoint": told, "facts": {"updates": "9", "seed": "1"}}
    assert facts_of(record) == {"architecture": "tiny", "layers": "3+1", "updates": "7", "seed": "1"}
    page = render_page([record], "Systems")
    assert "architecture = tiny; layers = 3+1; updates = 7; seed = 1" in page
    assert facts_of(UNKNOWN) == {"seed": "1"}


def test_exports_of_one_model_are_told_apart() -> None:
    records = []
    for quantization in ("float32", "int8"):
        told = STUDENT["checkpoint"] | {"architecture": "tiny", "runtime": "onnx", "quantization": quantization}
        records.append(STUDENT | {"name": f"student-{quantization}", "checkpoint": told})
    page = render_page([TEACHER, *records], "Systems")
    for quantization in ("float32", "int8"):
        (row,) = (line for line in page.splitlines() if f"| student-{quantization} |" in line and "onnx" in line)
        assert {"tiny", "onnx", quantization} <= {cell.strip() for cell in row.split("|")}


def test_cautions_of_the_scores_are_on_the_page() -> None:
    page = render_page([TEACHER, STUDENT | {"cautions": ["90% of the lines are pieces"]}], "Systems")
    assert page.endswith("**Cautions:**\n\n- student \\| tiny: 90% of the lines are pieces\n")


def changed(*keys: str, value: object) -> dict[str, Any]:
    record = copy.deepcopy(STUDENT)
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return record


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            changed("files", "reference", "sha256", value="cd34"),
            "'teacher' and .* the SHA-256 of the reference is ab12 and cd34",
        ),
        (
            changed("chrf2", "signature", value="other"),
            "'teacher' and 'student . tiny' .* the signature of chrF2 is .* and other",
        ),
        (changed("direction", value="cs-en"), "the direction is en-cs and cs-en"),
        (changed("name", value="teacher"), r"0\.json and .*1\.json both describe a system named 'teacher'"),
        (changed("bleu", "score", value=None), r"1\.json: lacks bleu\.score"),
        (changed("files", value=[]), r"1\.json: lacks files\.reference\.sha256"),
        (changed("checkpoint", value={"bytes_on_disk": 5}), r"1\.json: it does not tell the bytes of the weights; run"),
        (changed("speed", value={"sentences_per_second": 5.0}), r"1\.json: its speed is of one timing; run"),
        (
            STUDENT | {"paired_bootstrap": {"baseline": {"name": "b"}, "bleu": {"p_value": 0.02}}},
            r"1\.json: its p values are of another test; run 'fairseq-compress score' of this version again",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_report(save(tmp_path, TEACHER, other), [tmp_path / "out"], "Systems")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"name": ')
    (tmp_path / "list.json").write_text("[1]")
    for name, message in (("half", "is not JSON"), ("list", "lacks name"), ("none", "cannot be read")):
        with pytest.raises(DataError, match=rf"{name}\.json: {message}"):
            read_systems([tmp_path / f"{name}.json"])


def test_picture_is_deterministic_and_carries_the_note() -> None:
    points = [
        Point("teacher", 30, 124.0, 20.0, "teacher"),
        Point("student", 27, 15.5, 90.0),
        Point("unmeasured", 26, None, None),
    ]

    def draw(note: str | None) -> bytes:
        file = io.BytesIO()
        draw_comparison(points, "Systems", note, file)
        return file.getvalue()

    assert draw("synthetic") == draw("synthetic")
    for note in ("synthetic", "synthetic " * 40):
        figure = comparison_figure(points, "Systems", note)
        text = figure.texts[-1]
        assert text.get_text().split() == note.split()
        assert all(axes.title.get_window_extent().y1 < text.get_window_extent().y0 for axes in figure.axes)
        assert text.get_window_extent().x1 < figure.bbox.x1
    assert draw(None) != draw("synthetic")


def test_nothing_measured_still_draws() -> None:
    draw_comparison([Point("a", 0.0, None, None)], "Systems", None, io.BytesIO())


def test_axis_data_equal_the_records() -> None:
    exported = make_record("exported", 26.8, 4_000_000, 400.0, role="exported")
    figure = comparison_figure([point_of(record) for record in (TEACHER, STUDENT, exported, UNKNOWN)], "T", None)
    want = {
        "teacher": (124.0, 20.0, 30.04), "student | tiny": (15.5, 90.0, 27.0), "exported": (4.0, 400.0, 26.8),
    }  # fmt: skip
    markers = []
    axes: Any
    for place, axes in enumerate(figure.axes):
        drawn = {str(mark.get_label()): mark.get_offsets()[0].tolist() for mark in axes.collections}
        assert drawn == {name: [values[place], values[2]] for name, values in want.items()}
        markers.append([len(mark.get_paths()[0].vertices) for mark in axes.collections])
        (front,) = axes.lines
        by_x = sorted((values[place], values[2]) for values in want.values())
        assert list(zip(*front.get_data(), strict=True)) == by_x  # no system is worse than another in both
    assert figure.axes[0].get_xscale() == "log"
    assert len(set(markers[0])) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "teacher", "student", "exported", "system", "Pareto front: no system is better in both",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("smaller_is_better", "front"),
    [(True, [(1, 5), (2, 7), (4, 9)]), (False, [(4, 9), (6, 6), (8, 2)])],
)
def test_pareto_front_by_hand(smaller_is_better: bool, front: list[tuple[float, float]]) -> None:
    points = [(4, 9), (2, 7), (1, 5), (2, 3), (6, 6), (8, 2), (4, 8), (5, 6), (2, 7)]
    assert pareto_front(points, smaller_is_better=smaller_is_better) == front
    for x, y in front:
        beaten = [(a <= x if smaller_is_better else a >= x) and b >= y and (a, b) != (x, y) for a, b in points]
        assert not any(beaten)


def test_labels_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    from fairseq_compress.evaluation import picture

    boxes: list[Any] = []
    place = picture._place_label

    def spy(*args: Any) -> Any:
        boxes.append((args[0], place(*args)))
        return boxes[-1][1]

    monkeypatch.setattr(picture, "_place_label", spy)
    names = ("teacher 6+6", "student, no KD", "student, word-level KD", "student, word and sequence KD", "student tiny")
    points = [Point(name, 29 + 0.1 * i, 27.0, 60.0 + i) for i, name in enumerate(names)]
    draw_comparison(points, "Systems", None, io.BytesIO())
    assert len(boxes) == 10
    for i, (axes, box) in enumerate(boxes):
        assert not any(axes is other_axes and box.overlaps(other) for other_axes, other in boxes[:i])
        assert box.x0 >= axes.bbox.x0
        assert box.x1 <= axes.bbox.x1


def test_long_names_and_formulas() -> None:
    name = "a-system-with-a-name-that-is-much-longer-than-any-panel-of-the-picture-is-wide"
    figure = comparison_figure([Point(name, 20, 1.0, 5.0), Point("$5$", 21, 2.0, 100.0)], "T", None)
    shown = [text.get_text() for text in figure.axes[1].texts if text.get_text()]
    assert shown == ["a-system-with-a-…picture-is-wide", r"\$5\$"]
    assert figure.axes[1].get_xscale() == "log"  # 20 times as fast


def test_svg_is_deterministic_text_on_white() -> None:
    drawn = []
    for _ in range(2):
        file = io.BytesIO()
        draw_comparison([Point("teacher", 30, 124.0, 20.0, "teacher")], "Systems <1>", "one run", file, "svg")
        drawn.append(file.getvalue())
    assert drawn[0] == drawn[1]
    svg = ElementTree.fromstring(drawn[0])
    texts = {text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"teacher", "Systems <1>", "one run", "BLEU"} <= texts
    assert b'style="fill: #ffffff"' in drawn[0]


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [str(path) for path in save(tmp_path, TEACHER, STUDENT)]
    output = tmp_path / "deep" / "report"
    assert main(["report", "--scores", *inputs, "--output", str(output), "--note", "synthetic"]) == 0
    names = ["report.md", "report.png", "report.json"]
    assert capsys.readouterr().out == "".join(f"{output / name}\n" for name in names)
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    assert "> **Note:** synthetic" in (output / "report.md").read_text(encoding="utf-8")
    assert imread(output / "report.png").shape[:2] == (720, 1500)
    assert main(["report", "--scores", str(tmp_path / "none.json"), "--output", str(output)]) == 1
    assert capsys.readouterr().err.startswith("fairseq-compress report: error: ")


def test_the_table_as_json(tmp_path: Path) -> None:
    write_report(
        save(tmp_path, TEACHER, with_test(STUDENT, 0.02), with_test(UNKNOWN, 0.03)), [tmp_path / "out"], "T", "N"
    )
    text = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    table = json.loads(text)
    assert text == json.dumps(table, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    assert str(tmp_path) not in text
    assert (table["title"], table["note"], table["direction"]) == ("T", "N", "en-cs")
    assert table["table"][1]["MB of weights"] == "15.5"
    teacher, student, unknown = table["systems"]
    assert (teacher["tests"], student["checkpoint"]["bytes"]) == ({}, 15_500_000)
    assert unknown["tests"]["bleu"] == {
        "baseline": "no-kd.cs", "difference": pytest.approx(-0.2), "p_value": 0.03, "p_holm": 0.04, "significant": True,
    }  # fmt: skip
    assert student["speed"]["sentences_per_second_range"] == [89.0, 92.0]
    assert student["bleu"]["signature"] == CASED


@pytest.mark.parametrize("kept", [True, False])
def test_a_report_from_a_report(tmp_path: Path, kept: bool) -> None:
    """Page, JSON and picture of a report.json are those of its records; also of one without the tests' records."""
    records = save(tmp_path, TEACHER, with_test(STUDENT, 0.02), with_test(UNKNOWN, 0.03))
    (first,) = write_report(records, [tmp_path / "first.json"], "T", "N")
    if not kept:
        table = json.loads(first.read_text(encoding="utf-8"))
        for system in table["systems"]:
            system.pop("paired_bootstrap", None)
        first.write_text(json.dumps(table), encoding="utf-8")
    names = ["page.md", "page.svg", "page.json"]
    for source, folder in ((records, "a"), ([first], "b")):
        given = ("T", "N") if folder == "a" else ()
        write_report(source, [tmp_path / folder / name for name in names], *given)
    for name in names if kept else ["page.svg"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    one, two = ((tmp_path / folder / "page.md").read_text(encoding="utf-8") for folder in "ab")
    assert two == (one if kept else one.replace(", `bs:10000`", ""))
    write_report([first], [tmp_path / "c" / "page.md"], "Other")
    assert (tmp_path / "c" / "page.md").read_text(encoding="utf-8").startswith("# Other\n\n> **Note:** N\n")


def test_reports_that_cannot_be_read(tmp_path: Path) -> None:
    (path,) = write_report(save(tmp_path, TEACHER), [tmp_path / "report.json"])
    table = json.loads(path.read_text(encoding="utf-8"))
    assert table["title"] == "Systems compared"
    for systems, message in (([], "lacks systems"), ([7], "lacks systems"), ([{"name": "a"}], "lacks bleu.score")):
        path.write_text(json.dumps(table | {"systems": systems}), encoding="utf-8")
        with pytest.raises(DataError, match=rf"report\.json: {message}"):
            read_systems([path])
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(DataError, match=r"both describe a system named 'teacher'"):
        read_systems([path, tmp_path / "0.json"])
