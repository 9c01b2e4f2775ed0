"""Which release an occurrence gets: deny beats allow, and nothing unproven is ever given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import Millis, ReleaseDigest
from reconciler.rollout.assignment import Assigned, Pointer, Unassigned, assign
from reconciler.rollout.model import Hold

OLD, NEW = ReleaseDigest("rel-old"), ReleaseDigest("rel-new")
HOLD = Hold("h", "*", "assignment", "incident 7", "ada", Millis(0))
OPEN = Pointer(OLD, NEW, "rollout-1", count=3, assigned=2)

digests = st.none() | st.sampled_from([OLD, NEW])
pointers = st.builds(
    Pointer,
    stable=digests,
    candidate=digests,
    rollout=st.none() | st.just("rollout-1"),
    count=st.integers(0, 3),
    assigned=st.integers(0, 4),
)


def test_the_canary_has_its_turn_first_then_stable() -> None:
    assert assign(OPEN, quarantined=(), hold=None) == Assigned(NEW, "rollout-1")
    full = Pointer(OLD, NEW, "rollout-1", count=3, assigned=3)
    assert assign(full, quarantined=(), hold=None) == Assigned(OLD, None)
    assert assign(Pointer(OLD), quarantined=(), hold=None) == Assigned(OLD, None)


def test_a_quarantined_candidate_gives_way_to_stable() -> None:
    assert assign(OPEN, quarantined={NEW}, hold=None) == Assigned(OLD, None)


@pytest.mark.parametrize(
    "pointer, quarantined, hold, said",
    [
        (None, set(), None, "no release"),
        (Pointer(None), set(), None, "no release"),
        (Pointer(OLD), {OLD}, None, "quarantined; roll back"),
        (OPEN, set(), HOLD, "held by ada: incident 7"),
    ],
)
def test_what_is_denied_is_told_why(pointer, quarantined: set[str], hold, said: str) -> None:
    choice = assign(pointer, quarantined=quarantined, hold=hold)
    assert isinstance(choice, Unassigned)
    assert said in choice.reason


@given(pointers, st.sets(st.sampled_from([OLD, NEW])), st.none() | st.just(HOLD))
def test_only_stable_or_an_open_canary_is_ever_given(pointer, quarantined, hold) -> None:
    choice = assign(pointer, quarantined=quarantined, hold=hold)
    if isinstance(choice, Assigned):
        assert hold is None
        assert choice.release not in quarantined
        if choice.release == pointer.candidate and choice.release != pointer.stable:
            assert pointer.assigned < pointer.count
        else:
            assert choice.release in (pointer.stable, pointer.candidate)
