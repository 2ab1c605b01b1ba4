"""The newest point that all parties hold, and who cannot join because it would cost the others what they have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from heterofed import ConfigError
from heterofed.scheduler.standing import FRESH, START, Agreement, Standing, agree, unfit

RUN, OTHER = b"\xab" * 16, b"\xcd" * 16

STANDINGS = some.builds(
    Standing,
    recover=some.booleans(),
    run=some.sampled_from([b"", RUN, OTHER]),
    points=some.sets(some.sampled_from([0, 3, 6, 9, 12]), max_size=4).map(lambda each: tuple(sorted(each))),
)


@given(some.dictionaries(some.sampled_from(["host", "c1", "c2", "c3"]), STANDINGS, min_size=2))
def test_all_go_on_from_the_newest_point_of_one_run_that_all_hold_or_from_the_start_or_nowhere(
    standings: dict[str, Standing],
) -> None:
    runs = {each.run for each in standings.values()}
    common = [point for point in range(13) if all(point in each.points for each in standings.values())]
    one_run = len(runs) == 1 and runs != {b""}
    if not one_run:
        common = [point for point in common if point == START]

    if common:
        assert agree(standings) == Agreement(common[-1], matched=one_run)
        return
    with pytest.raises(ConfigError) as caught:
        agree(standings)
    assert all(f"{party} can go on " in str(caught.value) for party in standings)


@given(STANDINGS, STANDINGS)
def test_a_host_that_goes_on_turns_away_exactly_those_with_whom_it_could_not(ours: Standing, theirs: Standing) -> None:
    ours = Standing(True, ours.run, (*ours.points, 15))

    try:
        agree({"host": ours, "c1": theirs})
    except ConfigError:
        assert unfit(ours, theirs)
    else:
        assert unfit(ours, theirs) is None


@given(STANDINGS, STANDINGS)
def test_nobody_is_turned_away_with_whom_the_host_could_go_on(ours: Standing, theirs: Standing) -> None:
    if unfit(ours, theirs) is not None:
        with pytest.raises(ConfigError):
            agree({"host": ours, "c1": theirs})


def test_the_text_says_where_each_party_is_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        agree({"host": Standing(True, RUN, (6, 9)), "c1": FRESH, "c2": Standing(True, RUN, ())})

    assert str(caught.value) == (
        "the parties hold no checkpoint in common: host can go on after batch 6 or batch 9 of run ababab; "
        "c1 can go on from the start; c2 can go on from nowhere; expected one point of one run that every party can go "
        "on from. Restore the results folder of the party that lacks it, or begin anew: launch every party without "
        "recover=True."
    )


def test_one_who_begins_anew_where_the_others_cannot_is_told_to_recover() -> None:
    assert unfit(Standing(True, RUN, (6, 9)), FRESH) == (
        "it begins anew where the task goes on after batch 6 or batch 9 of run ababab. Start it again with "
        "recover=True, or stop all parties to begin anew"
    )


def test_one_who_has_lost_its_folder_is_told_what_the_others_have() -> None:
    assert unfit(Standing(True, RUN, (6, 9)), Standing(True)) == (
        "the task goes on after batch 6 or batch 9 of run ababab, and it can go on from the start. Restore its results "
        "folder (out_dir), or stop all parties to begin anew"
    )


@pytest.mark.parametrize("host", [FRESH, Standing(True), Standing(True, RUN), Standing(True, points=())])
def test_a_host_that_has_nothing_turns_nobody_away_who_has_something(host: Standing) -> None:
    """It is the one that has to be started in another way: an error for all says so."""
    assert unfit(host, Standing(True, RUN, (6, 9))) is None
