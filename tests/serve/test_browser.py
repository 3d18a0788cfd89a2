"""The page in a real browser, on a server in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.browser import PROGRAM, Browser, browser
from support.server_process import Server, server
from support.tiny_bundle import build_tiny_bundle

from reaugkd import Runtime, suggest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium: apt-get install chromium"),
]

MARKUP = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
PARTS = ("try", "file", "rows", "review", "next", "log", "statistics")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    chromium.faults.clear()
    chromium.look(1100)
    yield chromium
    assert chromium.faults == []


@pytest.fixture
def place(known_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(known_bundle, tmp_path / "known"))


@pytest.fixture
def ui(place: Path) -> Iterator[Server]:
    with server(place, "--no-browser", name="ui") as one:
        yield one


def visit(page: Browser, one: Server, part: str = "try") -> None:
    page.open(f"{one.url}/#{part}")
    page.wait("document.querySelector('#about').textContent !== ''")
    page.wait(f"!document.querySelector('#{part}').hidden")


def ask(page: Browser, text: str) -> str:
    page.evaluate("document.querySelector('#answer').replaceChildren()")
    page.write("#text", text)
    page.press("Enter")
    page.wait("document.querySelector('.result')")
    return page.text(".result").split()[0]


def until_previewed(page: Browser) -> None:
    page.wait("document.querySelector('#confirm').open && !document.querySelector('#confirm-save').disabled")
    page.wait("!document.querySelector('#confirm-effect').innerText.includes('being computed')")


def until_told(page: Browser, words: str) -> None:
    page.wait(f"document.querySelector('#status').innerText.includes({json.dumps(words)})")


def label_of(place: Path, text: str) -> str:
    with Runtime.open(place) as runtime:
        return runtime.predict(text).label


def test_predict_correct_and_undo(page: Browser, ui: Server, place: Path) -> None:
    before = label_of(place, "noon jazz oven")
    wrong = "b" if before == "a" else "a"
    visit(page, ui)
    assert ask(page, "noon jazz oven") == before
    assert page.text("#status").startswith(f"Answer: {before}")
    with Runtime.open(place) as runtime:
        for near in runtime.predict("noon jazz oven").neighbours:
            assert str(near.text) in page.text("#answer") and str(near.id) in page.text("#answer")

    page.click(f"button[aria-label='{wrong} is right']")
    until_previewed(page)
    assert "held-out" in page.text("#confirm-effect")
    assert label_of(place, "noon jazz oven") == before, "a preview writes nothing"
    page.press("Enter")  # the button Save has the focus
    until_told(page, "Saved as edit 1")
    page.wait(f"document.querySelector('.result').innerText.startsWith('{wrong}')")
    assert label_of(place, "noon jazz oven") == wrong
    page.click("#status button")
    until_told(page, "Saved as edit 2")
    page.wait(f"document.querySelector('.result').innerText.startsWith('{before}')")
    assert label_of(place, "noon jazz oven") == before


def test_a_new_label_and_escape(page: Browser, ui: Server, place: Path) -> None:
    visit(page, ui)
    ask(page, "green oven noon")
    page.click("#answer > .tools button")
    assert page.evaluate("document.activeElement.id") == "confirm-label"
    page.press("Escape")
    page.wait("!document.querySelector('#confirm').open")
    page.click("#answer > .tools button")
    page.write("#confirm-label", "car_loan")
    page.write("#confirm-why", "a new product")
    until_previewed(page)
    assert "new label" in page.text("#confirm-effect")
    page.click("#confirm-save")
    until_told(page, "Saved as edit 1")
    assert label_of(place, "green oven noon") == "car_loan"
    visit(page, ui, "log")
    page.wait("document.querySelector('#edits button')")
    assert "car_loan" in page.text("#edits") and "a new product" in page.text("#edits")
    page.click("#edits button")
    until_previewed(page)
    page.click("#confirm-save")
    until_told(page, "Saved as edit")
    page.wait("document.querySelector('#edits').innerText.includes('taken back')")
    assert label_of(place, "green oven noon") != "car_loan"


def test_stored_rows_and_likely_wrong_labels(page: Browser, tmp_path: Path) -> None:
    place = build_tiny_bundle(tmp_path / "rows", rows=400)
    with server(place, "--no-browser", name="ui") as ui, Runtime.open(place) as runtime:
        visit(page, ui, "rows")
        page.wait("document.querySelector('#found button')")
        row, text = runtime.knowledge_base.id(0), runtime.knowledge_base.text(0)
        assert str(text) in page.text("#found")
        page.click(f"button[aria-label='Remove row {row}']")
        until_previewed(page)  # the bundle has no held-out rows: the edit can be made without a preview
        assert "held-out" in page.text("#confirm-effect")
        page.click("#confirm-save")
        until_told(page, "Saved as edit 1")
        page.wait(f"!document.querySelector(\"button[aria-label='Remove row {row}']\")")
        visit(page, ui, "review")
        page.click("#find-wrong")
        until_told(page, "likely wrong")
        issue = page.evaluate("document.querySelector('#issues button')?.getAttribute('aria-label')")
        assert issue is not None, "the labels of this bundle are random"
        page.click("#issues button")
        until_previewed(page)
        page.click("#confirm-save")
        page.wait(f"!document.querySelector('#issues').innerHTML.includes({json.dumps(issue)})")
        changed, suggested = issue.split()[2], issue.split()[-1]
        (entry,) = [entry for entry in runtime.kb.log() if entry.op == "relabel"]
        assert (str(entry.change.relabel[0].id), entry.change.relabel[0].new.label) == (changed, suggested)


def test_what_to_label_next(page: Browser, ui: Server, place: Path) -> None:
    texts = ["noon jazz oven", "late lamp milk", "green oven noon", "noon jazz oven"]
    with Runtime.open(place) as runtime:
        expected = suggest(runtime, texts)
    visit(page, ui, "next")
    page.write("#unlabelled", "\n".join(texts))
    page.click("#suggest")
    until_told(page, f"Chosen: {len(expected)} of 4 texts")
    rows = "document.querySelectorAll('#suggestions tbody tr')"
    for place_of, one in enumerate(expected):
        row = str(page.evaluate(f"{rows}[{place_of}].innerText"))
        assert str(one.text) in row and one.reason in row
    first, second = expected[:2]
    page.click(f"button[aria-label='Label text {first.place + 1} {first.second}']")
    until_previewed(page)
    page.press("Enter")
    until_told(page, "Saved as edit 1")
    page.wait(f"{rows}[0].innerText.includes('Labelled {first.second}')")
    page.wait("!document.querySelector('#confirm').open")
    assert label_of(place, str(first.text)) == first.second
    focus = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focus == f"Label text {second.place + 1} {second.label}", "Enter goes on with the next text"
    page.click("#status button")
    until_told(page, "Saved as edit 2")
    page.wait(f"{rows}[0].querySelectorAll('button').length === 3")


def test_texts_and_labels_of_strangers_stay_texts(page: Browser, tmp_path: Path) -> None:
    place = build_tiny_bundle(tmp_path / "marked", labels=("a", MARKUP, "c"))
    with server(place, "--no-browser", name="ui") as ui:
        status, _ = ui.post("/kb/add", {"texts": f"noon {MARKUP}", "label": MARKUP, "why": MARKUP, "who": MARKUP})
        assert status == 200
        visit(page, ui)
        ask(page, f"noon {MARKUP}")
        assert MARKUP in page.text(".result") and MARKUP in page.text("#answer table")
        page.click("#answer table tr:nth-child(2) button")
        until_previewed(page)
        page.click("#confirm-save")
        until_told(page, "Saved as edit 2")
        for part in PARTS:
            visit(page, ui, part)
            if part == "review":
                page.click("#find-wrong")
                until_told(page, "likely wrong")
            elif part == "file":
                page.write("#texts", f"noon {MARKUP}")
                page.click("#file button.main")
                until_told(page, "answered")
            elif part == "next":
                words = ("night music", "jazz oven", "late lamp", "green milk")  # unlike the stored row with its marks
                page.write("#unlabelled", "\n".join(f"{10 * (pair + ' ')}{MARKUP}" for pair in words))
                page.click("#suggest")
                until_told(page, "of 4 texts")
                buttons = page.evaluate("[...document.querySelectorAll('#next td button')].map((it) => it.innerText)")
                assert MARKUP in page.text("#suggestions td") and MARKUP in buttons
            elif part != "try":
                page.wait(f"document.querySelector('#{part} table')")
                assert MARKUP in page.text(f"#{part}")
            assert page.evaluate("document.title") == "reaugkd"
            assert page.evaluate("document.querySelectorAll('img, main script, svg, iframe').length") == 0
        refused = page.evaluate("(() => { try { document.body.innerHTML = '<b>x</b>'; } catch { return true; } })()")
        assert refused, "the policy refuses markup of scripts"
    page.faults.clear()  # the refusal is one


def test_many_texts_and_their_file(page: Browser, ui: Server, place: Path, tmp_path: Path) -> None:
    texts = [f"noon {number} jazz" for number in range(70)] + ['a "quoted", text', "=1+1", "late\nlamp"]
    content = io.StringIO()
    csv.writer(content).writerows([["id", "Text"], *([number, text] for number, text in enumerate(texts))])
    visit(page, ui, "file")
    page.evaluate(f"document.querySelector('#texts').value = {json.dumps(content.getvalue())}")
    page.click("#file button.main")
    until_told(page, f"{len(texts)} of {len(texts)} texts are answered")
    (tmp_path / "downloads").mkdir()
    data = page.download("#download", tmp_path / "downloads").decode()
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    assert [row["text"] for row in rows] == [text.replace("=1+1", "'=1+1") for text in texts]
    with Runtime.open(place) as runtime:
        for row, answer in zip(rows, runtime.predict_many(texts), strict=True):
            assert row["label"] == answer.label and abs(float(row["probability"]) - answer.probability) < 1e-6
    page.click("#answers button")
    until_previewed(page)
    page.click("#confirm-save")
    page.wait("document.querySelector('#answers tbody tr').innerText.includes('(corrected)')")


@pytest.mark.parametrize(
    ("content", "pairs", "expected"),
    [
        ("one\r\n\r\ntwo\rthree", False, ["one", "two", "three"]),
        ('\ufefftext;label\n"a;b";x\n"say ""hi""";y\n', False, ["a;b", 'say "hi"']),
        ('label\tTEXT\nx\t"two\nlines"\n\n', False, ["two\nlines"]),
        ("this text, with a comma\nx", False, ["this text, with a comma", "x"]),
        ("text,text_pair\na,b\n", True, [["a", "b"]]),
        ("a\tb\nc\n", True, [["a", "b"], ["c", ""]]),
        ("", False, []),
    ],
)
def test_lists_of_texts(page: Browser, ui: Server, content: str, pairs: bool, expected: Any) -> None:
    visit(page, ui)
    read = f"import('/page/csv.js').then((it) => it.textsOf({json.dumps(content)}, {json.dumps(pairs)}))"
    assert page.evaluate(read) == expected


