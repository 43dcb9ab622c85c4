"""Choosing hypotheses: every mode against brute force, quantiles, scores of a reverse model, several processes."""

import json
import math
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.kd_data import Candidates, Choice, Chooser
from fairseq_compress.corpus.kd_data_files import worst_scores
from fairseq_compress.corpus.kd_data_report import SelectionReport
from fairseq_compress.corpus.nbest import NBestEntry, NBestList, NBestWriter, source_checksum, untranslated
from fairseq_compress.corpus.nbest_scores import ScoreReader, ScoresManifest, format_scores
from fairseq_compress.corpus.selection_rules import SelectionRules
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.manifest import sidecar_path
from fairseq_compress.work.ordered_map import ordered_map

WORDS = ["the", "dog", "runs", "fast", "."]


def make_task(*texts: str, reference: str | None = None, source: str = "s") -> Candidates:
    hypotheses = [NBestEntry(-float(place), text) for place, text in enumerate(texts)]
    return Candidates(NBestList(0, source_checksum(source), hypotheses), source, reference, None)


def choose(rules: SelectionRules, task: Candidates) -> Choice:
    return Chooser(rules)(task)


def test_best_takes_the_first_with_text() -> None:
    choice = choose(SelectionRules("best"), make_task("a", "b"))
    assert (choice.picked, choice.key, choice.reason) == ([0], "a", None)
    choice = choose(SelectionRules("best"), make_task(" ", "", "b", "b"))
    assert (choice.picked, choice.key, choice.empty, choice.repeated) == ([2], "b", 2, 1)


def test_k_best_counts_distinct_hypotheses() -> None:
    task = make_task("a", "b", "a", "", "c", "b", "d")
    assert choose(SelectionRules("k-best"), task).picked == [0, 1, 4, 6]
    choice = choose(SelectionRules("k-best", k=3), task)
    assert (choice.picked, choice.empty, choice.repeated) == ([0, 1, 4], 1, 2)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Candidates(untranslated(0, "00000000"), "s", None, None), "untranslated"),
        (make_task("a", source="  "), "empty_source"),
        (make_task("", " "), "empty_hypothesis"),
    ],
)
def test_lists_that_are_dropped(task: Candidates, reason: str) -> None:
    assert choose(SelectionRules("k-best"), task).reason == reason


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
@pytest.mark.parametrize("k", [None, 1, 3])
def test_interpolation_against_brute_force(metric: str, k: int | None) -> None:
    draw = random.Random(5)
    score = {"bleu": BLEU(effective_order=True), "chrf": CHRF()}[metric].sentence_score
    rules = SelectionRules("interpolate", k=k, metric=metric)
    chooser, other = Chooser(rules), 0
    for _ in range(60):
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(6)]
        task = make_task(*texts, reference=" ".join(draw.choices(WORDS, k=5)))
        choice = chooser(task)
        distinct = list(dict.fromkeys(texts))[:k]
        scores = [score(text, [task.reference]).score for text in distinct]
        expected = distinct[scores.index(max(scores))]
        assert [texts[place] for place in choice.picked] == [expected]
        assert (choice.similarity, choice.similarity_of_best) == (max(scores), scores[0])
        assert choice.key == expected
        other += choice.other_than_best
    assert other == 0 if k == 1 else other > 10


def test_interpolation_by_hand() -> None:
    """ "a b c x": 3 of 4 unigrams, 2 of 3 bigrams, 1 of 2 trigrams, no 4-gram, which smoothing counts as half a one."""
    task = make_task("a b d c", "a b c x", "a b c d", reference="a b c d")
    rules = SelectionRules("interpolate", k=2, metric="bleu")
    choice = choose(rules, task)
    assert choice.picked == [1]
    assert choice.similarity == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4))
    assert choose(SelectionRules("interpolate", metric="bleu"), task).similarity == pytest.approx(100)


def test_ties_go_to_the_better_score() -> None:
    choice = choose(SelectionRules("interpolate", metric="chrf"), make_task("x", "ab", "a b", reference="ab"))
    assert choice.picked == [1]  # chrF sees no spaces
    assert choose(SelectionRules("interpolate", metric="bleu"), make_task("x", "y", reference="z")).picked == [0]


