"""Fixtures: owners that are ended after the test, an empty folder, the users to be."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.owners import AS_NOBODY, Owner, StartOwner, eventually, processes_of

USERS = ["ourselves", "ordinary user"] if os.geteuid() == 0 else ["ourselves"]


@pytest.fixture
def start_owner(folder: Path) -> Iterator[StartOwner]:
    # Asks for the folder only to be torn down before it.
    owners: list[Owner] = []

    def start(home: Path, user: str = "ourselves", *, durable: bool = False, prefix: list[str] | None = None) -> Owner:
        owners.append(Owner(home, prefix or (AS_NOBODY if user == "ordinary user" else []), durable=durable))
        owners[-1].wait_for_start()
        return owners[-1]

    yield start
    end_all(owners)


@pytest.fixture(scope="module")
def owner() -> Iterator[Owner]:
    """One owner, with a home of its own, for the tests that only look at it."""
    with tempfile.TemporaryDirectory() as folder:
        started = Owner(Path(folder, "home"), [], durable=False)
        started.wait_for_start()
        yield started
        end_all([started])


def end_all(owners: list[Owner]) -> None:
    for owner in owners:
        owner.close()
    homes = {owner.home for owner in owners if not owner.refused}
    assert eventually(lambda: not any(processes_of(home) for home in homes)), "processes outlived their owner"


@pytest.fixture(scope="session")
def homes() -> Iterator[dict[str, Path]]:
    """A folder for each user's home that the tests share: a start on data that is there is much quicker."""
    folders = {user: make_folder(user) for user in USERS}
    yield {user: folder / "home" for user, folder in folders.items()}
    for folder in folders.values():
        shutil.rmtree(folder)


@pytest.fixture
def home(request: pytest.FixtureRequest, homes: dict[str, Path]) -> Path:
    """The shared home of the test's ``user`` if it has one, else ours."""
    return homes[user_of(request)]


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new folder only its user may enter: of the test's ``user`` if it has one, else ours."""
    made = make_folder(user_of(request))
    yield made
    shutil.rmtree(made)


def user_of(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("user")) if "user" in request.fixturenames else "ourselves"


def make_folder(user: str) -> Path:
    made = Path(tempfile.mkdtemp(prefix="batchdesk test "))
    if user == "ordinary user":
        os.chown(made, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    return made
