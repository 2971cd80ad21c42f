"""A way through folders for one other user, and for nobody else.

Started as root, PostgreSQL has to run as somebody else, who must reach its binaries and its data: below root's home,
as a rule, which is closed to all (0700). To open that to everybody (`o+x`) would open whatever in it is readable and
was safe only because nobody got that far; here one user may pass and read nothing. Linux alone, as the rest.
"""

import errno
import os
import pwd
import shlex
import stat
import struct
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Final

from passthrough.errors import UserError

# As in linux/posix_acl_xattr.h: a version, then entries of tag, permissions and id; without an id it is all ones.
_NAME: Final = "system.posix_acl_access"
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = 2
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID: Final = 0xFFFFFFFF
_PASS: Final = 0o1

_Acl = dict[tuple[int, int], int]  # tag and id → permissions


def let_pass(path: Path, user: pwd.struct_passwd) -> None:
    """Let `user` pass through a folder and all above it, which may then enter but list or read nothing.

    Done by an access list; where the file system has none, by giving a folder whose group may do nothing to the
    user's group. Raises `UserError` that names the folder where neither is possible.
    """
    for folder in dict.fromkeys((path, *path.parents, *path.resolve().parents)):
        status = folder.stat()
        if status.st_uid == user.pw_uid or status.st_mode & stat.S_IXOTH:
            continue
        try:
            _by_access_list(folder, status, user)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise _no_way(folder, user) from error
            _by_group(folder, status, user)


def _by_access_list(folder: Path, status: os.stat_result, user: pwd.struct_passwd) -> None:
    mode = status.st_mode
    try:
        entries = _parsed(os.getxattr(folder, _NAME))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        entries = {(_OWNER, _NO_ID): mode >> 6 & 7, (_OWNING_GROUP, _NO_ID): mode >> 3 & 7, (_OTHERS, _NO_ID): mode & 7}
    groups = [(_GROUP, user.pw_gid)]
    if status.st_gid == user.pw_gid:
        groups.append((_OWNING_GROUP, _NO_ID))
    os.setxattr(folder, _NAME, _written(_with_user(entries, user.pw_uid, groups)))


def _with_user(entries: Mapping[tuple[int, int], int], user_id: int, groups: Iterable[tuple[int, int]]) -> _Acl:
    """The list with one more who may pass; what the mask kept from others is kept from them by their own entries.

    `groups` are the entries by which the user was let in before: one of its own takes their place, so it has as much.
    """
    mask = entries.get((_MASK, _NO_ID), 7)
    masked = {
        (tag, name): allowed & mask if tag in {_USER, _OWNING_GROUP, _GROUP} else allowed
        for (tag, name), allowed in entries.items()
    }
    before = reduce(or_, (masked.get(group, 0) for group in groups))
    masked[_USER, user_id] = masked.get((_USER, user_id), before) | _PASS
    masked[_MASK, _NO_ID] = 0
    for (tag, _), allowed in tuple(masked.items()):
        if tag in {_USER, _OWNING_GROUP, _GROUP}:
            masked[_MASK, _NO_ID] |= allowed
    return masked


def _parsed(value: bytes) -> _Acl:
    return {(tag, name): allowed for tag, allowed, name in _ENTRY.iter_unpack(value[_HEAD.size :])}


def _written(entries: _Acl) -> bytes:
    """In the order that the kernel asks for: by tag, then by id."""
    packed = (_ENTRY.pack(tag, allowed, name) for (tag, name), allowed in sorted(entries.items()))
    return _HEAD.pack(_VERSION) + b"".join(packed)


def _by_group(folder: Path, status: os.stat_result, user: pwd.struct_passwd) -> None:
    if status.st_gid != user.pw_gid and status.st_mode & stat.S_IRWXG:
        raise _no_way(folder, user)  # it would be taken from a group that may do something there
    try:
        os.chown(folder, -1, user.pw_gid)
        folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXGRP)
    except OSError as error:
        raise _no_way(folder, user) from error


def _no_way(folder: Path, user: pwd.struct_passwd) -> UserError:
    return UserError(
        f"The embedded PostgreSQL runs as {user.pw_name}, who cannot pass through {folder}: run "
        f"chmod o+x {shlex.quote(str(folder))}, start passthrough as another user, or set DATABASE_URL."
    )
