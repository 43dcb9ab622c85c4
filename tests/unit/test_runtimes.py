"""One way to open a model of any runtime; a new runtime is a module and an entry."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fairseq_compress import runtimes
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.corpus.vocabulary import VocabularySettings, train_model
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.evaluation.timing import translate_and_time
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.export.options import ExportOptions
from fairseq_compress.runtimes import Runtime
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.opened import open_directory
from fairseq_compress.runtimes.options import RuntimeOptions
from tests.unit.test_model_directory import METADATA

LINES = ["a man on a bike", "two men", "a dog", "men on a bike"] * 3


class Backwards:
    """A toy runtime: the subwords backwards, as often as hypotheses are asked for."""

    longest = 8

    def __init__(self, directory, search, nbest, threads):
        self._nbest = nbest

    def translate(self, sentences):
        return [[Hypothesis(-float(rank), sentence[::-1]) for rank in range(self._nbest)] for sentence in sentences]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A model directory of the toy runtime, which is registered."""
    module = SimpleNamespace(open_model=lambda path, options: open_directory(path, options, Backwards))
    monkeypatch.setitem(sys.modules, "toy_runtime", module)
    monkeypatch.setitem(runtimes.RUNTIMES, "toy", Runtime("toy_runtime", "toy_writer", ("float32", "int3"), ("int3",)))

    def fill(folder):
        (folder / "sentencepiece.model").write_bytes(train_model(LINES, VocabularySettings(size=290)))
        (folder / "shared_vocabulary.json").write_text('["<s>", "a"]')
        return METADATA | {"runtime": "toy", "languages": {"source": "en", "target": "cs"}}

    return create_directory(tmp_path / "model", fill)


def test_a_new_runtime_is_an_entry(toy):
    """It opens, translates text, is timed, and is offered by export."""
    model = runtimes.open(toy.path, RuntimeOptions(nbest=2))
    (found,) = model.translate([b"two men"], nbest=2)
    segmenter = toy.segmentation().open()
    backwards = next(segmenter.encode(["two men"])).split()[::-1]
    assert found.hypotheses == [(-rank, next(segmenter.decode([" ".join(backwards)]))) for rank in (0.0, 1.0)]
    assert (model.languages, model.precision, model.search.beam) == (("en", "cs"), "int8", 4)
    translated, timings = translate_and_time(toy.path, ["two men", ""], 3)
    assert translated == [found.hypotheses[0].text, ""]
    assert timings.sentences == 2
    options = {"checkpoint": "c.pt", "segmentation": Segmentation("m"), "runtime": "toy"}
    assert ExportOptions(**options, quantization="int3").quantization == "int3"
    with pytest.raises(ConfigError, match="must be one of float32, int3 with --runtime toy, got int8"):
        ExportOptions(**options)


def test_options_that_do_not_fit_a_directory(toy):
    for options, message in (
        ({"data": "d"}, "--data: requires a checkpoint"),
        ({"precision": "int8"}, "--precision: requires a checkpoint"),
        ({"device": "cuda"}, "--device: must be cpu"),
        ({"languages": ("en", "de")}, "--target-lang: must be cs, the language of .*, got de"),
        ({"search": {"beam": 1}, "nbest": 2}, r"--nbest: must be at most --beam \(1\), got 2"),
        ({"search": {"lenpen": float("inf")}}, r"--lenpen: must be in \(-inf, inf\), got inf"),
    ):
        with pytest.raises(ConfigError, match=message):
            runtimes.open(toy.path, RuntimeOptions(**options))


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: no such file, and no directory of fairseq-compress export"):
        runtimes.open(f"{__file__}:{tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match=r"--sentencepiece-model: must be given with the checkpoint"):
        runtimes.open(__file__)


def test_a_runtime_that_cannot_be_imported(toy, monkeypatch):
    monkeypatch.setitem(runtimes.RUNTIMES, "toy", Runtime("fairseq_compress.no_such_module", "toy_writer"))
    with pytest.raises(DataError, match="model: requires the runtime toy, which cannot be imported: No module named"):
        runtimes.open(toy.path)
    monkeypatch.delitem(runtimes.RUNTIMES, "toy")
    with pytest.raises(DataError, match="runtime must be one of bergamot, ctranslate2, onnx, got 'toy'"):
        ModelDirectory.open(toy.path)


def test_the_registry_imports_no_runtime():
    code = (
        "import sys; from fairseq_compress import runtimes; import fairseq_compress.export.options;"
        "print(*{'torch', 'fairseq', 'onnxruntime', 'ctranslate2', 'onnx', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
