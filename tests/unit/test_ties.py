"""Tied tensors, and values that are cached until a tensor changes."""

import copy

import torch
from torch import nn

from fairseq_compress.functional.ties import identity, tied_groups
from fairseq_compress.modules.evaluation_cache import EvaluationCache
from fairseq_compress.weights.groups import weight_groups


def test_the_same_view_of_one_storage():
    table = torch.arange(6.0).view(2, 3)
    tensors = {"a": table, "b": table.clone(), "c": table.detach(), "d": table[:1], "e": table.view(3, 2)}
    assert tied_groups(tensors) == [("a", "c"), ("b",), ("d",), ("e",)]
    assert tied_groups(tensors, by_value=True) == [("a", "b", "c"), ("d",), ("e",)]


def test_empty_and_meta_tensors_are_tied_to_themselves_only():
    empty, meta = torch.zeros(0), torch.zeros(3, device="meta")
    tensors = {"a": empty, "b": torch.zeros(0), "c": empty, "d": meta, "e": torch.zeros(3, device="meta"), "f": meta}
    assert tied_groups(tensors) == [("a", "c"), ("b",), ("d", "f"), ("e",)]
    assert identity(empty) != identity(torch.zeros(0))


def test_constants_are_equal_by_chance():
    tensors = {"a": torch.ones(3), "b": torch.ones(3), "c": torch.tensor(2.0), "d": torch.tensor(2.0)}
    assert tied_groups(tensors, by_value=True) == [("a",), ("b",), ("c",), ("d",)]


def test_groups_of_modules():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False), nn.Linear(3, 4))
    model[1].weight = model[0].weight
    model.append(model[2])
    assert [list(group.modules) for group in weight_groups(model)] == [["0", "1"], ["2", "3"]]
    assert weight_groups(model)[0].parameter is model[0].weight


def test_a_value_is_computed_again_when_a_source_changed():
    cache, source, calls = EvaluationCache(), torch.ones(2), []

    def double():
        return cache.get("double", (source,), lambda: calls.append(1) or source * 2)

    assert double() is double()
    assert len(calls) == 1
    source.add_(1)
    assert double().tolist() == [4, 4]
    assert len(calls) == 2
    assert not copy.deepcopy(cache).values
    cache.clear()
    assert double().tolist() == [4, 4]
    assert len(calls) == 3
