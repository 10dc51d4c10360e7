"""The lists of sabotage fit the scripts and pages, so that `make sabotage` runs."""

from __future__ import annotations

from sabotage.acts import acts


def test_each_act_finds_what_it_takes_out() -> None:
    assert acts()  # which raises SystemExit for one that does not
