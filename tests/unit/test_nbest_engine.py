"""The n-best engine without a model: units, resuming, and a join that notices every slip."""

import json
from itertools import pairwise

import pytest

from fairseq_compress.cli.local_ranks import _options
from fairseq_compress.corpus.nbest import NBestManifest, read_nbest, source_checksum
from fairseq_compress.corpus.segmentation.sentencepiece_model import SentencePiece
from fairseq_compress.corpus.vocabulary import VocabularySettings, list_pieces, train_model
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.jobs.nbest import Corpus, NBestJob, NBestOptions
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.sharded import compute_shard, survey
from fairseq_compress.work.work_folder import Shard, WorkFolder

WORDS = [f"w{number}" for number in range(30)]
OPTIONS = NBestOptions(SearchOptions(beam=3), nbest=2, max_tokens=12, window=7)


def reverse(sentences):
    """A search: the source backwards, and without its last word; the score tells the length."""
    return [
        [
            Hypothesis(-(len(words) + 1) / 7, words[::-1]),
            Hypothesis(-len(words) - 1, words[-2::-1]),
            Hypothesis(-99.0, words[:1]),
        ]
        for words in sentences
    ]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    lines = [" ".join(WORDS[(line * 7 + word) % 30] for word in range(line % 6)) for line in range(40)]
    path.write_text("\n".join(lines) + "\n")
    return path


def corpus(source, longest=20):
    return Corpus(source, set(WORDS), longest)


def facts(source):
    return {"source": file_sha256(source), **OPTIONS.metadata()}


ALONE = Shard(0, 1)


def make_job(source, output=None, options=OPTIONS, longest=20, search=reverse):
    return NBestJob(output, corpus(source, longest), options, search, facts(source))


def decode(source, output, shard=ALONE, **changes):
    work = WorkFolder(output, facts(source), shard)
    compute_shard(make_job(source, output, **changes), work, 40)
    return work


def join(work, source, output, metadata=None):
    job = make_job(source, output)
    job._metadata = metadata or job._metadata
    return job.join(work.payloads())


def test_facts_of_an_option_that_was_added_later():
    """What was decoded before it existed is still what these options ask for."""
    assert "no_repeat_ngram_size" not in OPTIONS.metadata()
    assert NBestOptions(SearchOptions(no_repeat_ngram_size=3)).metadata()["no_repeat_ngram_size"] == 3


def test_the_file(source, tmp_path):
    counts = join(decode(source, tmp_path / "out"), source, tmp_path / "out")
    lists = list(read_nbest(tmp_path / "out", source))
    assert counts == (40, sum(len(each.hypotheses) for each in lists), 0)
    for each, line in zip(lists, source.read_text().splitlines(), strict=True):
        words = line.split()
        if words:
            expected = [(round(-(len(words) + 1) / 7, 6), words[::-1]), (-len(words) - 1, words[-2::-1])]
        else:
            expected = [(0.0, [])]  # an empty line is not decoded
        assert [(score, text.split()) for score, text in each.hypotheses] == expected
    assert NBestManifest.matches(tmp_path / "out", facts(source))
    assert not NBestManifest.matches(tmp_path / "out", facts(source) | {"beam": 4})


def test_a_source_of_unknown_words_is_told(source, caplog):
    survey(make_job(source), ALONE)
    assert caplog.text == ""
    lines = source.read_text().splitlines()
    source.write_text("\n".join(line.upper() for line in lines[:20]) + "\n" + "\n".join(lines[20:]) + "\n")
    survey(make_job(source), Shard(1, 2))
    assert caplog.text == ""  # the first process tells
    survey(make_job(source), ALONE)
    unknown, words = (sum(len(line.split()) for line in part) for part in (lines[:20], lines))
    assert f"{100 * unknown / words:.1f}% of its {words} words are unknown to the model" in caplog.text


