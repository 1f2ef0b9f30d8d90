import pytest

from pipeline.domain import inbox
from pipeline.domain.inbox import Item, Look

A, B = Item("P/P_1.tif", 100, "t1"), Item("P/P_1_mask.tif", 10, "t1")
MARKER = Item("COMPLETE", 0, "t1")
BATCH = {"P/P_1.tif": "aa", "P/P_1_mask.tif": "bb"}


def arrived(listing: list[Item], seen: Look, *, now: float) -> bool:
    return inbox.has_arrived(listing, seen, now=now, settle_seconds=60)


def test_the_first_look_starts_the_time():
    assert inbox.look([A, B], None, now=1000).since == 1000


def test_the_time_goes_on_while_nothing_changes():
    first = inbox.look([A, B], None, now=1000)
    assert inbox.look([A, B], first, now=1030) == first


def test_the_order_of_a_listing_does_not_count():
    first = inbox.look([A, B], None, now=1000)
    assert inbox.look([B, A], first, now=1030) == first


@pytest.mark.parametrize(
    "changed",
    [
        [A, B, Item("P/P_2.tif", 100, "t1")],
        [A],
        [A, Item("P/P_1_mask.tif", 11, "t1")],
        [A, Item("P/P_1_mask.tif", 10, "t2")],
        [A, Item("P/P_3_mask.tif", 10, "t1")],
        [],
    ],
    ids=["a new file", "a file less", "a size", "a stamp", "a name", "nothing left"],
)
def test_a_change_starts_the_time_anew(changed):
    first = inbox.look([A, B], None, now=1000)
    second = inbox.look(changed, first, now=1030)
    assert second.since == 1030
    assert second.signature != first.signature


def test_a_change_back_starts_the_time_anew_too():
    first = inbox.look([A], None, now=1000)
    second = inbox.look([A, B], first, now=1030)
    assert inbox.look([A], second, now=1050) == Look(first.signature, 1050)


@pytest.mark.parametrize(("now", "expected"), [(1000, False), (1059, False), (1060, True)])
def test_a_batch_has_arrived_once_it_settled(now, expected):
    seen = inbox.look([A, B], None, now=1000)
    assert arrived([A, B], seen, now=now) is expected


def test_the_marker_says_at_once_that_a_batch_has_arrived():
    listing = [A, MARKER]
    assert arrived(listing, inbox.look(listing, None, now=1000), now=1000)


@pytest.mark.parametrize("path", ["P/COMPLETE", "complete", "COMPLETE.tif"])
def test_only_the_marker_of_the_batch_itself_counts(path):
    listing = [A, Item(path, 0, "t1")]
    assert not arrived(listing, inbox.look(listing, None, now=1000), now=1000)


def test_the_digest_of_a_batch_does_not_depend_on_the_order():
    assert inbox.batch_digest(BATCH) == inbox.batch_digest(dict(reversed(BATCH.items())))


@pytest.mark.parametrize(
    "other",
    [
        BATCH | {"P/P_1.tif": "ab"},
        {"P/P_1.tif": "aa"},
        {"P/P_1.tif": "bb", "P/P_1_mask.tif": "aa"},
        {"Q/P_1.tif": "aa", "P/P_1_mask.tif": "bb"},
        {},
    ],
    ids=["one byte", "a file less", "contents swapped", "another patient", "empty"],
)
def test_batches_of_other_content_have_other_digests(other):
    assert inbox.batch_digest(other) != inbox.batch_digest(BATCH)


def test_the_digest_of_all_data_does_not_depend_on_the_order_of_batches():
    assert inbox.data_digest("phantom", ["aa", "bb"]) == inbox.data_digest("phantom", ["bb", "aa"])


@pytest.mark.parametrize(
    ("source", "batches"), [("lgg.zip", ["aa", "bb"]), ("phantom", ["aa"]), ("phantom", [])]
)
def test_another_source_or_another_batch_is_other_data(source, batches):
    assert inbox.data_digest(source, batches) != inbox.data_digest("phantom", ["aa", "bb"])
