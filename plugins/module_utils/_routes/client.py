# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Reads and writes the files of the routes. A file is never there half or with wider permissions, not even for a moment."""

from __future__ import annotations

import os
import stat
import tempfile

from .._core.errors import ClientError, UsageError
from .model import Change, Found
from .plan import FILE_MODE, FOLDER_MODE


def read_authorities(paths: list[str]) -> str:
    """Certificates of several files as one bundle, each file once.

    :raises UsageError: a file cannot be read, or holds no certificate
    """
    texts: dict[str, None] = {}
    for path in paths:
        try:
            with open(path, encoding="ascii") as handle:
                text = handle.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The CA certificate {path} cannot be read: {_explain(error)}.") from error
        if "-----BEGIN CERTIFICATE-----" not in text or "PRIVATE KEY" in text:
            raise UsageError(f"The file {path} is no certificate, or holds a key as well: give the authority's certificate alone.")
        texts[text] = None
    return "".join(f"{text}\n" for text in texts)


def read(path: str) -> Found:
    """A folder or file as it is; a link is followed to a folder only.

    :raises ClientError: it cannot be looked at
    """
    try:
        status = os.stat(path) if os.path.isdir(path) else os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return Found(stat.S_IMODE(status.st_mode))
        with open(path, encoding="utf-8", errors="replace", newline="") as handle:
            return Found(stat.S_IMODE(status.st_mode), handle.read())
    except FileNotFoundError:
        return Found()
    except OSError as error:
        raise ClientError(f"{path} cannot be looked at: {_explain(error)}.") from error


def apply(change: Change) -> None:
    """Do it.

    :raises ClientError: the file system refuses
    """
    try:
        if change.what == "folder":
            _make_folder(change.path)
            os.chmod(change.path, FOLDER_MODE)
        elif change.what == "remove":
            os.unlink(change.path)
        else:
            _write(change.path, change.text)
    except OSError as error:
        raise ClientError(f"{change.path} cannot be written: {_explain(error)}.") from error


def _make_folder(path: str) -> None:
    """With what is missing above it, which os.makedirs would make by the umask alone."""
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path))
        os.mkdir(path, FOLDER_MODE)


def _write(path: str, text: str) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _explain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
