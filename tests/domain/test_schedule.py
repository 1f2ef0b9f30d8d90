import json
import math
from dataclasses import asdict, replace

import pytest

from pipeline.domain.schedule import Rules, State, cosine_rate, is_over, start, step

RULES = Rules(
    kind="plateau",
    epochs=20,
    learning_rate=1.0,
    patience=3,
    plateau_patience=2,
    plateau_factor=0.5,
    min_learning_rate=0.3,
)
START = State(learning_rate=1.0)


def after(scores: list[float], *, rules: Rules = RULES, state: State = START) -> list[State]:
    """The state after each epoch."""
    found = []
    for epoch, score in enumerate(scores, start=1):
        state = step(state, epoch=epoch, score=score, rules=rules)
        found.append(state)
    return found


def test_the_first_epoch_is_the_best_so_far_however_bad():
    state = step(START, epoch=1, score=0.0, rules=RULES)
    assert (state.best_score, state.best_epoch, state.is_best) == (0.0, 1, True)


def test_a_better_score_is_remembered_with_its_epoch():
    states = after([0.2, 0.1, 0.5, 0.4])
    assert [state.best_epoch for state in states] == [1, 1, 3, 3]
    assert [state.best_score for state in states] == [0.2, 0.2, 0.5, 0.5]
    assert [state.is_best for state in states] == [True, False, True, False]


def test_a_tie_keeps_the_earlier_epoch():
    last = after([0.5, 0.5])[-1]
    assert (last.best_epoch, last.is_best) == (1, False)


def test_a_score_that_is_no_number_is_never_the_best():
    last = after([0.5, math.nan])[-1]
    assert (last.best_epoch, last.since_best) == (1, 1)


def test_the_rate_falls_after_that_many_epochs_without_a_better_score():
    rules = replace(RULES, min_learning_rate=0.0)
    rates = [state.learning_rate for state in after([0.5, 0.4, 0.4, 0.4, 0.4], rules=rules)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_better_score_starts_the_plateau_anew():
    rates = [state.learning_rate for state in after([0.5, 0.4, 0.6, 0.4, 0.4])]
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_the_rate_never_falls_under_its_minimum():
    rates = [state.learning_rate for state in after([0.5] * 8)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


def test_a_better_score_does_not_raise_the_rate_again():
    assert after([0.5, 0.4, 0.4, 0.9])[-1].learning_rate == 0.5


def test_training_is_over_after_that_many_epochs_without_a_better_score():
    over = [is_over(state, rules=RULES) for state in after([0.5, 0.4, 0.6, 0.5, 0.5, 0.5])]
    assert over == [False, False, False, False, False, True]


def test_training_is_not_over_before_it_began():
    assert not is_over(START, rules=replace(RULES, patience=1))


def test_a_fall_of_the_rate_does_not_put_off_the_end():
    rules = replace(RULES, plateau_patience=1)
    assert [is_over(state, rules=rules) for state in after([0.5] * 4, rules=rules)][-1]


def test_a_step_changes_no_earlier_state():
    before = replace(START)
    step(START, epoch=1, score=0.5, rules=RULES)
    assert before == START


@pytest.mark.parametrize("scores", [[], [0.1], [0.5, 0.4, 0.4]])
def test_a_state_that_was_written_and_read_goes_on_as_it_would_have(scores):
    state = (after(scores) or [START])[-1]
    read = State(**json.loads(json.dumps(asdict(state))))
    assert read == state
    assert after([0.3, 0.6], state=read) == after([0.3, 0.6], state=state)


COSINE = replace(RULES, kind="cosine", min_learning_rate=0.0)


def test_a_cosine_rate_rises_then_falls_to_its_minimum():
    # One epoch of 20 rises, at half of the rate; then half a cosine over the other 19.
    rates = [cosine_rate(epoch, rules=COSINE) for epoch in range(1, 21)]
    assert rates[0] == 0.5
    assert rates[1] == 1.0
    assert rates[10] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)
    assert rates[1:] == sorted(rates[1:], reverse=True)


def test_a_cosine_schedule_keeps_every_epoch_so_far_and_never_ends_early():
    state = start(COSINE)
    for epoch, score in enumerate([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], start=1):
        assert state.learning_rate == cosine_rate(epoch, rules=COSINE)
        state = step(state, epoch=epoch, score=score, rules=COSINE)
        assert (state.best_epoch, state.is_best, is_over(state, rules=COSINE)) == (
            epoch,
            True,
            False,
        )


def test_a_plateau_schedule_starts_at_its_rate():
    assert start(RULES) == START
