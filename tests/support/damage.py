"""A process that damages a bundle in many ways, one after another, and tries to use it each time.

    python damage.py BUNDLE WORK LOG verify|trust

WORK is a JSON list of [file, harm, ...]:

    flip OFFSET MASK    one byte's bits
    cut SIZE            the first SIZE bytes only
    gone                no file
    folder              a folder in its place
    swap OTHER          another file's bytes

Before each, its number goes to LOG: when the process dies, that says of what. One that takes too long is ended by a
signal. At the end LOG is one JSON object of counts; whatever may not be is under "wrong".
"""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from reaugkd import BundleError, ReaugkdError, Runtime
from reaugkd.runtime.bundle.heldout_rows import HELDOUT_FILE, HeldOutRows

TEXTS = ("call the artist", "milk milk noon", "zzz")
MOST_SECONDS = 20


def harmed(content: bytes, folder: Path, harm: str, *values: object) -> bytes | None:
    """Return the damaged content of a file; None if the file is removed."""
    if harm == "flip":
        offset, mask = values
        assert isinstance(offset, int) and isinstance(mask, int)
        return content[:offset] + bytes([content[offset] ^ mask]) + content[offset + 1 :]
    if harm == "cut":
        assert isinstance(values[0], int)
        return content[: values[0]]
    if harm == "swap":
        return (folder / str(values[0])).read_bytes()
    return None


def use(folder: Path, verify: bool) -> None:
    """Use everything that reads a bundle; AssertionError for an invalid prediction."""
    with Runtime.open(folder, verify=verify) as runtime:
        for text in TEXTS:
            answer = runtime.predict(text)
            check_distribution(answer.probabilities)
            check_distribution(answer.student_probabilities)
            if answer.retrieval_probabilities is not None:
                check_distribution(answer.retrieval_probabilities)
            json.dumps(answer.as_record(explain=True), allow_nan=False)
        manifest = runtime.manifest
        if HELDOUT_FILE in manifest.files:
            HeldOutRows.open(folder, len(manifest.labels), manifest.kb.ndim, manifest.kb_rows)


def check_distribution(probabilities: np.ndarray) -> None:
    """Raise AssertionError unless the numbers are from 0 and sum to 1."""
    assert (probabilities >= 0).all() and abs(probabilities.sum(dtype=np.float64) - 1) < 1e-5, probabilities


def attempt(folder: Path, name: str, verify: bool) -> str:
    """Return the outcome: answered, refused, refused with another file's name, or a failure."""
    try:
        use(folder, verify)
    except BundleError as error:
        # A text is read long after the bundle was opened: the error names its file without the folder.
        named = error.path is not None and (folder / name == Path(error.path) or Path(error.path).name in name)
        return "refused" if named else "refused elsewhere"
    except ReaugkdError:
        return "refused elsewhere"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "answered"


def main(bundle: str, work: str, log: str, how: str) -> None:
    """Run all damages."""
    folder, counts, wrong = Path(bundle), Counter[str](), []
    right = {"refused"} if how == "verify" else {"refused", "refused elsewhere", "answered"}
    with Path(log).open("w") as progress:
        for number, (name, harm, *values) in enumerate(json.loads(Path(work).read_text())):
            progress.write(f"{number}\n")
            progress.flush()
            signal.alarm(MOST_SECONDS)  # unheeded, it ends the process, wherever that is
            file = folder / name
            content = file.read_bytes()
            new = harmed(content, folder, harm, *values)
            file.unlink()  # and a new one made: an old map of the file must not change under the program
            if new is not None:
                file.write_bytes(new)
            elif harm == "folder":
                file.mkdir()
            came = attempt(folder, name, how == "verify")
            gc.collect(0)
            if file.is_dir():
                file.rmdir()
            file.unlink(missing_ok=True)
            file.write_bytes(content)
            counts[came if came in right else "wrong"] += 1
            if came not in right:
                wrong.append([name, harm, *values, came[:300]])
    signal.alarm(0)
    use(folder, verify=True)
    Path(log).write_text(json.dumps({**counts, "wrong": wrong}))  # not to stdout, where libraries write too


if __name__ == "__main__":
    main(*sys.argv[1:])
