"""Reading what lies at an address: never without a limit, each failure one clear error."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from io import BufferedIOBase
from typing import IO
from urllib.parse import urlsplit

from pacl.errors import InputError

BYTES_MAX = 256 << 20
"""Largest image read from an address or from stdin: 256 MiB."""
TIMEOUT_S = 30.0


@contextmanager
def open_url(url: str) -> Iterator[HTTPResponse]:
    """Yield the content at an http or https address, to be read bit by bit.

    Raises:
        InputError: There is no such host or page, it redirects in a circle, or the connection
            broke, also while the content is read.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"cannot read {url}", why="only http and https addresses are read")
    request = urllib.request.Request(url, headers={"User-Agent": "pacl"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            yield response
    except InputError:  # the reader's own
        raise
    except urllib.error.HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            raise InputError(f"cannot read {url}", why="it redirects in a circle") from None
        raise InputError(f"cannot read {url}", why=f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise InputError(f"cannot read {url}", why=str(error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:
        raise InputError(f"cannot read {url}", why=str(error) or type(error).__name__) from error


def read_url(url: str) -> bytes:
    """Read an image's bytes from an http or https address.

    Raises:
        InputError: As for `open_url`; or it is a web page, or larger than BYTES_MAX.
    """
    with open_url(url) as response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(
                f"{url} is a web page, not an image", fix="give the address of the image itself"
            )
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and int(declared) > BYTES_MAX:
            raise _too_large(url, f"it declares {int(declared):,} bytes")
        content = read_limited(response, url)
    if declared.isdigit() and len(content) < int(declared):
        raise InputError(f"cannot read {url}", why=f"it ends after {len(content):,} bytes")
    return content


def read_limited(file: BufferedIOBase | IO[bytes], name: str) -> bytes:
    """Read all of a stream.

    Raises:
        InputError: It is larger than BYTES_MAX.
    """
    content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        raise _too_large(name, f"more than {BYTES_MAX:,} bytes")
    return content


def _too_large(name: str, why: str) -> InputError:
    return InputError(f"{name} is too large", why=why, fix="save it as a file first")
