"""The objects of a bill on S3, or on a store that speaks its protocol, as files on this machine.

Credentials, region and endpoint come from the AWS_… variables and files, as in AWS's own tools.  A prefix is read by
directories, as they are: `s3://bills/halcyon/2026-1` is not the start of `2026-11/`.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BillError

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

_CODE = re.compile(r"AWS Error ([A-Z_0-9]+)(?: \(HTTP status (\d+)\))?")
_BROKE_OFF = "partial file"
"""What curl says of an answer that ends before its announced length; by then the SDK has tried three times."""
_KEYS = (
    "these credentials are not those of the store; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile in "
    "AWS_PROFILE"
)


def fetched(url: str, is_bill: Callable[[str], bool], scratch: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of the object at `url`, or of those below it whose name `is_bill`, in the order of their keys.

    Each is copied into `scratch` when its turn comes.  Raises BillError, also where there is none.
    """
    scheme, _, place = url.partition("://")
    if scheme != "s3" or not place.strip("/"):
        raise BillError(
            f"{url}: found the scheme {scheme!r}, expected a path on this machine or s3://BUCKET/PREFIX"
        )
    from pyarrow import fs

    endpoint = _endpoint()
    with _told(url, place, endpoint):
        store = fs.S3FileSystem(endpoint_override=endpoint) if endpoint else fs.S3FileSystem()
        keys = _keys(store, place.strip("/"), is_bill)
    for number, key in enumerate(keys):
        target = scratch / f"{number}-{Path(key).name}"
        with _told(f"s3://{key}", key, endpoint):
            fs.copy_files(
                key, str(target), source_filesystem=store, destination_filesystem=fs.LocalFileSystem()
            )
        yield f"s3://{key}", target


def _keys(store: S3FileSystem, place: str, is_bill: Callable[[str], bool]) -> list[str]:
    """The object at `place`, or those below it."""
    from pyarrow import fs

    denied: OSError | None = None
    if "/" in place:
        try:
            if store.get_file_info(place).type == fs.FileType.File:
                return [place]
        except OSError as error:  # the answer to HEAD has no words, so that the listing is to say why
            denied = error
    try:
        below = store.get_file_info(fs.FileSelector(place, recursive=True))
    except FileNotFoundError:  # `allow_not_found` would hide that the bucket is not there either
        below = []
    keys = sorted(one.path for one in below if one.type == fs.FileType.File and is_bill(one.base_name))
    if denied and not keys:
        raise denied
    return keys


def _endpoint() -> str | None:
    """Where the store is; None: AWS.  Arrow's client itself reads no more of it than keys and region."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if found := os.environ.get(name):
            return found
    profile = os.environ.get("AWS_PROFILE") or "default"
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read(Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser(), "utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return None  # the client says what it makes of the file
    section = "default" if profile == "default" else f"profile {profile}"
    return config.get(section, "endpoint_url", fallback=None)


@contextmanager
def _told(url: str, place: str, endpoint: str | None) -> Iterator[None]:
    """What Arrow says of a store, as what was found at `url` and what to do about it."""
    try:
        yield
    except OSError as error:
        said = str(error).splitlines()[0] if str(error) else repr(error)
        raise BillError(f"{url}: {_mend(said, place.partition('/')[0], endpoint)}") from error


def _mend(said: str, bucket: str, endpoint: str | None) -> str:
    code, status = found.groups() if (found := _CODE.search(said)) else ("", None)
    store = endpoint or "AWS"
    if _BROKE_OFF in said:
        return f"broke off in the middle, three times; nothing was sent: import it again ({said})"
    if code == "NETWORK_CONNECTION":
        return f"no store answers at {store}; check AWS_ENDPOINT_URL, AWS_REGION and the network ({said})"
    if code == "NO_SUCH_BUCKET":
        return f"found no bucket {bucket!r} at {store}; check its name, AWS_REGION and AWS_ENDPOINT_URL"
    if code in ("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"):
        return f"{_KEYS} ({code})"
    if code == "ACCESS_DENIED":
        return f"may not be read with these credentials; expected the rights s3:ListBucket and s3:GetObject on {bucket!r}"
    if status == "301" or code == "PERMANENT_REDIRECT":
        return f"the bucket {bucket!r} is in another region than was asked; set AWS_REGION"
    return f"cannot be read ({said}); check the bucket, AWS_REGION and the AWS credentials"