def test_rules_name_every_problem_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--k: must be in \[1, .*got 0; --metric: .*; --drop-worst: .* got 1\.0"):
        SelectionRules("k-best", k=0, metric="bleu", drop_worst=1.0)
    with pytest.raises(ConfigError, match="--k: requires --mode k-best or interpolate"):
        SelectionRules("best", k=2)
    with pytest.raises(ConfigError, match="--drop-worst"):
        SelectionRules("best", drop_worst=math.nan)
    with pytest.raises(ConfigError, match="--mode: must be one of best, k-best, interpolate, got 'worst'"):
        SelectionRules("worst")
    with pytest.raises(ConfigError, match="--metric: must be one of bleu, chrf"):
        SelectionRules("interpolate", metric="ter")
    assert SelectionRules("interpolate").metric == "bleu"


@given(st.lists(st.sampled_from([-math.inf, -3.0, -2.0, -1.5, 0.0]), max_size=60), st.integers(0, 99))
def test_worst_scores_against_sorting(scores: list[float], percent: int) -> None:
    worst = worst_scores(scores, percent / 100)
    count = Fraction(percent, 100) * len(scores)
    by_badness = sorted(range(len(scores)), key=lambda place: (scores[place], -place))
    assert [place for place, is_worst in enumerate(worst) if is_worst] == sorted(by_badness[: math.floor(count)])


def test_the_count_is_exact_where_floating_point_is_not() -> None:
    assert 0.29 * 100 < 29
    assert worst_scores([0.0] * 100, 0.29).sum() == 29


def test_report_adds_up_and_keeps_a_few_examples() -> None:
    report = SelectionReport(SelectionRules("k-best"))
    task = make_task("a", "", "a", "b", "c")
    choice = choose(SelectionRules("k-best", k=2), task)
    for _ in range(5):
        report.drop("duplicate", task, choice)
    report.keep(task, choice)
    content = json.loads(json.dumps(report.as_json({}), allow_nan=False))
    assert content["sources"] == content["kept"] + sum(content["dropped"].values()) == 6
    counts = content["hypotheses"]
    assert counts == {
        **{"read": 30, "written": 2, "empty": 1, "repeated": 1, "not_chosen": 1},
        "of_dropped_sources": 25,
    }
    assert content["examples"]["duplicate"] == [{"line": 1, "source": "s", "hypothesis": "a", "score": 0.0}] * 3
    assert "dropped: duplicate" in report.table()
    assert "  duplicate, line 1: 's' -> 'a'" in report.table()


def test_ordered_map_keeps_the_order_and_reads_a_little_ahead_only() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in [*range(500), -1, 7]:
            read.append(number)
            yield number

    results = ordered_map(math.isqrt, numbers(), 2, chunk_items=7)
    for number in range(497):  # the last chunk has the number without a root
        assert next(results) == (number, math.isqrt(number))
        assert len(read) <= number + 7 * 4 * 2 + 7
    with pytest.raises(ValueError, match="nonnegative"):
        next(results)


def test_ordered_map_in_this_process() -> None:
    assert list(ordered_map(math.isqrt, range(9), 1)) == [(number, math.isqrt(number)) for number in range(9)]
    with pytest.raises(ConfigError, match="--processes: must be at least 1, got 0"):
        list(ordered_map(math.isqrt, range(3), 0))


def test_a_chooser_travels() -> None:
    chooser = pickle.loads(pickle.dumps(Chooser(SelectionRules("interpolate", metric="chrf"))))
    assert chooser(make_task("x", "ab", reference="ab")).picked == [1]
    assert chooser.signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6")


def write_scores(folder: Path, scores: list[list[float]]) -> tuple[Path, Path, list[NBestList]]:
    lists = [
        NBestList(index, "00000000", [NBestEntry(-1.0, f"h{place}") for place in range(len(of_list))])
        for index, of_list in enumerate(scores)
    ]
    nbest, path = folder / "n", folder / "scores"
    with open(nbest, "wb") as stream:
        writer = NBestWriter(stream)
        for item in lists:
            writer.write(item)
    facts = {"format": "fairseq-compress n-best 1", "sentences": len(lists), "hypotheses": writer.hypotheses}
    facts |= {"sha256": writer.sha256, "source_sha256": "", "facts": {}}
    (folder / "n.json").write_text(json.dumps(facts))
    path.write_text("".join(map(format_scores, lists, scores)))
    counts = {"records": sum(map(len, scores)), "nbest_sha256": writer.sha256, "facts": {}}
    ScoresManifest(sha256=file_sha256(path), **counts).write(sidecar_path(path))
    return path, nbest, lists


def read_all(path: Path, nbest: Path, lists: list[NBestList]) -> list[list[float]]:
    reader = ScoreReader(path, nbest)
    found = [reader.take(item) for item in lists]
    reader.finish()
    return found


SCORES = [[-1.5, -0.25], [-math.inf], [-3.0, -2.0, -2.5]]


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    path, nbest, lists = write_scores(tmp_path, SCORES)
    assert path.read_text() == "0\t-1.500000\n0\t-0.250000\n1\t-inf\n2\t-3.000000\n2\t-2.000000\n2\t-2.500000\n"
    assert read_all(path, nbest, lists) == SCORES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[text.index("\n") + 1 :], "line 2: a score of list 0 must be next, got one of list 1"),
        (lambda text: text + "3\t-1.000000\n", "line 7: more scores than records"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "line 6: missing, a score of list 2 must be next"),
        (lambda text: text.replace("-3.000000", "-4.000000"), "sha256 must be"),
        (lambda text: text.replace("-3.000000", "nan"), "line 4: a record is index and score"),
    ],
)
def test_damaged_or_shifted_scores(tmp_path: Path, change, message: str) -> None:
    path, nbest, lists = write_scores(tmp_path, SCORES)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_all(path, nbest, lists)


