"""What several parties of one process say."""

from __future__ import annotations

import logging

import pytest

from heterofed.metrics.chorus import Chorus
from heterofed.metrics.progress import BarProgress, NoProgress


def test_a_line_that_all_say_is_shown_once_with_the_name_of_the_first() -> None:
    chorus = Chorus()

    assert chorus.worded("shop", "200 ids are common") == "shop: 200 ids are common"
    assert chorus.worded("bank", "200 ids are common") is None
    assert chorus.worded("mill", "200 ids are common") is None


def test_a_line_that_names_its_party_is_not_given_its_name_again() -> None:
    chorus = Chorus()

    assert chorus.worded("bank", "bank takes part in credit") == "bank takes part in credit"
    assert chorus.worded("bank", "bankers are here") == "bank: bankers are here"


def test_what_a_party_says_again_is_shown_again_and_again_once_for_all() -> None:
    chorus = Chorus()
    said = [chorus.worded(party, "mill is connected") for party in ("bank", "bank", "shop", "shop", "shop")]

    assert said == ["bank: mill is connected"] * 2 + [None, None, "shop: mill is connected"]


def test_views_of_one_chorus_log_a_line_once(caplog: pytest.LogCaptureFixture) -> None:
    chorus = Chorus()
    with caplog.at_level(logging.INFO):
        for view in (BarProgress("bank", chorus), NoProgress("shop", chorus)):
            view.say("the ids are matched")
        NoProgress("mill").say("the ids are matched")

    assert caplog.messages == ["bank: the ids are matched", "the ids are matched"]
