import numpy as np
import pytest
from making import content

from pipeline.adapters.checkpoints import Store
from pipeline.domain.schedule import Rules, State, step

RULES = Rules(
    kind="plateau",
    epochs=9,
    learning_rate=0.1,
    patience=9,
    plateau_patience=9,
    plateau_factor=0.5,
    min_learning_rate=0.0,
)
ONE, OTHER = "1" * 64, "2" * 64


def variables(value: float) -> list[np.ndarray]:
    """A matrix, a vector and a counter, all at that value."""
    return [np.full((2, 3), value, np.float32), np.full(4, value, np.float32), np.int64(value)]


def train(store: Store, *scores: float) -> State:
    """Epochs with these validation scores; the variables after epoch n are all n."""
    state, rows = State(learning_rate=0.1), []
    for epoch, score in enumerate(scores, start=1):
        state = step(state, epoch=epoch, score=score, rules=RULES)
        rows.append({"epoch": epoch, "val_tversky": score})
        store.save(variables(epoch), state, list(rows))
    return state


def same(found: list[np.ndarray], value: float) -> bool:
    expected = variables(value)
    return len(found) == len(expected) and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True)
    )


def test_an_epoch_round_trips(tmp_path):
    state = train(Store(tmp_path, ONE), 0.5)
    found = Store(tmp_path, ONE).load()
    assert found is not None
    assert same(found.variables, 1)
    assert same(found.best, 1)
    assert found.state == state
    assert found.rows == [{"epoch": 1, "val_tversky": 0.5}]


def test_the_best_epoch_is_kept_beside_the_last(tmp_path):
    state = train(Store(tmp_path, ONE), 0.3, 0.7, 0.6, 0.5)
    found = Store(tmp_path, ONE).load()
    assert found is not None
    assert same(found.variables, 4)
    assert same(found.best, 2)
    assert found.state == state
    assert len(found.rows) == 4


def test_epochs_that_are_neither_last_nor_best_are_removed(tmp_path):
    train(Store(tmp_path, ONE), 0.3, 0.7, 0.6, 0.5)
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["epoch-2.npz", "epoch-4.npz", "state.json"]


def test_the_mean_of_the_last_epochs_is_kept_beside_them(tmp_path):
    store, state = Store(tmp_path, ONE), State(learning_rate=0.1)
    for epoch, mean in enumerate((None, variables(2), variables(2.5)), start=1):
        state = step(state, epoch=epoch, score=epoch / 10, rules=RULES)
        store.save(variables(epoch), state, [{"epoch": epoch}], mean)
        found = store.load()
        assert found is not None
        assert (found.mean is None) == (mean is None)
    assert found.mean is not None
    assert same(found.mean, 2.5)
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["epoch-3-mean.npz", "epoch-3.npz", "state.json"]


def test_more_than_ten_variables_keep_their_order(tmp_path):
    store = Store(tmp_path, ONE)
    state = step(State(learning_rate=0.1), epoch=1, score=0.5, rules=RULES)
    store.save([np.array(i) for i in range(12)], state, [{"epoch": 1}])
    found = store.load()
    assert found is not None
    assert [int(one) for one in found.variables] == list(range(12))


def test_a_new_training_has_no_checkpoint(tmp_path):
    assert Store(tmp_path / "none", ONE).load() is None


def test_another_digest_never_sees_it(tmp_path):
    train(Store(tmp_path, ONE), 0.5)
    assert Store(tmp_path, OTHER).load() is None
    assert Store(tmp_path, ONE).load() is not None


def test_the_first_checkpoint_of_another_training_removes_the_old_one(tmp_path):
    train(Store(tmp_path, ONE), 0.5)
    train(Store(tmp_path, OTHER), 0.4)
    assert Store(tmp_path, ONE).load() is None
    assert Store(tmp_path, OTHER).load() is not None


def test_networks_of_one_training_keep_their_checkpoints_beside_each_other(tmp_path):
    for network, score in ((1, 0.5), (2, 0.6), (3, 0.7)):
        train(Store(tmp_path, ONE, network), score)
    for network, score in ((1, 0.5), (2, 0.6), (3, 0.7)):
        found = Store(tmp_path, ONE, network).load()
        assert found is not None
        assert found.rows[0]["val_tversky"] == score
    train(Store(tmp_path, OTHER, 2), 0.4)
    assert [Store(tmp_path, ONE, network).load() for network in (1, 2, 3)] == [None] * 3


def test_a_cleared_training_is_gone(tmp_path):
    store = Store(tmp_path, ONE)
    train(store, 0.5)
    store.clear()
    assert store.load() is None
    assert content(tmp_path) == {}


FILES = ("state.json", "epoch-1.npz", "epoch-2.npz")  # of two epochs, the first the best


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_that_lacks_a_file_is_ignored(tmp_path, name):
    train(Store(tmp_path, ONE), 0.7, 0.6)
    (path,) = tmp_path.rglob(name)
    path.unlink()
    assert Store(tmp_path, ONE).load() is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 60, -10])
def test_a_checkpoint_with_a_torn_file_is_ignored(tmp_path, name, kept):
    train(Store(tmp_path, ONE), 0.7, 0.6)
    (path,) = tmp_path.rglob(name)
    path.write_bytes(path.read_bytes()[:kept])
    assert Store(tmp_path, ONE).load() is None


@pytest.mark.parametrize("note", ["[]", "{}", "null", '{"last": 1, "best": 2}'])
def test_a_note_of_another_form_is_ignored(tmp_path, note):
    train(Store(tmp_path, ONE), 0.5)
    (path,) = tmp_path.rglob("state.json")
    path.write_text(note)
    assert Store(tmp_path, ONE).load() is None


def test_a_training_goes_on_over_a_checkpoint_that_was_not_whole(tmp_path):
    store = Store(tmp_path, ONE)
    train(store, 0.7, 0.6)
    (path,) = tmp_path.rglob("state.json")
    path.write_text("{")
    train(store, 0.9)
    found = store.load()
    assert found is not None
    assert same(found.variables, 1)
    assert len(found.rows) == 1