def test_scores_of_another_nbest_file(tmp_path: Path) -> None:
    path, nbest, _ = write_scores(tmp_path, SCORES)
    facts = json.loads((tmp_path / "n.json").read_text())
    (tmp_path / "n.json").write_text(json.dumps(facts | {"sha256": "0" * 64}))
    with pytest.raises(DataError, match="holds the scores of another n-best file than"):
        ScoreReader(path, nbest)


def test_scores_that_cannot_be_written() -> None:
    nbest = NBestList(4, "00000000", [NBestEntry(-1.0, "a")])
    with pytest.raises(DataError, match="list 4: 1 hypotheses, 2 scores"):
        format_scores(nbest, [-1.0, -2.0])
    with pytest.raises(DataError, match="list 4: a score must be a finite number or -inf"):
        format_scores(nbest, [math.nan])


def test_counter_is_what_the_modes_share() -> None:
    """Whatever the mode, each hypothesis of a list is picked, empty, repeated or not chosen."""
    draw = random.Random(1)
    for mode, metric in (("best", None), ("k-best", None), ("interpolate", "bleu")):
        chooser = Chooser(SelectionRules(mode, metric=metric))
        for _ in range(30):
            texts = draw.choices(["a", "b", "", "c d"], k=5)
            choice = chooser(make_task(*texts, reference="c d"))
            counts = Counter(texts)
            assert choice.empty == counts[""]
            if choice.reason is None:
                assert choice.repeated == sum(counts[text] - 1 for text in counts if text)


def test_sentence_bleu_sees_the_words_of_the_target_language() -> None:
    """With 13a each sentence is one word: nothing matches, and the first hypothesis would always stay."""
    reference, near, far = "她昨天下午在商店买了三本书。", "她昨天下午在商店买了两本书。", "天气很好。"
    for target_lang, picked in (("zh_CN", 1), ("zho_Hans", 1), (None, 0)):
        rules = SelectionRules("interpolate", metric="bleu", target_lang=target_lang)
        chooser = Chooser(rules)
        assert chooser(make_task(far, near, reference=reference)).picked == [picked]
        assert f"tok:{'13a' if target_lang is None else 'zh'}|" in str(chooser.signature)
        assert pickle.loads(pickle.dumps(chooser)).signature == chooser.signature
