"""`/kb/...`: edits of the knowledge base, its log, its rows, its likely wrong labels, and what to label next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ...errors import one_line
from ...runtime.editing.edit import Edit, EditKeywords, Row
from ...runtime.inference.text.inputs import Text
from ...runtime.labelling.find import MOST, find_rows
from ...runtime.labelling.review import BELOW, review
from ...runtime.labelling.suggest import suggest
from ..bundles.open_bundle import OpenBundle
from ..http.errors import HttpError, invalid, unhealthy
from ..http.messages import Request, Response, json_response
from ..service import Service
from .shapes import check_fields, flag_of, number_of, text_of, texts_of

_OPTIONS = {"why": str, "who": str, "preview": bool, "guard": float}
_WORDS = {str: "a text", bool: "true or false", float: "a number"}
_LAST = _SUGGESTED = 100
_ROW_FIELDS = ("text", "text_pair", "label", "soft")
_log = logging.getLogger("reaugkd.serve")


async def add(service: Service, request: Request) -> Response:
    """Add rows.

    Raises:
        HttpError: a value cannot be used, or the edit is refused.
    """
    body = await request.json()
    options = _options(body, "texts", "label", "soft", "rows", "new_labels")
    rows, new_labels = _rows(body), flag_of(body, "new_labels", False)

    def edit(opened: OpenBundle) -> Edit:
        return opened.main.kb.add(rows, new_labels=new_labels, **options)

    return await _edited(service, body, edit)


async def remove(service: Service, request: Request) -> Response:
    """Remove rows by id, text or label.

    Raises:
        HttpError: a value cannot be used, or the edit is refused.
    """
    body = await request.json()
    options = _options(body, "ids", "texts", "labels")
    ids, labels = _list(body, "ids", int), _list(body, "labels", str)
    texts = [] if body.get("texts") is None else texts_of(body["texts"], "texts")
    if not (ids or labels or texts):
        raise invalid("give `ids`, `texts` or `labels`")

    def edit(opened: OpenBundle) -> Edit:
        return opened.main.kb.remove(ids, texts=texts, labels=labels, **options)

    return await _edited(service, body, edit)


async def relabel(service: Service, request: Request) -> Response:
    """Change the label of rows, by id or text.

    Raises:
        HttpError: a value cannot be used, or the edit is refused.
    """
    body = await request.json()
    ids, options = _list(body, "ids", int), _options(body, "ids", "texts", "label", "new_labels")
    texts = [] if body.get("texts") is None else texts_of(body["texts"], "texts")
    label, new_labels = body.get("label"), flag_of(body, "new_labels", False)
    if not (ids or texts) or not isinstance(label, str):
        raise invalid("give `ids` or `texts`, and their `label`")
    rows: dict[Any, str] = dict.fromkeys([*ids, *texts], label)

    def edit(opened: OpenBundle) -> Edit:
        return opened.main.kb.relabel(rows, new_labels=new_labels, **options)

    return await _edited(service, body, edit)


async def undo(service: Service, request: Request) -> Response:
    """Take an edit back.

    Raises:
        HttpError: a value cannot be used, or the edit is refused.
    """
    body = await request.json()
    seq, options = number_of(body, "seq", None, 1), _options(body, "seq")

    def edit(opened: OpenBundle) -> Edit:
        return opened.main.kb.undo(seq, **options)

    return await _edited(service, body, edit)


async def log(service: Service, request: Request) -> Response:
    """The last edits, oldest first; ``?last=N`` for another number than 100."""
    last = _query_number(request, "last", _LAST)

    def read(opened: OpenBundle) -> list[dict[str, Any]]:
        entries = opened.main.kb.log()
        return [entry.as_record() for entry in entries[max(0, len(entries) - last) :]]

    bundle = service.bundle(request.query("model"))
    return json_response({"model": bundle.name, "edits": await service.browse(bundle, read)})


async def review_labels(service: Service, request: Request) -> Response:
    """Rows whose neighbours contradict their label; ``?below=SHARE`` for another limit than 0.05.

    Raises:
        HttpError: a value cannot be used, the deadline is over, or the server ends.
    """
    given = request.query("below")
    try:
        below = BELOW if given is None else float(given)
    except ValueError:
        raise invalid("`below` must be a share from 0 to 1") from None
    in_time = _limit(service, "rows were checked", "use `reaugkd kb review`, or a longer --deadline")

    def find(opened: OpenBundle) -> dict[str, Any]:
        found = review(opened.main, below, progress=in_time)
        return {
            "checked": found.checked,
            "edited": found.edited,
            "unlabelled": found.unlabelled,
            "issues": [asdict(issue) for issue in found.issues],
        }

    bundle = service.bundle(request.query("model"))
    return json_response({"model": bundle.name, **await service.read(bundle, find)})


async def suggest_texts(service: Service, request: Request) -> Response:
    """The given texts that are worth labelling next, best first, each with the reason; nothing is written.

    Raises:
        HttpError: a value cannot be used, a text cannot be read, the deadline is over, or the server ends.
    """
    body = await request.json()
    check_fields(body, ("inputs", "model", "count"))
    texts, count = texts_of(body.get("inputs")), number_of(body, "count", _SUGGESTED, 1)
    in_time = _limit(service, "texts were read", "send fewer")

    def choose(opened: OpenBundle) -> list[dict[str, Any]]:
        chosen = suggest(opened.main, texts, count or _SUGGESTED, lambda read: in_time(read, len(texts)))
        return [{**asdict(one), "reason": one.reason} for one in chosen]

    bundle = service.bundle(body.get("model"))
    return json_response({"model": bundle.name, "suggestions": await service.read(bundle, choose)})


async def rows(service: Service, request: Request) -> Response:
    """Stored rows: ``?q=`` part of their text, ``&label=`` their label, ``&offset=`` where to begin."""
    part, label, offset = request.query("q") or "", request.query("label") or None, _query_number(request, "offset", 0)

    def find(opened: OpenBundle) -> dict[str, Any]:
        found = find_rows(opened.main, part, label, offset, MOST)
        return {"of": found.of, "next": found.next, "rows": [asdict(row) for row in found.rows]}

    bundle = service.bundle(request.query("model"))
    return json_response({"model": bundle.name, **await service.browse(bundle, find)})


def _limit(service: Service, done: str, remedy: str) -> Callable[[int, int], None]:
    """A function that a long read calls with (number done, total): it raises an error after the deadline."""
    seconds = service.settings.deadline
    until = time.monotonic() + seconds

    def in_time(number: int, total: int) -> None:
        if service.state == "draining":
            raise unhealthy("the server ends")
        if time.monotonic() > until:
            found = f"{number} of {total} {done} within the deadline of {seconds:g} seconds"
            raise HttpError(504, f"{found}: {remedy}", "Overloaded")

    return in_time


def _query_number(request: Request, name: str, default: int) -> int:
    given = request.query(name)
    if given is not None and not (given.isdecimal() and given.isascii()):
        raise invalid(f"`{name}` must be a whole number")
    return default if given is None else int(given[:9])


async def _edited(service: Service, body: dict[str, Any], edit: Any) -> Response:
    bundle = service.bundle(body.get("model"))
    done: Edit = await service.edit(bundle, edit)
    if done.not_compacted is not None:
        said = one_line(str(done.not_compacted))
        _log.error("%s: the edit is saved, but the automatic compaction failed: %s", bundle.name, said)
    compacted = None if done.compacted is None else done.compacted.seq
    return json_response({"model": bundle.name, **done.as_record(), "compacted": compacted})


def _rows(body: Mapping[str, Any]) -> list[Row]:
    """The rows of ``texts`` with one ``label`` or ``soft``, or of ``rows`` with labels of their own."""
    if (body.get("rows") is None) == (body.get("texts") is None):
        raise invalid("give either `texts` with their `label`, or `rows`")
    if body.get("texts") is not None:
        texts = texts_of(body["texts"], "texts")
        return [_row(text, body, "the request") for text in texts]
    if not isinstance(body["rows"], list) or not body["rows"]:
        raise invalid("`rows` must be a list of objects with `text` and `label`")
    found = []
    for number, row in enumerate(body["rows"]):
        place = f"rows[{number}]"
        if not isinstance(row, dict):
            raise invalid(f"{place} must be an object with `text` and `label`")
        check_fields(row, _ROW_FIELDS, place)
        found.append(_row(text_of(row, place), row, place))
    return found


def _row(text: Text, labels: Mapping[str, Any], place: str) -> Row:
    label, soft = labels.get("label"), labels.get("soft")
    if not (label is None or isinstance(label, str)) or not (soft is None or isinstance(soft, dict)):
        raise invalid(f"{place}: `label` must be a text, and `soft` an object of labels and shares")
    if label is None and soft is None:
        raise invalid(f"{place}: `label` or `soft` is missing")
    return Row(text, label, soft)


def _list(body: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or any(not isinstance(one, kind) or isinstance(one, bool) for one in value):
        raise invalid(f"`{name}` must be a list of {'whole numbers' if kind is int else 'texts'}")
    return value


def _options(body: Mapping[str, Any], *others: str) -> EditKeywords:
    """The options of an edit, from a body that has these and other fields."""
    check_fields(body, (*others, "model", *_OPTIONS))
    found: dict[str, Any] = {}
    for name, kind in _OPTIONS.items():
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float if kind is float else kind) or (kind is float and isinstance(value, bool)):
            raise invalid(f"`{name}` must be {_WORDS[kind]}, found {value!r:.80}")
        found[name] = value
    options: EditKeywords = {**found}  # type: ignore[typeddict-item]
    return options
