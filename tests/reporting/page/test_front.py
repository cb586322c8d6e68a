from hypothesis import given
from hypothesis import strategies as st

from harness.reporting.page.front import Place, best_per_latency, pareto_ranks

SOMEWHERE = st.builds(Place, st.sampled_from([0.4, 0.5, 0.75, 1.0]), st.sampled_from([10.0, 50.0, 70.0]))
PLACES = st.lists(st.none() | SOMEWHERE, max_size=8)


def test_what_no_other_beats_is_on_the_front() -> None:
    places = [Place(1.0, 76.0), Place(0.5, 70.0), Place(0.6, 69.0), None, Place(0.7, 68.0)]
    assert pareto_ranks(places) == [1, 1, 2, None, 3]


def test_equal_models_share_a_front() -> None:
    assert pareto_ranks([Place(0.5, 70.0), Place(0.5, 70.0), Place(0.5, 60.0)]) == [1, 1, 2]


def test_the_best_per_latency_has_most_accuracy_for_its_latency() -> None:
    assert best_per_latency([Place(1.0, 76.0), None, Place(0.5, 70.0), Place(0.6, 75.0)]) == 2
    assert best_per_latency([None]) is None


@given(PLACES)
def test_each_model_is_beaten_by_one_of_the_front_before_and_by_none_of_its_own(places: list[Place | None]) -> None:
    ranks = pareto_ranks(places)
    assert [rank is None for rank in ranks] == [place is None for place in places]
    ranked = [(place, rank) for place, rank in zip(places, ranks, strict=True) if place and rank]
    for place, rank in ranked:
        assert not any(other.beats(place) for other, same in ranked if same == rank)
        assert rank == 1 or any(other.beats(place) for other, before in ranked if before == rank - 1)


@given(PLACES)
def test_the_best_per_latency_is_on_the_front(places: list[Place | None]) -> None:
    best = best_per_latency(places)
    assert best is None or pareto_ranks(places)[best] == 1
