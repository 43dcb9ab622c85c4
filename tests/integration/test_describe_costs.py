"""``fairseq-compress describe`` tells what a real checkpoint costs, the bytes as ``pack`` stores them."""

import json

import fairseq.tasks.translation  # noqa: F401 - before register()
import pytest

import fairseq_compress
from fairseq_compress.checkpoint.pack import pack_model
from fairseq_compress.checkpoint.packed_file import HEADER, packed_bytes, size_table
from fairseq_compress.cli.main import main
from fairseq_compress.evaluation.model_cost import bytes_by_precision, plain_model
from fairseq_compress.evaluation.sizes import checkpoint_facts, size_lines
from fairseq_compress.weights.reading import read_plan
from tests.conftest import ROOT

PLANS = ROOT / "configs" / "plans"


@pytest.fixture(scope="module", autouse=True)
def registered():
    fairseq_compress.register()


def described(capsys, *options):
    assert main(["describe", *map(str, options)]) == 0
    return capsys.readouterr().out


def costs(output):
    return [[line.split() for line in table.splitlines()] for table in output.split("\n\n")[1:]]


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_bytes_are_those_of_the_tensors_of_a_packed_checkpoint(precision, teacher):
    plan = None if precision == "float32" else read_plan(PLANS / f"{precision}.yaml")
    entries = size_table(pack_model(teacher, plan), 0)
    stored = sum(entry.bytes for entry in entries if entry.kind != HEADER)
    assert stored == bytes_by_precision(plain_model(teacher))[precision]


def test_the_tables_follow_what_was_there_before(teacher, capsys):
    packed = pack_model(teacher)
    size = len(packed_bytes(packed))
    output = described(capsys, "--checkpoint", teacher)
    assert output.split("\n\n")[0].splitlines() == size_lines(size_table(packed, size))
    parameters, work, sizes = costs(output)
    total = checkpoint_facts(teacher)["parameters"]
    assert parameters[-1][-2:] == [f"{total:,}", "total"]
    assert "30 source and 30 target tokens" in output
    assert [len(work), len(sizes)] == [4, 6]
    assert sizes[-1][0] == f"{size:,}"


def test_lengths_are_options(teacher, capsys):
    by_lengths = {}
    for lengths in ((1, 1), (1, 2), (2, 1)):
        options = ["--checkpoint", teacher, "--source-tokens", lengths[0], "--target-tokens", lengths[1]]
        forward, _, step = costs(described(capsys, *options))[1][1:]
        by_lengths[lengths] = [int(number.replace(",", "")) for number in (*forward[:5], *step[:5])]
    one = by_lengths[1, 1]
    assert by_lengths[2, 1][1] == 2 * (2 * (2 * (4 * 16 * 16 + 2 * 16 * 24) + 4 * 2 * 16)) // 2
    assert one[1] == 2 * ((4 * 16 * 16 + 2 * 16 * 24) + 2 * 16)
    assert by_lengths[1, 2][3] == 2 * one[3]
    assert by_lengths[1, 2][7] - one[7] == 2 * 16  # a step at 2 looks at one position more


def test_a_plan_and_a_packed_file_have_the_same_costs(teacher, tmp_path, capsys):
    packed = tmp_path / "packed.safetensors"
    plain, outputs = costs(described(capsys, "--checkpoint", teacher)), []
    for name in ("int8", "ipq"):
        plan = PLANS / f"{name}.yaml"
        if name == "ipq":
            plan = tmp_path / "plan.yaml"
            plan.write_text('weights: [{modules: ["*.fc1"], method: product, block: 4, centroids: 8}]')
        outputs.append(described(capsys, "--checkpoint", teacher, "--plan", plan))
        assert main(["quantize", "--checkpoint", str(teacher), "--output", str(packed), "--plan", str(plan)]) == 0
        capsys.readouterr()
        assert described(capsys, "--checkpoint", packed) == outputs[-1]
    for output in outputs:
        parameters, work, sizes = costs(output)
        assert [parameters, work, sizes[:-1]] == [plain[0], plain[1], plain[2][:-1]]
    assert outputs[0] != outputs[1]


def test_a_wrong_length_is_one_line(teacher, capsys):
    assert main(["describe", "--checkpoint", str(teacher), "--source-tokens", "0"]) == 1
    assert capsys.readouterr().err.endswith("error: --source-tokens: must be in [1, inf), got 0\n")


def test_a_score_tells_the_costs_of_its_model(teacher, tmp_path, capsys):
    (tmp_path / "text").write_text("a b c d e\n")
    text = ["score", "--hypothesis", tmp_path / "text", "--reference", tmp_path / "text", "--source-lang", "en",
            "--target-lang", "cs", "--output", tmp_path / "score.json"]  # fmt: skip
    assert main([*map(str, text), "--checkpoint", str(teacher), "--cost-tokens", "20"]) == 0
    told = json.loads((tmp_path / "score.json").read_text())["checkpoint"]
    capsys.readouterr()
    output = described(capsys, "--checkpoint", teacher, "--source-tokens", 20, "--target-tokens", 20)
    (line,) = [line for line in output.splitlines() if line.endswith("decoding of these, beam 1")]
    assert (line.split()[4], told["cost_tokens"]) == (f"{told['multiply_adds']:,}", 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--cost-tokens", "20"], "--cost-tokens: requires --checkpoint, got 20 alone"), (None, "in [1, inf), got 0")],
)
def test_costs_that_cannot_be_told(options, message, teacher, tmp_path, capsys):
    (tmp_path / "text").write_text("a b c d e\n")
    options = options or ["--cost-tokens", "0", "--checkpoint", str(teacher)]
    text = ["--hypothesis", tmp_path / "text", "--reference", tmp_path / "text", "--source-lang", "en", "--target-lang",
            "cs", "--output", tmp_path / "score.json"]  # fmt: skip
    assert main(["score", *map(str, text), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "score.json").exists()
