from graphlib import CycleError

import pytest

from pipeline.domain.graph import outs, stage_order, with_downstream


def test_stages_come_after_what_they_read_in_whatever_order_they_are_written():
    stages = {
        "report": {"deps": ["metrics.json"], "outs": ["page.html"]},
        "evaluate": {"deps": ["model"], "metrics": ["metrics.json"]},
        "fetch": {"outs": ["raw"]},
        "train": {"deps": ["raw"], "outs": ["model"]},
    }
    assert stage_order(stages) == ["fetch", "train", "evaluate", "report"]


def test_a_stage_comes_after_both_branches_of_a_fork():
    stages = {
        "join": {"deps": ["left.csv", "right.csv"]},
        "left": {"deps": ["raw"], "outs": ["left.csv"]},
        "right": {"deps": ["raw"], "outs": ["right.csv"]},
        "root": {"outs": ["raw"]},
    }
    order = stage_order(stages)
    assert order[0] == "root"
    assert sorted(order[1:3]) == ["left", "right"]
    assert order[3] == "join"


def test_every_stage_appears_in_the_order_once():
    stages = {"a": {"outs": ["x", "y"]}, "b": {"deps": ["x", "y"]}, "alone": {}}
    assert sorted(stage_order(stages)) == ["a", "alone", "b"]


@pytest.mark.parametrize("kind", ["outs", "metrics", "plots"])
def test_outs_metrics_and_plots_are_dependencies(kind):
    assert stage_order({"b": {"deps": ["x"]}, "a": {kind: ["x"]}}) == ["a", "b"]


def test_a_path_with_options_counts_as_the_path():
    stages = {"b": {"deps": ["x"]}, "a": {"metrics": [{"x": {"cache": False}}]}}
    assert stage_order(stages) == ["a", "b"]


def test_files_that_no_stage_writes_are_no_dependencies():
    assert stage_order({"a": {"deps": ["code.py", "data/incoming"]}}) == ["a"]


def test_the_order_of_no_stages_is_empty():
    assert stage_order({}) == []


def test_stages_that_depend_on_each_other_are_rejected():
    stages = {"a": {"deps": ["y"], "outs": ["x"]}, "b": {"deps": ["x"], "outs": ["y"]}}
    with pytest.raises(CycleError):
        stage_order(stages)


def test_a_stage_that_reads_its_outs_is_rejected():
    with pytest.raises(CycleError):
        stage_order({"a": {"deps": ["x"], "outs": ["x"]}})


def test_outs_are_all_paths_that_a_stage_writes():
    stage = {
        "deps": ["in"],
        "outs": ["a", {"b": {"persist": True}}],
        "metrics": [{"c": {"cache": False}}],
        "plots": ["d"],
    }
    assert outs(stage) == ["a", "b", "c", "d"]


def test_a_stage_that_writes_nothing_has_no_outs():
    assert outs({"deps": ["in"]}) == []


def test_only_stages_that_read_a_changed_stage_are_downstream():
    stages = {
        "a": {"outs": ["x"]},
        "b": {"deps": ["x"], "outs": ["y"]},
        "c": {"deps": ["y"]},
        "d": {"deps": ["elsewhere"]},
        "e": {"deps": ["z"]},
        "f": {"deps": ["y"], "outs": ["z"]},
    }
    assert with_downstream({"b"}, stages) == {"b", "c", "e", "f"}
    assert with_downstream(set(), stages) == set()


def test_a_stage_that_reads_a_file_in_a_written_folder_comes_after_its_writer():
    stages = {"late": {"deps": ["data/raw/a.csv"]}, "early": {"outs": ["data/raw"]}}
    assert stage_order(stages) == ["early", "late"]
