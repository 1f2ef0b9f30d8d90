import pytest

from pipeline.domain import arrival
from pipeline.domain.arrival import ListedFile, Observation

A, B = ListedFile("P/P_1.tif", 100, "t1"), ListedFile("P/P_1_mask.tif", 10, "t1")
MARKER = ListedFile("COMPLETE", 0, "t1")
BATCH = {"P/P_1.tif": "aa", "P/P_1_mask.tif": "bb"}


def has_arrived(listing: list[ListedFile], observation: Observation, *, now: float) -> bool:
    return arrival.has_arrived(listing, observation, now=now, settle_seconds=60)


def test_an_observation_starts_at_the_first_look():
    assert arrival.observe([A, B], None, now=1000).since == 1000


def test_an_observation_stays_while_nothing_changes():
    first = arrival.observe([A, B], None, now=1000)
    assert arrival.observe([A, B], first, now=1030) == first


def test_an_observation_starts_again_if_the_clock_was_set_back():
    first = arrival.observe([A, B], None, now=1000)
    second = arrival.observe([A, B], first, now=500)
    assert second == Observation(first.signature, 500)
    assert has_arrived([A, B], arrival.observe([A, B], second, now=560), now=560)


def test_a_name_that_is_not_valid_utf8_has_a_signature():
    odd = ListedFile("P/\udcff.tif", 100, "t1")
    assert arrival.signature([odd]) != arrival.signature([ListedFile("P/\udcfe.tif", 100, "t1")])


@pytest.mark.parametrize(
    ("now", "earlier", "expected"),
    [
        (60, [], "1970-01-01T00:01:00+00:00"),
        (60, ["1970-01-01T00:00:30+00:00"], "1970-01-01T00:01:00+00:00"),
        (60, ["1970-01-01T00:01:00+00:00"], "1970-01-01T00:01:01+00:00"),
        (60, ["1970-01-01T00:02:00", "1970-01-01T00:01:30"], "1970-01-01T00:02:01+00:00"),
        (60, ["1970-01-01T02:02:00+02:00"], "1970-01-01T00:02:01+00:00"),
        (60, ["yesterday", "", "9999-12-31T23:59:59+00:00"], "1970-01-01T00:01:00+00:00"),
    ],
)
def test_a_batch_arrives_later_than_all_that_were_imported_before(now, earlier, expected):
    assert arrival.time_of_arrival(now, earlier) == expected


def test_the_order_of_a_listing_does_not_count():
    first = arrival.observe([A, B], None, now=1000)
    assert arrival.observe([B, A], first, now=1030) == first


@pytest.mark.parametrize(
    "changed",
    [
        [A, B, ListedFile("P/P_2.tif", 100, "t1")],
        [A],
        [A, ListedFile("P/P_1_mask.tif", 11, "t1")],
        [A, ListedFile("P/P_1_mask.tif", 10, "t2")],
        [A, ListedFile("P/P_3_mask.tif", 10, "t1")],
        [],
    ],
    ids=["file added", "file removed", "size", "stamp", "name", "all files removed"],
)
def test_any_change_starts_a_new_observation(changed):
    first = arrival.observe([A, B], None, now=1000)
    second = arrival.observe(changed, first, now=1030)
    assert second.since == 1030
    assert second.signature != first.signature


def test_a_change_back_starts_a_new_observation_too():
    first = arrival.observe([A], None, now=1000)
    second = arrival.observe([A, B], first, now=1030)
    assert arrival.observe([A], second, now=1050) == Observation(first.signature, 1050)


@pytest.mark.parametrize(("now", "expected"), [(1000, False), (1059, False), (1060, True)])
def test_a_batch_has_arrived_once_it_is_unchanged_for_the_settle_time(now, expected):
    observation = arrival.observe([A, B], None, now=1000)
    assert has_arrived([A, B], observation, now=now) is expected


def test_a_batch_with_the_marker_has_arrived_at_once():
    listing = [A, MARKER]
    assert has_arrived(listing, arrival.observe(listing, None, now=1000), now=1000)


@pytest.mark.parametrize("path", ["P/COMPLETE", "complete", "COMPLETE.tif"])
def test_only_a_marker_at_the_top_of_the_batch_counts(path):
    listing = [A, ListedFile(path, 0, "t1")]
    assert not has_arrived(listing, arrival.observe(listing, None, now=1000), now=1000)


def test_the_digest_of_a_batch_does_not_depend_on_the_order_of_files():
    assert arrival.batch_digest(BATCH) == arrival.batch_digest(dict(reversed(BATCH.items())))


@pytest.mark.parametrize(
    "other",
    [
        BATCH | {"P/P_1.tif": "ab"},
        {"P/P_1.tif": "aa"},
        {"P/P_1.tif": "bb", "P/P_1_mask.tif": "aa"},
        {"Q/P_1.tif": "aa", "P/P_1_mask.tif": "bb"},
        {},
    ],
    ids=["content", "file removed", "contents swapped", "patient", "empty"],
)
def test_batches_with_different_content_have_different_digests(other):
    assert arrival.batch_digest(other) != arrival.batch_digest(BATCH)


def test_the_digest_of_all_data_does_not_depend_on_the_order_of_batches():
    assert arrival.data_digest("phantom", ["aa", "bb"]) == arrival.data_digest(
        "phantom", ["bb", "aa"]
    )


@pytest.mark.parametrize(
    ("source", "batches"), [("lgg.zip", ["aa", "bb"]), ("phantom", ["aa"]), ("phantom", [])]
)
def test_another_source_or_other_batches_have_another_digest(source, batches):
    assert arrival.data_digest(source, batches) != arrival.data_digest("phantom", ["aa", "bb"])
