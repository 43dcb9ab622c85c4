"""A whole search in one graph, against the same search over the graph of a step: equal to the last bit."""

import shutil
from collections import defaultdict

import onnx
import pytest

from fairseq_compress.checkpoint.materialize import own_values
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import DataError
from fairseq_compress.export.onnx.precisions import PRECISIONS, Storage
from fairseq_compress.export.onnx_format import write_model
from fairseq_compress.export.stored_weights import StoredWeights
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx import loop, sessions
from fairseq_compress.runtimes.onnx.model import OnnxModel
from tests.helpers.onnx_graphs import nodes_after_loading
from tests.unit.test_beam_search import SHAPES, build, sentences
from tests.unit.test_onnx_forms import FORMS, make

SEARCHES = ("greedy.onnx", "beam.onnx")
KINDS = [kind for kind in PRECISIONS if kind != "plan"]
DEPENDENT = {"int8_batch"}  # in which finished sentences of a batch matter


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Loops for batches of any size."""
    for name in ("MOST", "MOST_WITH_KEYS"):
        monkeypatch.setattr(loop, name, 10_000)


class Both:
    """A model directory with and without the graphs of searches."""

    def __init__(self, folder, model, kind="float32"):
        self.entries = model.decoder.dictionary
        self.folders = [folder / "loop", folder / "steps"]
        self.folders[0].mkdir(parents=True)
        storage = Storage(StoredWeights(), defaultdict(lambda: (-6.0, 6.0)))
        values = own_values(model.args)
        self.own = write_model(self.folders[0], model, values, self.entries, self.entries, kind, storage)
        shutil.copytree(*self.folders)
        for name in SEARCHES:
            (self.folders[1] / name).unlink()

    def open(self, **options):
        metadata = {"onnx": self.own, "positions": {"source": 60, "target": 60}}
        options = SearchOptions(**{"max_len_b": 25, **options})
        return [OnnxModel(ModelDirectory(folder, metadata), options, options.beam, 1) for folder in self.folders]

    def outputs(self, batch, **options):
        text = [[self.entries[token] for token in sentence[:-1]] for sentence in batch]
        return [model.translate(text) for model in self.open(**options)]


def check(both, batch, **options):
    found, expected = both.outputs(batch, **options)
    assert found == expected
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["low-rank", "ssru", "average"])
def test_every_quantization(form, kind, tmp_path):
    both, batch = Both(tmp_path, make(form), kind), sentences(100)
    for beam in (1, 4):
        for part in [batch] if kind not in DEPENDENT else [[sentence] for sentence in batch[:20]]:
            check(both, part, beam=beam)


@pytest.mark.parametrize("form", FORMS)
def test_every_form(form, tmp_path):
    batch, both = sentences(60), Both(tmp_path, make(form))
    for beam in (1, 4):
        whole = check(both, batch, beam=beam)
        assert len({len(best.output) for each in whole for best in each}) > 1
        for sentence in batch[2:6]:
            check(both, [sentence], beam=beam)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape, tmp_path):
    both = Both(tmp_path, build(**SHAPES[shape]))
    for beam in (1, 2, 5):
        check(both, sentences(50), beam=beam)


@pytest.mark.parametrize(
    "options",
    [
        {"lenpen": 0.5}, {"lenpen": -1.0}, {"min_len": 7}, {"min_len": 0}, {"unkpen": 3.5}, {"unkpen": -3.5},
        {"max_len_b": 1}, {"max_len_b": 3, "min_len": 3}, {"max_len_a": 0.5, "max_len_b": 1},
        {"max_len_a": 0.7, "max_len_b": 3, "min_len": 3}, {"max_len_b": 200}, {"min_len": 40, "max_len_b": 40},
        {"no_repeat_ngram_size": 2, "min_len": 12},
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["low-rank", "ssru"])
def test_every_option(form, options, tmp_path):
    both = Both(tmp_path, make(form))
    for beam in (1, 3):
        check(both, sentences(60), beam=beam, **options)


@pytest.mark.parametrize("form", ["low-rank", "ssru"])
def test_more_candidates_than_entries(form, tmp_path):
    check(Both(tmp_path, make(form)), sentences(20), beam=42)


@pytest.mark.parametrize("beam", [1, 2])
def test_which_graph_is_used(beam, tmp_path, monkeypatch):
    opened = []
    both, session = Both(tmp_path, make("low-rank")), sessions._session
    monkeypatch.setattr(sessions, "_session", lambda path, *more: opened.append(path.name) or session(path, *more))
    for options, expected in (({}, SEARCHES[beam - 1]), ({"no_repeat_ngram_size": 2}, "step.onnx")):
        opened.clear()
        both.open(beam=beam, **options)[0].translate([["w1", "w2"]])
        assert opened == ["encoder.onnx", expected]


@pytest.mark.parametrize(("form", "most"), [("low-rank", 2), ("ssru", 16)])
def test_large_batches_make_single_steps(form, most, tmp_path, monkeypatch):
    monkeypatch.undo()
    opened = []
    both, session = Both(tmp_path, make(form)), sessions._session
    monkeypatch.setattr(sessions, "_session", lambda path, *more: opened.append(path.name) or session(path, *more))
    model, _ = both.open(beam=4)
    for count, expected in ((most, "beam.onnx"), (most + 1, "step.onnx")):
        opened.clear()
        model.translate([["w1", "w2"]] * count)
        assert opened[-1] == expected


@pytest.mark.parametrize("beam", [1, 3])
def test_eos_at_once(beam, tmp_path):
    both = Both(tmp_path, build(3, share_decoder_input_output_embed=False, peak=1))
    found = check(both, sentences(100), beam=beam, min_len=0, lenpen=0.0)
    assert any(best.output == [] for each in found for best in each)


@pytest.mark.parametrize("room", [1, 2, 5])
def test_room_for_keys_and_values_grows(room, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ROOM", room)
    both = Both(tmp_path, make("low-rank"))
    for beam in (1, 3):
        check(both, sentences(30), beam=beam, min_len=12)


@pytest.mark.parametrize("beam", [1, 3])
def test_nan_is_an_error(beam, tmp_path):
    model = build(2)
    model.decoder.layers[0].fc1.weight.fill_(float("nan"))
    for each in Both(tmp_path, model).open(beam=beam):
        with pytest.raises(DataError, match="the model gives NaN"):
            each.translate([["w1"]])


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_expanded_when_the_graph_is_loaded(form, tmp_path):
    """No more than the step computes in each turn of the loop."""
    folder = Both(tmp_path, make(form), "int4").folders[0]
    of_step = len(nodes_after_loading(folder / "step.onnx", folder))
    for name, more in zip(SEARCHES, (4, 30), strict=True):
        nodes_after_loading(folder / name, folder)
        (node,) = onnx.load(folder / "optimized.onnx", load_external_data=False).graph.node
        body = next(each.g for each in node.attribute if each.name == "body")
        assert len(body.node) <= of_step + more


def test_the_graphs_are_small(tmp_path):
    """Their weights are those of the step."""
    folder = Both(tmp_path, make("ssru", words=1000), "int4").folders[0]
    for name in SEARCHES:
        assert (folder / name).stat().st_size < (folder / "step.onnx").stat().st_size
        weights = onnx.load(folder / name, load_external_data=False).graph.initializer
        assert {each.external_data[0].value for each in weights if each.external_data} == {"weights.bin"}
