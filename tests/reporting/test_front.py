from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.front import Place, middle, most_per_latency, pareto_ranks

places = st.lists(st.none() | st.builds(Place, st.integers(1, 9), st.integers(1, 9)), max_size=12)


def test_a_model_is_on_the_front_where_nothing_as_fast_is_as_accurate() -> None:
    fast, accurate, both_worse, equal = Place(0.5, 70), Place(1, 76), Place(0.6, 69), Place(0.5, 70)
    assert pareto_ranks([accurate, fast, both_worse, equal]) == [1, 1, 2, 1]
    assert pareto_ranks([Place(1, 70), Place(1, 71), Place(0.9, 71), None]) == [3, 2, 1, None]
    assert pareto_ranks([]) == []


@given(places)
def test_every_place_is_beaten_by_one_of_the_rank_above_and_by_none_of_its_own(found: list[Place | None]) -> None:
    ranks = pareto_ranks(found)
    ranked = [(place, rank) for place, rank in zip(found, ranks, strict=True) if place is not None and rank]
    assert [rank is None for rank in ranks] == [place is None for place in found]
    for place, rank in ranked:
        better = {other_rank for other, other_rank in ranked if other.beats(place)}
        assert rank not in better
        assert rank == 1 or rank - 1 in better


@given(places)
def test_the_most_accuracy_per_latency_is_on_the_front(found: list[Place | None]) -> None:
    best = most_per_latency(found)
    assert best is None or pareto_ranks(found)[best] == 1


def test_the_most_accuracy_per_latency_is_that_of_the_highest_quotient() -> None:
    assert most_per_latency([Place(1.0, 76.0), None, Place(0.5, 70.0), Place(0.6, 75.0)]) == 2
    assert most_per_latency([None]) is None


def test_the_middle_is_that_of_the_known_places() -> None:
    assert middle([Place(0.5, 70), None, Place(0.7, 72)]) == Place(0.6, 71)
    assert middle([None]) is None
