"""Who has a home: told by its lock, whatever its owner is doing just now."""

from __future__ import annotations

from pathlib import Path

from webapp import local
from webapp.local.home import Home


def test_a_home_is_held_from_the_moment_it_is_owned_until_it_is_given_back(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert not local.held(home.root)
    home.make()
    assert not local.held(home.root)
    home.own()
    assert local.held(home.root) and local.running(home.root) is None, "nothing is up yet"
    home.disown()
    assert not local.held(home.root)
