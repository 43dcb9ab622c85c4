"""Options to open a model of any runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.search_options import SearchOptions


@dataclass(frozen=True)
class RuntimeOptions:
    """How a model is opened; ``data``, ``precision`` and ``max_tokens`` are for checkpoints."""

    search: Mapping[str, Any] = field(default_factory=dict)
    """Options of the search that replace those of the export or the defaults."""
    nbest: int | None = 1
    """Hypotheses of each sentence; None: the beam."""
    threads: int | None = None
    """None: ``OMP_NUM_THREADS`` if it is set, else all cores."""
    text: bool = True
    """Raw text in and out; else subwords."""
    segmentation: Segmentation | None = None
    """None: that of the model directory."""
    languages: tuple[str | None, str | None] = (None, None)
    """Required source and target language; None: any."""
    device: str = "auto"
    data: str | None = None  # folder with dict.LANG.txt
    precision: str = "float32"  # a key of teachers.loading.PRECISIONS
    max_tokens: int | None = None  # source tokens of a batch

    def search_options(self, exported: Mapping[str, Any] = {}) -> SearchOptions:
        """The options of the search, with ``exported`` as defaults."""
        search = SearchOptions(**{**exported, **self.search})
        search.check_nbest(self.nbest or 1)
        return search
