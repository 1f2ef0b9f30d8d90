from graphlib import CycleError

import pytest

from pipeline.domain.graph import outs, stage_order, with_followers


def test_stages_follow_what_they_read_whatever_order_they_are_written_in():
    stages = {
        "report": {"deps": ["metrics.json"], "outs": ["page.html"]},
        "evaluate": {"deps": ["model"], "metrics": ["metrics.json"]},
        "fetch": {"outs": ["raw"]},
        "train": {"deps": ["raw"], "outs": ["model"]},
    }
    assert stage_order(stages) == ["fetch", "train", "evaluate", "report"]


def test_a_stage_waits_for_both_arms_of_a_fork():
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


def test_every_stage_is_in_the_order_once():
    stages = {"a": {"outs": ["x", "y"]}, "b": {"deps": ["x", "y"]}, "alone": {}}
    assert sorted(stage_order(stages)) == ["a", "alone", "b"]


@pytest.mark.parametrize("kind", ["outs", "metrics", "plots"])
def test_outs_metrics_and_plots_are_waited_for(kind):
    assert stage_order({"b": {"deps": ["x"]}, "a": {kind: ["x"]}}) == ["a", "b"]


def test_a_path_with_settings_counts_as_the_path():
    stages = {"b": {"deps": ["x"]}, "a": {"metrics": [{"x": {"cache": False}}]}}
    assert stage_order(stages) == ["a", "b"]


def test_files_that_no_stage_makes_are_not_waited_for():
    assert stage_order({"a": {"deps": ["code.py", "data/incoming"]}}) == ["a"]


def test_no_stages_have_an_empty_order():
    assert stage_order({}) == []


def test_stages_that_wait_for_each_other_are_refused():
    stages = {"a": {"deps": ["y"], "outs": ["x"]}, "b": {"deps": ["x"], "outs": ["y"]}}
    with pytest.raises(CycleError):
        stage_order(stages)


def test_a_stage_that_reads_what_it_makes_is_refused():
    with pytest.raises(CycleError):
        stage_order({"a": {"deps": ["x"], "outs": ["x"]}})


def test_outs_are_all_that_a_stage_makes():
    stage = {
        "deps": ["in"],
        "outs": ["a", {"b": {"persist": True}}],
        "metrics": [{"c": {"cache": False}}],
        "plots": ["d"],
    }
    assert outs(stage) == ["a", "b", "c", "d"]


def test_a_stage_that_makes_nothing_has_no_outs():
    assert outs({"deps": ["in"]}) == []


def test_what_reads_a_changed_stage_follows_and_nothing_else():
    chain = {
        "a": {"outs": ["one"]},
        "b": {"deps": ["one"], "outs": ["two"]},
        "c": {"deps": ["two"]},
        "d": {"deps": ["elsewhere"]},
    }
    assert with_followers({"b"}, chain) == {"b", "c"}
    assert with_followers(set(), chain) == set()


def test_a_file_inside_a_folder_that_a_stage_makes_comes_after_it():
    stages = {"late": {"deps": ["data/raw/a.csv"]}, "early": {"outs": ["data/raw"]}}
    assert stage_order(stages) == ["early", "late"]
