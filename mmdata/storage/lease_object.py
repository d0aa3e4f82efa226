"""A lease in an object store: made with If-None-Match, touched by writing it again.

On S3 every later step is conditional on the ETag that was seen (If-Match), so a lease that changed
hands meanwhile is never overwritten, and its age is told by the store's own clock. Elsewhere (gs://
is untested) a takeover has a gap of one request; a run that lost its lease finds out before it
commits.
"""

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from mmdata.errors import StorageError, UserError
from mmdata.storage.files import facts_of, read_bytes
from mmdata.storage.urls import filesystem, protocol_of, store_errors


class ObjectKeeper:
    """Keeps a lease in an object store."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_s3 = protocol_of(path) == "s3"

    def create(self, data: bytes) -> bool:
        """Make the lease, unless there is one (If-None-Match: *)."""
        try:
            with store_errors(self._path):
                filesystem(self._path).pipe_file(self._path, data, mode="create")
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            raise UserError(f"{self._path}: there is no such bucket; create it first") from error
        return True

    def touch(self, data: bytes) -> None:
        """Write it again, unless it has changed hands since it was looked at."""
        if not self._is_s3:
            with store_errors(self._path):
                filesystem(self._path).pipe_file(self._path, data)
            return
        tag, seen = self._read()
        if seen == data:
            with store_errors(self._path):
                self._call("put_object", Body=data, IfMatch=tag)

    def take_over(self, seen: bytes, data: bytes) -> None:
        """Write over the lease if it is still the one that was seen."""
        try:
            if not self._is_s3:
                if read_bytes(self._path) == seen:
                    self.remove()
                    self.create(data)
                return
            tag, now = self._read()
            if now == seen:
                with store_errors(self._path):
                    self._call("put_object", Body=data, IfMatch=tag)
        except (FileNotFoundError, StorageError):
            return  # it changed hands or the store is away: the next look says which

    def remove(self) -> None:
        """Remove the holder's own lease."""
        with store_errors(self._path):
            filesystem(self._path).rm_file(self._path)

    def age_seconds(self) -> float:
        """Since the last touch: on S3 by the clock of the store."""
        if not self._is_s3:
            return time.time() - facts_of(self._path).seconds
        with store_errors(self._path):
            head = self._call("head_object")
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        written: datetime = head["LastModified"]
        return (now - written).total_seconds()

    def _read(self) -> tuple[str, bytes]:
        """(ETag, bytes) of the lease."""
        with store_errors(self._path):
            store = filesystem(self._path)
            tag = str(store.info(self._path)["ETag"])
            data: bytes = store.cat_file(self._path)
        return tag, data

    def _call(self, method: str, **arguments: Any) -> Any:
        bucket, _, key = self._path.partition("://")[2].partition("/")
        store = filesystem(self._path)
        return store.call_s3(method, Bucket=bucket, Key=key, **arguments)
