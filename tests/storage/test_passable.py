"""Root lets one user pass through its folders, and nobody else."""

import errno
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from passthrough.errors import UserError
from passthrough.storage import embedded, passable
from passthrough.storage.passable import let_pass

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="nobody but root can give way to others")

STRANGER = 64_999  # a user id without a name
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that is closed to others, with one in it, which is too; not below pytest's, which all tests share."""
    with tempfile.TemporaryDirectory(prefix="passthrough-") as name:
        inner = Path(name) / "inner"
        inner.mkdir(mode=0o700)
        (inner / "file").write_text("readable")
        (inner / "file").chmod(0o644)
        yield Path(name)


def reads(user: int, path: Path) -> bool:
    done = subprocess.run(  # noqa: S603  # a constant command, and a path of our own
        ["/bin/ls" if path.is_dir() else "/bin/cat", path],
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
        env={"LC_ALL": "C"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 0 or b"Permission denied" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.fixture(params=["access lists", "groups"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "groups":

        def unsupported(*_: object) -> None:
            raise OSError(errno.ENOTSUP, "no such thing on this file system")

        monkeypatch.setattr(os, "getxattr", unsupported)
        monkeypatch.setattr(os, "setxattr", unsupported)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_one_user_may_pass_and_list_nothing_and_nobody_else_may(home: Path) -> None:
    file = home / "inner" / "file"
    assert not reads(NOBODY.pw_uid, file)
    for _ in range(2):  # again, as at every start
        let_pass(home / "inner", NOBODY)
        assert reads(NOBODY.pw_uid, file)
        assert not reads(NOBODY.pw_uid, home)
        assert not reads(STRANGER, file)
    assert not home.stat().st_mode & stat.S_IRWXO


def test_what_is_open_already_is_left_as_it_is(home: Path, way: str) -> None:
    del way
    home.chmod(0o711)
    os.chown(home / "inner", NOBODY.pw_uid, -1)
    before = [(path.stat().st_mode, path.stat().st_gid) for path in (home, home / "inner")]
    let_pass(home / "inner", NOBODY)
    assert [(path.stat().st_mode, path.stat().st_gid) for path in (home, home / "inner")] == before
    assert not [name for path in (home, home / "inner") for name in os.listxattr(path)]


def test_who_may_list_a_folder_by_its_group_still_may(home: Path) -> None:
    os.chown(home, -1, NOBODY.pw_gid)
    home.chmod(0o750)
    assert reads(NOBODY.pw_uid, home)
    let_pass(home / "inner", NOBODY)
    assert reads(NOBODY.pw_uid, home)
    assert reads(NOBODY.pw_uid, home / "inner" / "file")


def test_what_a_mask_kept_from_others_is_still_kept_from_them(home: Path) -> None:
    let_pass(home, pwd.struct_passwd(("stranger", "x", STRANGER, STRANGER, "", "/", "/bin/false")))
    home.chmod(0o700)  # which sets the mask of an access list, so that nobody passes any more
    (home / "file").write_text("readable")
    assert not reads(STRANGER, home / "file")
    let_pass(home, NOBODY)
    assert reads(NOBODY.pw_uid, home / "file")
    assert not reads(STRANGER, home / "file")


def test_a_folder_that_a_group_uses_is_not_taken_from_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no such thing on this file system")

    monkeypatch.setattr(os, "getxattr", unsupported)
    os.chown(home, -1, STRANGER)
    home.chmod(0o750)
    with pytest.raises(UserError, match=rf"chmod o\+x {home}, start"):
        let_pass(home / "inner", NOBODY)
    assert stat.S_IMODE(home.stat().st_mode) == 0o750


@pytest.mark.usefixtures("way")
def test_postgresql_runs_below_a_home_that_is_closed_to_others(home: Path) -> None:
    with embedded.embedded(home / "inner" / "data", options=("fsync=off",)) as url:
        assert url.startswith("postgresql://")
        assert not reads(STRANGER, home / "inner" / "file")
    assert not home.stat().st_mode & stat.S_IRWXO


def test_an_access_list_is_written_in_the_order_of_the_kernel() -> None:
    entries = passable._parsed(passable._written({(0x20, 7): 1, (0x02, 9): 2, (0x02, 3): 4, (0x01, 0): 7}))
    assert list(entries) == [(0x01, 0), (0x02, 3), (0x02, 9), (0x20, 7)]
