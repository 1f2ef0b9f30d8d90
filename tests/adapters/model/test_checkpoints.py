from pathlib import Path

import keras
import numpy as np
import pytest
from making import content, parameters

from pipeline.adapters.model import checkpoints
from pipeline.adapters.model.checkpoints import Store
from pipeline.domain.schedule import Rules, State, next_state
from pipeline.domain.training_state import Checkpoint

RULES = Rules(
    kind="plateau",
    epochs=9,
    learning_rate=0.1,
    patience=9,
    plateau_patience=9,
    plateau_factor=0.5,
    min_learning_rate=0.0,
)
DIGEST, OTHER_DIGEST = "1" * 64, "2" * 64


def variables(value: float) -> list[np.ndarray]:
    """A matrix, a vector and a counter, each filled with `value`."""
    return [np.full((2, 3), value, np.float32), np.full(4, value, np.float32), np.int64(value)]


def train(store: Store, *scores: float) -> State:
    """Save epochs with these validation scores; the variables after epoch n are all n."""
    state, rows = State(learning_rate=0.1), []
    for epoch, score in enumerate(scores, start=1):
        state = next_state(state, epoch=epoch, score=score, rules=RULES)
        rows.append({"epoch": epoch, "val_tversky": score})
        store.save(
            Checkpoint(variables(epoch), variables(state.best_epoch), None, state, list(rows))
        )
    return state


def equal(arrays: list[np.ndarray], value: float) -> bool:
    expected = variables(value)
    return len(arrays) == len(expected) and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, expected, strict=True)
    )


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_an_epoch_round_trips(tmp_path):
    state = train(Store(tmp_path, DIGEST), 0.5)
    loaded = Store(tmp_path, DIGEST).load()
    assert loaded is not None
    assert equal(loaded.variables, 1)
    assert equal(loaded.best, 1)
    assert loaded.mean is None
    assert loaded.state == state
    assert loaded.rows == [{"epoch": 1, "val_tversky": 0.5}]


def test_the_best_epoch_is_stored_with_the_last(tmp_path):
    state = train(Store(tmp_path, DIGEST), 0.3, 0.7, 0.6, 0.5)
    loaded = Store(tmp_path, DIGEST).load()
    assert loaded is not None
    assert equal(loaded.variables, 4)
    assert equal(loaded.best, 2)
    assert loaded.state == state
    assert len(loaded.rows) == 4


def test_epochs_that_are_neither_last_nor_best_are_removed(tmp_path):
    train(Store(tmp_path, DIGEST), 0.3, 0.7, 0.6, 0.5)
    assert file_names(tmp_path) == ["epoch-2.npz", "epoch-4.npz", "state.json"]


def test_the_mean_of_the_last_epochs_is_stored_with_them(tmp_path):
    store, state = Store(tmp_path, DIGEST), State(learning_rate=0.1)
    for epoch, mean in enumerate((None, variables(2), variables(2.5)), start=1):
        state = next_state(state, epoch=epoch, score=epoch / 10, rules=RULES)
        current = variables(epoch)
        store.save(Checkpoint(current, current, mean, state, [{"epoch": epoch}]))
        loaded = store.load()
        assert loaded is not None
        assert (loaded.mean is None) == (mean is None)
    assert loaded.mean is not None
    assert equal(loaded.mean, 2.5)
    assert file_names(tmp_path) == ["epoch-3-mean.npz", "epoch-3.npz", "state.json"]


def test_more_than_ten_variables_keep_their_order(tmp_path):
    store = Store(tmp_path, DIGEST)
    state = next_state(State(learning_rate=0.1), epoch=1, score=0.5, rules=RULES)
    numbers = [np.array(i) for i in range(12)]
    store.save(Checkpoint(numbers, numbers, None, state, [{"epoch": 1}]))
    loaded = store.load()
    assert loaded is not None
    assert [int(variable) for variable in loaded.variables] == list(range(12))


def test_a_new_training_has_no_checkpoint(tmp_path):
    assert Store(tmp_path / "none", DIGEST).load() is None