@pytest.mark.parametrize("world_size", [2, 3, 50])
def test_any_number_of_processes_gives_the_same_bytes(source, tmp_path, world_size):
    join(decode(source, tmp_path / "one"), source, tmp_path / "one")
    works = [decode(source, tmp_path / "many", Shard(rank, world_size)) for rank in range(world_size)]
    join(works[1], source, tmp_path / "many")
    assert (tmp_path / "many").read_bytes() == (tmp_path / "one").read_bytes()
    assert (tmp_path / "many.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_resumes_at_the_batch_where_it_stopped(source, tmp_path, capsys):
    calls = []

    def search(sentences):
        calls.append(len(sentences))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return reverse(sentences)

    job = make_job(source, tmp_path / "out", search=search)
    work = WorkFolder(tmp_path / "out", facts(source), ALONE)
    with pytest.raises(KeyboardInterrupt):
        compute_shard(job, work, 40)
    done = work.done
    work.close()
    assert 4 <= done <= 5  # one of the batches may be of empty lines
    calls.clear()
    calls += [0] * 5
    work = WorkFolder(tmp_path / "out", facts(source), ALONE)
    compute_shard(job, work, 40)
    join(work, source, tmp_path / "out")
    join(decode(source, tmp_path / "whole"), source, tmp_path / "whole")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert "resumed at" in capsys.readouterr().err


def test_long_lines(source, tmp_path):
    assert survey(make_job(source), ALONE) == 40
    shares = [survey(make_job(source), Shard(rank, 3)) for rank in range(3)]
    assert sum(shares) == 40
    with pytest.raises(DataError, match=r"source, line 5: 5 tokens, the model takes 4; 12 of 40 lines are too long"):
        survey(make_job(source, longest=4), ALONE)
    skip = NBestOptions(OPTIONS.search, 2, 12, 7, "skip")
    assert survey(make_job(source, options=skip, longest=4), ALONE) == 40
    counts = join(decode(source, tmp_path / "out", options=skip, longest=4), source, tmp_path / "out")
    assert counts.untranslated == 12
    left_out = [each.index for each in read_nbest(tmp_path / "out", source) if not each.translated]
    assert left_out == [line for line in range(40) if line % 6 >= 4]


def test_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "odd"
    path.write_bytes("w1 w2\u2028w3\r\n\x0cw4\n  \nw5".encode())
    sentences = list(corpus(path))
    assert [len(sentence.subwords) + 1 for sentence in sentences] == [4, 2, 1, 2]
    assert [sentence.checksum for sentence in sentences] == [
        source_checksum(line) for line in ("w1 w2\u2028w3", "\x0cw4", "  ", "w5")
    ]


def test_raw_text(tmp_path):
    """With a sentencepiece model both sides are text: what a search gives back as it got it is the line, normalized."""
    lines = ["a man  on a bike", "", "two men", "a bike!"] * 3
    (tmp_path / "source").write_text("\n".join(lines) + "\n")
    (tmp_path / "model").write_bytes(train_model(lines, VocabularySettings(size=290)))
    segmenter = SentencePiece(tmp_path / "model")
    entries = {piece for piece, _ in list_pieces((tmp_path / "model").read_bytes())}
    text = Corpus(tmp_path / "source", entries, 20, segmenter)
    metadata = facts(tmp_path / "source")
    work = WorkFolder(tmp_path / "out", metadata, ALONE)
    job = NBestJob(
        tmp_path / "out", text, OPTIONS, lambda batch: [[Hypothesis(-1.0, words)] for words in batch], metadata
    )
    compute_shard(job, work, 12)
    job.join(work.payloads())
    found = [each.hypotheses[0].text for each in read_nbest(tmp_path / "out", tmp_path / "source")]
    assert found == ["a man on a bike", "", "two men", "a bike!"] * 3


class TestJoin:
    """Payloads as a faulty merge would leave them."""

    def write(self, source, output, change):
        lists = []
        for index, line in enumerate(source.read_text().splitlines()):
            lists.append([index, source_checksum(line), [[-1.0, f"of line {index}"]]])
        work = WorkFolder(output, facts(source), ALONE)
        for unit, part in enumerate(change(lists)):
            work.write(unit, json.dumps(part).encode())
        work.finish(work.done)
        return work

    def check(self, source, tmp_path, change, message):
        work = self.write(source, tmp_path / "out", change)
        with pytest.raises(DataError, match=message):
            join(work, source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.json").exists()

    def test_units_in_any_order_inside_are_fine(self, source, tmp_path):
        work = self.write(source, tmp_path / "out", lambda lists: [lists[20:][::-1], lists[:20]])
        assert join(work, source, tmp_path / "out").sentences == 40

    def test_a_shift_by_one_line(self, source, tmp_path):
        def shift(lists):
            indices = [index for index, _, _ in lists]
            return [[[index, *rest] for index, (_, *rest) in zip(indices, lists[1:] + lists[:1], strict=True)]]

        self.check(source, tmp_path, shift, "line 1: has the checksum .*, or the lists slipped")

    def test_a_shift_that_starts_late(self, source, tmp_path):
        def shift(lists):
            return [lists[:31] + [[one[0], *two[1:]] for one, two in pairwise(lists[31:])]]

        self.check(source, tmp_path, shift, "line 32: has the checksum")

    def test_a_line_that_is_left_out(self, source, tmp_path):
        self.check(source, tmp_path, lambda lists: [lists[:9] + lists[10:]], "line 10 is in no unit")

    def test_a_line_that_is_there_twice(self, source, tmp_path):
        self.check(source, tmp_path, lambda lists: [lists[:9], lists[8:]], "unit 1 has line 9 a second time")

    def test_lines_missing_at_the_end(self, source, tmp_path):
        self.check(source, tmp_path, lambda lists: [lists[:-1]], "has more lines than the 39 that were decoded")

    def test_lines_too_many(self, source, tmp_path):
        self.check(
            source, tmp_path, lambda lists: [[*lists, [40, "00000000", []]]], "line 41: was decoded, but the file"
        )

    @pytest.mark.parametrize(("change", "message"), [
        (lambda text: text.replace("w7 w8", "w8 w7", 1), "line 6: has the checksum"),
        (lambda text: text + "w1\n", "more lines"),
        (lambda text: text[:-4], "line 40: (has the checksum|was decoded)"),
        (lambda text: "w1\n" + text, "line 1: has the checksum"),
        (lambda text: text.replace("\n", "\r\n"), "SHA-256 differs"),  # not the text but the file changed
    ])  # fmt: skip
    def test_a_source_that_changed(self, source, tmp_path, change, message):
        work, before = decode(source, tmp_path / "out"), facts(source)
        source.write_bytes(change(source.read_text()).encode())
        with pytest.raises(DataError, match=message):
            join(work, source, tmp_path / "out", before)
        assert not (tmp_path / "out").exists()


def test_options_out_of_range():
    for kept in (0, 6):
        with pytest.raises(ConfigError, match=f"--nbest: must be from 1 to --beam \\(5\\), got {kept}"):
            NBestOptions(nbest=kept)
    with pytest.raises(ConfigError, match="--max-tokens"):
        NBestOptions(max_tokens=0)


def test_a_process_gets_the_options_of_its_parent():
    values = {"max_tokens": 5, "lenpen": -1.5, "data": None, "join_only": False, "flag": True, "processes": 2}
    assert _options(values) == ["--max-tokens=5", "--lenpen=-1.5", "--flag"]