def test_without_edits_the_page_says_so(page: Browser, known_bundle: Path) -> None:
    with server(known_bundle) as one:
        visit(page, one)
        ask(page, "noon")
        assert "--allow-edits" in page.text("#answer")
        assert page.evaluate("document.querySelectorAll('#answer button').length") == 0
        visit(page, one, "rows")
        page.wait("document.querySelector('#found').innerText.includes('--allow-edits')")


def test_a_key_is_asked_for(page: Browser, known_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("s3cret\n")
    with server(known_bundle, "--api-key-file", keys, "--allow-edits") as one:
        page.open(one.url)
        page.wait("!document.querySelector('#key-form').hidden")
        page.write("#key", "s3cret")
        page.press("Enter")
        page.wait("document.querySelector('#about').textContent !== ''")
        assert ask(page, "noon") in "abc"


def test_two_bundles_of_which_one_reads_pairs(page: Browser, known_bundle: Path, pair_bundle: Path) -> None:
    with server(f"known={known_bundle}", f"pairs={pair_bundle}") as one:
        visit(page, one)
        page.evaluate(
            "(() => { const it = document.querySelector('#model'); it.value = 'pairs';"
            " it.dispatchEvent(new Event('change')); })()"
        )
        page.wait("!document.querySelector('#second-field').hidden")
        page.write("#second", "late lamp")
        with Runtime.open(pair_bundle) as runtime:
            assert ask(page, "noon jazz") == runtime.predict(("noon jazz", "late lamp")).label


def test_it_fits_small_windows_and_every_control_has_a_name(page: Browser, ui: Server, tmp_path: Path) -> None:
    ui.post("/kb/add", {"texts": "noon jazz oven", "label": "a"})
    for part in PARTS:
        for width, dark in ((1100, False), (1100, True), (400, False)):
            page.look(width, dark)
            visit(page, ui, part)
            if part == "try":
                ask(page, "noon jazz late lamp")
            page.screenshot(tmp_path / f"{part}-{width}-{'dark' if dark else 'light'}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (part, width)
        for node in page.call("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            if not node["ignored"] and role in (
                "button",
                "textbox",
                "searchbox",
                "combobox",
                "link",
                "meter",
                "region",
            ):
                assert node.get("name", {}).get("value"), (part, node)


class _Strange(BaseHTTPRequestHandler):
    """A page of another origin; the script of a test tries to use the server."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>strange</title><iframe name=inside></iframe>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_of_another_origin_cannot_edit(page: Browser, ui: Server, place: Path) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), _Strange)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    try:
        page.open(f"http://127.0.0.1:{other.server_address[1]}/")
        url, edit = json.dumps(ui.url), json.dumps(json.dumps({"texts": "noon", "label": "a"}))
        tried = page.evaluate(
            f"""(async () => {{
                const results = [];
                const attempt = async (path, options) => {{
                    try {{
                        const answer = await fetch({url} + path, options);
                        results.push(answer.type === 'opaque' ? 'opaque' : answer.status);
                    }} catch {{ results.push('refused'); }}
                }};
                const json = {{'content-type': 'application/json'}};
                await attempt('/kb/add', {{method: 'POST', headers: json, body: {edit}}});
                await attempt('/kb/add', {{method: 'POST', mode: 'no-cors', headers: json, body: {edit}}});
                await attempt('/kb/add', {{method: 'POST', mode: 'no-cors', body: new Blob([{edit}])}});
                await attempt('/kb/rows', {{}});
                await attempt('/v1/predict', {{method: 'POST', headers: json, body: '{{"inputs": "noon"}}'}});
                const form = document.createElement('form');
                Object.assign(form, {{method: 'post', enctype: 'text/plain', target: 'inside'}});
                form.action = {url} + '/kb/add';
                const field = document.createElement('input');
                Object.assign(field, {{name: '{{"texts": "noon", "label": "a", "why": "', value: '"}}'}});
                form.append(field);
                document.body.append(form);
                const sent = new Promise((done) => document.querySelector('iframe').addEventListener('load', done));
                form.submit();
                await sent;
                return results;
            }})()"""
        )
        assert tried == [
            "refused",
            "opaque",
            "opaque",
            "refused",
            "refused",
        ]  # opaque: sent, and answered with an error
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    with Runtime.open(place) as runtime:
        assert not runtime.kb.log()
    page.faults.clear()  # the browser reports what CORS forbids
