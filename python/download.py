"""Downloads a file from the first of several mirrors that gives it whole and in time."""

import hashlib
import io
import threading
import zlib

TIMEOUT_SECONDS = 10  # for a mirror to give the first LEAST_BYTES, and for each time as many after that; our choice
LEAST_BYTES = 100000


def first_of(urls, sha256, unpack):
    """The bytes of the first URL that gives the right ones, or None; and what is wrong with those before it, as texts.

    Args:
      sha256: in hexadecimal, of what `unpack`, a function, makes of the bytes.
    """
    failures = []
    for url in urls:
        try:
            content = fetch(url)
            found = hashlib.sha256(unpack(content)).hexdigest()
            if found == sha256:
                return content, failures
            reason = f'wrong content: SHA-256 {found} instead of {sha256}'
        except (OSError, EOFError, ValueError, zlib.error) as error:  # the errors of `requests` are OSErrors
            reason = getattr(next(iter(error.args), None), 'reason', error)  # without its count of retries
        failures.append(f'{url}: {reason}')
    return None, failures


def fetch(url):
    """The bytes at `url`, or an exception if they do not come fast enough, or at all."""
    import requests  # slow to import, so only when asked for
    from tqdm import tqdm
    content, failures = io.BytesIO(), []

    def ask(bar):
        try:
            # identity: a .gz as it lies there. This timeout is for each address of a host and each read, hence ours.
            with requests.get(url, stream=True, timeout=TIMEOUT_SECONDS,
                              headers={'Accept-Encoding': 'identity'}) as response:
                response.raise_for_status()
                bar.total = int(response.headers.get('Content-Length', 0)) or None
                for chunk in response.iter_content(1024):  # small, so that what has come counts
                    bar.update(content.write(chunk))
        except Exception as error:
            failures.append(error)

    with tqdm(desc=url, unit='B', unit_scale=True, disable=None) as bar:  # None: none in a log file
        thread = threading.Thread(target=ask, args=[bar], daemon=True)
        thread.start()
        while thread.is_alive():
            before = content.tell()
            thread.join(TIMEOUT_SECONDS)
            if thread.is_alive() and (count := content.tell() - before) < LEAST_BYTES:
                raise TimeoutError(f'timed out: {count} bytes in {TIMEOUT_SECONDS} seconds')
    if failures:
        raise failures[0]
    return content.getbuffer()
