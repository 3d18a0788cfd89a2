"""The demo's data: banking77 (Casanueva et al. 2020), a small training set of it, and one intent that is left out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ...errors import DataError
from ...runtime.data import Dataset, Split, load_dataset

FILE = "banking77.csv.gz"
SHA256 = "5bd538dead8ac007f7029ebe074762bdbaf5d149882028b9271c5dc1272ed27c"
"""SHA-256 of the unpacked file."""

ROWS_PER_INTENT = 30
NEW_INTENT = "apple_pay_or_google_pay"
NEW_INTENT_ROWS = 5

MORE_TEXTS = "more_texts.csv"

Row = tuple[str, str]
"""(text, intent)."""


@dataclass(frozen=True)
class DemoData:
    """The rows of the demo; no row is in two of them.

    Attributes:
        dataset: ``train``, at most `ROWS_PER_INTENT` rows of each intent but the new one, and ``test``, all test rows
            of these intents.
        more: the other train rows of these intents, without labels.
        new_rows: the first `NEW_INTENT_ROWS` train rows of the new intent.
        new_test: the new intent's test rows.
    """

    dataset: Dataset
    more: Split
    new_rows: Split
    new_test: Split


def read_banking77() -> dict[str, list[Row]]:
    """The data set as it was published: ``train`` (10,003 rows) and ``test`` (3,080 rows) of 77 intents.

    Raises:
        DataError: the installed file is missing or damaged.
    """  # noqa: DOC501
    file = resources.files(__package__) / FILE
    try:
        raw = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(str(error)) from error
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise _damaged("other contents")
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for record in csv.DictReader(io.StringIO(raw.decode(), newline="")):
        rows[record["split"]].append((record["text"], record["label"]))
    return rows


def _damaged(found: str) -> DataError:
    return DataError(
        "the demo's data set is missing or damaged", path=FILE, found=found, remedy="Install reaugkd again."
    )


def choose_rows(rows: Sequence[Row], per_intent: int, seed: int) -> list[int]:
    """The numbers of ``per_intent`` rows of each intent, or all of an intent that has fewer, ascending.

    The draw is the same on every machine.
    """
    by_intent: dict[str, list[int]] = {}
    for number, (_, intent) in enumerate(rows):
        by_intent.setdefault(intent, []).append(number)
    rng = random.Random(seed)
    chosen = [rng.sample(by_intent[name], min(per_intent, len(by_intent[name]))) for name in sorted(by_intent)]
    return sorted(number for numbers in chosen for number in numbers)


def write_demo_data(
    rows: dict[str, list[Row]],
    folder: Path,
    seed: int,
    new_intent: str = NEW_INTENT,
    per_intent: int = ROWS_PER_INTENT,
) -> DemoData:
    """Write the demo's rows as CSV files into ``folder``, which the commands can read too, and read them.

    Args:
        rows: ``train`` and ``test``, in the form that `read_banking77` returns.
        folder: gets train.csv, test.csv, `MORE_TEXTS`, new_intent.csv and new_intent_test.csv; files of these names
            are replaced.
        seed: of the choice of train rows.
        new_intent: the intent that is left out.
        per_intent: train rows of each of the others.
    """
    known, new = ({name: _of(rows[name], new_intent, is_new) for name in rows} for is_new in (False, True))
    chosen = choose_rows(known["train"], per_intent, seed)
    others = sorted(set(range(len(known["train"]))) - set(chosen))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "train.csv", ("text", "label"), (known["train"][number] for number in chosen))
    _write(folder / "test.csv", ("text", "label"), known["test"])
    _write(folder / MORE_TEXTS, ("text",), ((known["train"][number][0],) for number in others))
    _write(folder / "new_intent.csv", ("text", "label"), new["train"][:NEW_INTENT_ROWS])
    _write(folder / "new_intent_test.csv", ("text", "label"), new["test"])
    more = [known["train"][number][0] for number in others]
    return DemoData(
        dataset=load_dataset(folder),
        more=Split(more, None, None, str(folder / MORE_TEXTS), list(range(2, len(more) + 2))),
        new_rows=_split(new["train"][:NEW_INTENT_ROWS], folder / "new_intent.csv"),
        new_test=_split(new["test"], folder / "new_intent_test.csv"),
    )


def _of(rows: Iterable[Row], intent: str, is_intent: bool) -> list[Row]:
    return [row for row in rows if (row[1] == intent) == is_intent]


def _split(rows: Sequence[Row], source: Path) -> Split:
    texts, labels = ([row[column] for row in rows] for column in (0, 1))
    return Split(texts, None, labels, str(source), list(range(2, len(rows) + 2)))


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
