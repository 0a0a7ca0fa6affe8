"""Stop strings: whatever the pieces, the text is that before the earliest stop string, and nothing of one leaks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from highrise.serve.stop import StopMatcher

PIECES = st.lists(st.text("ab\n", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


@given(PIECES, STOPS)
def test_pieces_give_what_the_whole_gives(pieces, stops):
    matcher = StopMatcher(tuple(stops))
    emitted, hit = "", None
    for piece in pieces:
        text, hit = matcher.push(piece)
        emitted += text
        if hit is not None:
            break
    else:
        emitted += matcher.finish()
    whole = "".join(pieces)
    if hit is None:
        assert emitted == whole
        assert not any(stop in whole for stop in stops)
    else:
        assert whole.startswith(emitted + hit)
        assert not any(stop in emitted for stop in stops)


@given(PIECES, STOPS)
def test_only_a_possible_beginning_is_held_back(pieces, stops):
    matcher = StopMatcher(tuple(stops))
    emitted = ""
    for index, piece in enumerate(pieces):
        text, hit = matcher.push(piece)
        emitted += text
        if hit is not None:
            return
        held = "".join(pieces[: index + 1])[len(emitted) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_no_stop_strings_hold_nothing():
    matcher = StopMatcher(())
    assert matcher.push("abc") == ("abc", None)
    assert matcher.finish() == ""