def test_a_training_with_another_digest_does_not_see_it(tmp_path):
    train(Store(tmp_path, DIGEST), 0.5)
    assert Store(tmp_path, OTHER_DIGEST).load() is None
    assert Store(tmp_path, DIGEST).load() is not None


def test_the_first_checkpoint_of_another_training_removes_the_old_one(tmp_path):
    train(Store(tmp_path, DIGEST), 0.5)
    train(Store(tmp_path, OTHER_DIGEST), 0.4)
    assert Store(tmp_path, DIGEST).load() is None
    assert Store(tmp_path, OTHER_DIGEST).load() is not None


def test_networks_of_one_training_have_separate_checkpoints(tmp_path):
    for network, score in ((1, 0.5), (2, 0.6), (3, 0.7)):
        train(Store(tmp_path, DIGEST, network), score)
    for network, score in ((1, 0.5), (2, 0.6), (3, 0.7)):
        loaded = Store(tmp_path, DIGEST, network).load()
        assert loaded is not None
        assert loaded.rows[0]["val_tversky"] == score
    train(Store(tmp_path, OTHER_DIGEST, 2), 0.4)
    assert [Store(tmp_path, DIGEST, network).load() for network in (1, 2, 3)] == [None] * 3


def test_clearing_removes_every_file(tmp_path):
    store = Store(tmp_path, DIGEST)
    train(store, 0.5)
    store.clear()
    assert store.load() is None
    assert content(tmp_path) == {}


FILES = ("state.json", "epoch-1.npz", "epoch-2.npz")  # of two epochs, the first the best


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_that_lacks_a_file_is_ignored(tmp_path, name):
    train(Store(tmp_path, DIGEST), 0.7, 0.6)
    (path,) = tmp_path.rglob(name)
    path.unlink()
    assert Store(tmp_path, DIGEST).load() is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("end", [0, 60, -10])
def test_a_checkpoint_with_a_truncated_file_is_ignored(tmp_path, name, end):
    train(Store(tmp_path, DIGEST), 0.7, 0.6)
    (path,) = tmp_path.rglob(name)
    path.write_bytes(path.read_bytes()[:end])
    assert Store(tmp_path, DIGEST).load() is None


@pytest.mark.parametrize("record", ["[]", "{}", "null", '{"last": 1, "best": 2}'])
def test_a_record_without_the_expected_fields_is_ignored(tmp_path, record):
    train(Store(tmp_path, DIGEST), 0.5)
    (path,) = tmp_path.rglob("state.json")
    path.write_text(record)
    assert Store(tmp_path, DIGEST).load() is None


def test_a_training_overwrites_a_damaged_checkpoint(tmp_path):
    store = Store(tmp_path, DIGEST)
    train(store, 0.7, 0.6)
    (path,) = tmp_path.rglob("state.json")
    path.write_text("{")
    train(store, 0.9)
    loaded = store.load()
    assert loaded is not None
    assert equal(loaded.variables, 1)
    assert len(loaded.rows) == 1


# training_digest


@pytest.fixture
def tables(tmp_path) -> dict[str, Path]:
    for name in ("manifest", "splits"):
        (tmp_path / name).write_text(name)
    return {name: tmp_path / name for name in ("manifest", "splits")}


def digest(tables: dict[str, Path], *, code: str = DIGEST, **sections) -> str:
    return checkpoints.training_digest(parameters(**sections), code=code, **tables)


def test_the_same_training_has_the_same_digest(tables):
    assert digest(tables) == digest(tables)


def test_other_code_gives_another_digest(tables):
    assert digest(tables, code=OTHER_DIGEST) != digest(tables)


def test_another_keras_backend_gives_another_digest(tables, monkeypatch):
    before = digest(tables)
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    assert digest(tables) != before


@pytest.mark.parametrize("name", ["manifest", "splits"])
def test_other_scans_or_splits_give_another_digest(tables, name):
    before = digest(tables)
    tables[name].write_text("changed")
    assert digest(tables) != before


def test_only_parameters_of_the_training_shape_the_digest(tables):
    assert digest(tables, train={"seed": 977}) != digest(tables)
    assert digest(tables, gate={"min_patients": 977}) == digest(tables)
