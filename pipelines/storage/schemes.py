"""Addresses that are neither paths nor on S3: what reaches the same data."""

from shlex import quote

from pipelines.settings.locations import HUB

_GOOGLE = (
    "Google's buckets are read and written by the S3 protocol: write s3://bucket/prefix, and set AWS_ENDPOINT_URL="
    "https://storage.googleapis.com, AWS_REQUEST_CHECKSUM_CALCULATION=when_required, and an HMAC key as"
    " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`gcloud storage hmac create ACCOUNT` makes one)"
)
_AZURE = (
    "Azure's Blob Storage does not speak the S3 protocol: mount the container with blobfuse2 on every node and name the"
    " mounted folder, or copy the data to a bucket that does"
)
_WEB = "single files are not downloaded: fetch the archive, and name the file"
_REMEDIES = {"gs": _GOOGLE, "gcs": _GOOGLE, "http": _WEB, "https": _WEB}
_REMEDIES |= dict.fromkeys(("az", "abfs", "abfss", "wasb", "wasbs", "adl"), _AZURE)
_REMEDIES |= dict.fromkeys(("s3a", "s3n"), "write s3:// for the same bucket")


def describe_unsupported(uri: str) -> str:
    """Why an address is refused, and what to name instead."""
    scheme = uri.partition("://")[0]
    if scheme == "builtin" or uri.startswith(HUB):
        return f"{uri} is only read; `sr3 export {quote(uri)} --out DIR` makes a copy, for which this command works"
    remedy = _REMEDIES.get(scheme.lower(), "use a path or s3://bucket/prefix")
    return f"{uri}: {scheme}:// is not supported; {remedy}"
