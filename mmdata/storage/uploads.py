"""Writing to an object store: an object is there when it is whole, and not before.

Data goes up in parts of 16 MiB as it is written, so no copy of the whole is kept anywhere; what is
smaller than a part is put at once. Parts of an upload that was never completed are invisible but
cost money: the next run into the folder aborts them, and so does `mmdata status --clean`.
"""

import hashlib
from contextlib import suppress
from typing import Any

from mmdata.errors import StorageError
from mmdata.storage.urls import PART_BYTES, filesystem, protocol_of, store_errors

_DELETED_AT_ONCE = 1000


class PendingUpload:
    """An object that is hashed while it is sent and appears under its name only on `publish`.

    Attributes:
        size: bytes written so far.

    Raises:
        StorageError: the store does not take it; on this and any other exception, `discard`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._start = bytearray()
        self._upload: Any = None
        self._finished = False

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self._finished:
            raise ValueError(f"{self.path}: written after it was finished")
        self._hash.update(data)
        self.size += len(data)
        if self._upload is None:
            self._start += data
            if len(self._start) >= PART_BYTES:
                self._begin()
            return
        with store_errors(self.path):
            self._upload.write(data)

    def _begin(self) -> None:
        """From one part on, an upload of several."""
        with store_errors(self.path):
            store = filesystem(self.path)
            self._upload = store.open(self.path, "wb", autocommit=False, block_size=PART_BYTES)
            self._upload.write(bytes(self._start))
            self._start.clear()

    def finish(self) -> str:
        """Send the last part and return the sha256; the object is not visible yet."""
        if not self._finished and self._upload is not None:
            with store_errors(self.path):
                self._upload.close()
        self._finished = True
        return self._hash.hexdigest()

    def publish(self) -> None:
        """Complete the upload (finishing first)."""
        self.finish()
        with store_errors(self.path):
            if self._upload is None:
                filesystem(self.path).pipe_file(self.path, bytes(self._start))
            else:
                self._upload.commit()
                self._upload = None

    def discard(self) -> None:
        """Abort the upload; nothing appears. Does not raise where the store is away."""
        upload, self._upload = self._upload, None
        self._finished = True
        if upload is None:
            return
        try:
            with store_errors(self.path):
                upload.discard()
        except OSError:
            return  # the next run into this folder aborts what is left
        finally:
            upload.closed = True  # else its finaliser would try to send what is buffered


def unfinished_uploads(folder: str) -> list[tuple[str, str]]:
    """(key, upload id) of uploads below a folder that were begun and not completed.

    Google's stores drop theirs after a week and do not list them.
    """
    if protocol_of(folder) != "s3":
        return []
    bucket, prefix = _bucket_and_prefix(folder)
    found: list[tuple[str, str]] = []
    marker: dict[str, str] = {}
    with store_errors(folder):
        while True:
            page = filesystem(folder).call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **marker
            )
            found += [(upload["Key"], upload["UploadId"]) for upload in page.get("Uploads") or ()]
            if not page.get("IsTruncated"):
                return found
            marker = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }


def abort_uploads(folder: str) -> int:
    """Abort every unfinished upload below a folder; returns how many there were."""
    uploads = unfinished_uploads(folder)
    bucket, _ = _bucket_and_prefix(folder)
    for key, upload in uploads:
        try:
            with store_errors(folder):
                filesystem(folder).call_s3(
                    "abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload
                )
        except FileNotFoundError:
            continue  # completed or aborted by its owner meanwhile
    return len(uploads)


def _bucket_and_prefix(folder: str) -> tuple[str, str]:
    bucket, _, key = folder.partition("://")[2].rstrip("/").partition("/")
    return bucket, f"{key}/" if key else ""


def remove_objects(urls: list[str]) -> None:
    """Remove objects of one store that may be gone already; on S3 a thousand at a time."""
    if not urls:
        return
    with store_errors(urls[0]):
        store = filesystem(urls[0])
        if protocol_of(urls[0]) != "s3":
            for url in urls:
                with suppress(FileNotFoundError):
                    store.rm_file(url)
            return
        by_bucket: dict[str, list[dict[str, str]]] = {}
        for url in urls:
            bucket, _, key = url.partition("://")[2].partition("/")
            by_bucket.setdefault(bucket, []).append({"Key": key})
        for bucket, keys in by_bucket.items():
            for at in range(0, len(keys), _DELETED_AT_ONCE):
                batch = {"Objects": keys[at : at + _DELETED_AT_ONCE], "Quiet": True}
                answer = store.call_s3("delete_objects", Bucket=bucket, Delete=batch)
                if errors := answer.get("Errors"):
                    raise StorageError(f"{bucket}/{errors[0]['Key']}: {errors[0]['Message']}")
