"""The parameters of an index of keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import UsageError
from ..storage.json_fields import JsonReader

DTYPES = ("i8", "f16", "f32")
"""Types of stored keys. New bundles use i8 or f16; early bundles of format 1 have f32."""

_METRIC = "cos"  # the only one: usearch's i8 is right for cosine alone
_LEAST = {"ndim": 1, "connectivity": 2, "expansion_add": 1, "expansion_search": 1, "probes": 0}
_MOST = 1_000_000  # limit on dimensions, edges and expansion: usearch allocates without a limit


@dataclass(frozen=True)
class IndexConfig:
    """Parameters of the index; similarities are cosines.

    Attributes:
        ndim: dimensions of a key.
        dtype: type of stored keys: ``"i8"`` or ``"f16"``; ``"f32"`` in early bundles.
        connectivity: edges per node of the graph (HNSW's M), at least 2.
        expansion_add: search width at insertion (efConstruction).
        expansion_search: search width for a query (``ef_search``); a larger value is slower and has a higher recall.
        probes: of an index in shards (`shards.ShardedIndex`), the number of nearest centres whose shards are searched;
            0 for an index in one file.

    Raises:
        UsageError: a value is outside its range.
    """

    ndim: int
    dtype: str = "i8"
    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 64
    probes: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
                expected = f"a whole number from {least} to {_MOST:,}"
                raise UsageError(f"the index's {name} is unusable", found=value, expected=expected)
        if self.dtype not in DTYPES:
            raise UsageError("the index's dtype is unknown", found=self.dtype, expected=", ".join(DTYPES))

    @classmethod
    def read(cls, fields: JsonReader) -> IndexConfig:
        """Read the parameters from JSON.

        Raises:
            BundleError: a value is missing or outside its range.
        """
        metric = fields.obj.get("metric", _METRIC)
        if metric != _METRIC:
            raise fields.error("metric", metric, _METRIC)
        return fields.make(cls, ndim=int)

    def as_record(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        record = {**asdict(self), "metric": _METRIC}
        if not self.probes:  # as written before there were shards
            del record["probes"]
        return record
