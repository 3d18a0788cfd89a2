"""Print a data set's texts with FEWEST to MOST tokens, one a line.

python benchmarks/latency/texts_of_length.py BUNDLE DATA FEWEST MOST
"""

from __future__ import annotations

import sys

from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.data import choose_split, load_dataset
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer


def main(path: str, data: str, fewest: int, most: int) -> None:
    """Print the texts."""
    bundle = Bundle.open(path)
    tokenizer = TextTokenizer(bundle.tokenizer_path, bundle.manifest.max_length)
    for text in choose_split(load_dataset(data), None)[1].texts:
        if fewest <= len(tokenizer.encode(text)) <= most:
            sys.stdout.write(" ".join(text.split()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
