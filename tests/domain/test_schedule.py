import json
import math
from dataclasses import asdict, replace

import pytest

from pipeline.domain.schedule import Rules, State, cosine_rate, initial_state, is_over, next_state

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


def states_after(scores: list[float], *, rules: Rules = RULES, state: State = START) -> list[State]:
    """The state after each epoch."""
    states = []
    for epoch, score in enumerate(scores, start=1):
        state = next_state(state, epoch=epoch, score=score, rules=rules)
        states.append(state)
    return states


def test_the_first_epoch_is_the_best_so_far_whatever_its_score():
    state = next_state(START, epoch=1, score=0.0, rules=RULES)
    assert (state.best_score, state.best_epoch, state.is_best) == (0.0, 1, True)


def test_a_better_score_is_recorded_with_its_epoch():
    states = states_after([0.2, 0.1, 0.5, 0.4])
    assert [state.best_epoch for state in states] == [1, 1, 3, 3]
    assert [state.best_score for state in states] == [0.2, 0.2, 0.5, 0.5]
    assert [state.is_best for state in states] == [True, False, True, False]


def test_a_tie_keeps_the_earlier_epoch():
    last = states_after([0.5, 0.5])[-1]
    assert (last.best_epoch, last.is_best) == (1, False)


def test_a_score_of_nan_is_never_the_best():
    last = states_after([0.5, math.nan])[-1]
    assert (last.best_epoch, last.since_best) == (1, 1)


def test_the_rate_falls_after_plateau_patience_epochs_without_a_better_score():
    rules = replace(RULES, min_learning_rate=0.0)
    rates = [state.learning_rate for state in states_after([0.5, 0.4, 0.4, 0.4, 0.4], rules=rules)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_better_score_restarts_the_count_to_the_next_fall():
    rates = [state.learning_rate for state in states_after([0.5, 0.4, 0.6, 0.4, 0.4])]
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5]


def test_the_rate_never_falls_below_its_minimum():
    rates = [state.learning_rate for state in states_after([0.5] * 8)]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


def test_a_better_score_does_not_raise_the_rate_again():
    assert states_after([0.5, 0.4, 0.4, 0.9])[-1].learning_rate == 0.5


def test_training_is_over_after_patience_epochs_without_a_better_score():
    over = [is_over(state, rules=RULES) for state in states_after([0.5, 0.4, 0.6, 0.5, 0.5, 0.5])]
    assert over == [False, False, False, False, False, True]


def test_training_is_not_over_before_it_starts():
    assert not is_over(START, rules=replace(RULES, patience=1))


def test_a_fall_of_the_rate_does_not_postpone_the_end():
    rules = replace(RULES, plateau_patience=1)
    assert [is_over(state, rules=rules) for state in states_after([0.5] * 4, rules=rules)][-1]


def test_a_step_does_not_change_the_state_before_it():
    before = replace(START)
    next_state(START, epoch=1, score=0.5, rules=RULES)
    assert before == START


@pytest.mark.parametrize("scores", [[], [0.1], [0.5, 0.4, 0.4]])
def test_a_state_read_from_json_continues_as_the_original(scores):
    state = (states_after(scores) or [START])[-1]
    loaded = State(**json.loads(json.dumps(asdict(state))))
    assert loaded == state
    assert states_after([0.3, 0.6], state=loaded) == states_after([0.3, 0.6], state=state)


COSINE = replace(RULES, kind="cosine", min_learning_rate=0.0)


def test_a_cosine_rate_rises_and_then_falls_to_its_minimum():
    # The first of 20 epochs is the warm-up, at half the rate; half a cosine over the other 19.
    rates = [cosine_rate(epoch, rules=COSINE) for epoch in range(1, 21)]
    assert rates[0] == 0.5
    assert rates[1] == 1.0
    assert rates[10] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)
    assert rates[1:] == sorted(rates[1:], reverse=True)


def test_in_a_cosine_schedule_the_last_epoch_is_the_best_and_none_ends_early():
    state = initial_state(COSINE)
    for epoch, score in enumerate([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], start=1):
        assert state.learning_rate == cosine_rate(epoch, rules=COSINE)
        state = next_state(state, epoch=epoch, score=score, rules=COSINE)
        assert (state.best_epoch, state.is_best, is_over(state, rules=COSINE)) == (
            epoch,
            True,
            False,
        )


def test_a_plateau_schedule_starts_at_its_rate():
    assert initial_state(RULES) == START
