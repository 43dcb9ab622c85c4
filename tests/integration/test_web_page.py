"""``web/`` in headless Chromium, offline: its translations are those of ``translate``, and errors are one line."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from fairseq_compress.api import Translator
from fairseq_compress.cli.main import main
from fairseq_compress.work.marian_file import read_marian, serialize
from tests.conftest import ROOT
from tests.helpers.browser import Browser
from tests.helpers.cipher_model import cipher_lines, write_cipher_model

BIN, SPM = "model.encs.intgemm.alphas.bin", "vocab.encs.spm"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ENGINE = ROOT / "web" / "engine" / "bergamot-translator-worker.wasm"
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drives Chromium over pipes as on Linux"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.skipif(
        not ENGINE.exists(), reason="the page has no engine: apt-get install npm; bash web/fetch_engine.sh"
    ),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """That of ``python -m http.server``."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the page and ``student``, an exported model."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "web").symlink_to(ROOT / "web")
    model, text = write_cipher_model(folder / "model"), folder / "text.en"
    text.write_text("".join(f"{line}\n" for line in cipher_lines(100, 1)))
    words = ["--runtime", "bergamot", "--sentencepiece-model", model / "sentencepiece.model", "--no-check"]
    words += ["--calibration", text, "--licence", "CC0-1.0"]
    assert main(["export", *map(str, [model / "model.pt", folder / "student", *words])]) == 0
    return folder


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def text_of(browser, name):
    return browser.evaluate(f"document.getElementById('{name}').textContent")


def opened(browser, address, model="/student", page="/web/"):
    """Open the page with a model; the result is its line of error, empty if there is none."""
    browser.open("about:blank")
    browser.requests.clear()
    browser.messages.clear()
    browser.open(f"{address}{page}" + (f"?model={model}" if model else ""))
    return outcome(browser) if model else ""


def outcome(browser):
    browser.wait_for("!document.getElementById('source').disabled || !document.getElementById('error').hidden")
    return text_of(browser, "error")


def typed(browser, text):
    """Type at the end of the text; the result are the lines of the translation, and the line with the time."""
    before = "document.getElementById('time').textContent = ''; document.getElementById('source').focus()"
    browser.evaluate(before)
    browser.call("Input.insertText", {"text": text})
    browser.wait_for("document.getElementById('time').textContent.includes('ms')")
    return browser.evaluate("document.getElementById('target').value").split("\n"), text_of(browser, "time")


def test_translations_are_those_of_translate(browser, address, site):
    pytest.importorskip("fxtranslate")
    lines = cipher_lines(60, 9)
    lines[5:5] = ["", f"  {lines[6]}  ", lines[7].replace(" ", "   ")]
    expected = Translator(site / "student")(lines)
    assert len(set(expected)) > 40
    assert opened(browser, address) == ""
    found, told = typed(browser, "\n".join(lines))
    assert found == expected
    assert told.endswith(f" ms for {len(set(map(str.strip, lines)) - {''})} lines")
    assert not browser.messages


def test_no_request_leaves_the_server(browser, address):
    assert opened(browser, address) == ""
    typed(browser, "ci")
    names = {urlsplit(each).path.rsplit("/", 1)[1] for each in browser.requests}
    assert names >= {"page.js", "worker.js", "bergamot-translator-worker.js", ENGINE.name, "metadata.json", BIN, SPM}
    assert {urlsplit(each).netloc for each in browser.requests} == {urlsplit(address).netloc}
    other = address.replace("127.0.0.1", "localhost")
    assert "Failed to fetch" in browser.evaluate(f"fetch('{other}/web/').then(() => 'answered', String)")


def test_translates_as_one_types(browser, address, site):
    assert opened(browser, address) == ""
    first, second = (line for line in cipher_lines(3, 9) if "." not in line)
    lines, told = typed(browser, first)
    assert lines[0]
    assert told.endswith("for 1 line")
    more, told = typed(browser, f"\n{second}")
    assert more[0] == lines[0]
    assert more[1]
    assert told.endswith("for 1 line")  # the first is known


def test_what_the_model_is(browser, address, site):
    assert opened(browser, address) == ""
    metadata = json.loads((site / "student" / "metadata.json").read_text())
    facts = text_of(browser, "facts")
    for fact in ("English to Czech", "CC0-1.0", metadata["made_by"], "int8_calibrated", "not made"):
        assert fact in facts
    for name in (BIN, SPM):
        assert f"{name}{(site / 'student' / name).stat().st_size:,} bytes" in facts
    assert browser.evaluate("document.getElementById('metadata').href") == f"{address}/student/metadata.json"


@pytest.mark.parametrize("drop", [False, True])
def test_a_chosen_folder(drop, browser, address, site):
    opened(browser, address, model="")
    assert text_of(browser, "status") == "No model is open."
    if drop:
        browser.drop([site / "student"])
    else:
        browser.choose_files("#folder", [site / "student"])
    assert outcome(browser) == ""
    lines, _ = typed(browser, cipher_lines(3, 9)[1])
    assert lines[0]


def test_labels_and_keys(browser, address):
    assert opened(browser, address) == ""
    assert browser.evaluate("document.activeElement.id") == "source"
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if "role" in node}
    assert {("textbox", "English"), ("textbox", "Czech")} <= roles
    assert any(name == "Open a model folder" for _, name in roles)
    browser.evaluate("document.getElementById('source').blur(); document.getElementById('folder').focus()")
    assert browser.evaluate("document.activeElement.matches(':focus')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1200])
def test_fits_the_window(browser, address, width, dark, tmp_path):
    assert opened(browser, address) == ""
    browser.picture(tmp_path / "page.png", width, 900, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (not dark)


def edited(change):
    """A function that changes ``metadata.json`` of a folder."""

    def edit(folder):
        path = folder / "metadata.json"
        metadata = json.loads(path.read_text())
        change(metadata)
        path.write_text(json.dumps(metadata))

    return edit


def flip(folder):
    path = folder / BIN
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace(folder, data):
    """Another model, with its checksum."""
    (folder / BIN).write_bytes(data)
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edited(lambda metadata: metadata["files"].update({BIN: facts}))(folder)


def remove_alpha(folder):
    file = read_marian(folder / BIN)
    items = {name: value for name, value in file.items.items() if name != "Wemb_QuantMultA"}
    replace(folder, serialize(items, file.configuration))


FORMATS = "one of " + ", ".join(f"fairseq-compress model {number}" for number in (1, 2, 4, 5))
FAULTS = {
    "flipped": (flip, f"/faulty/{BIN}: is damaged: its SHA-256 must be "),
    "cut": (lambda folder: (folder / BIN).write_bytes(b"1"), f"/faulty/{BIN}: is damaged: must have "),
    "no file": (lambda folder: (folder / SPM).unlink(), f"/faulty: cannot read {SPM}: the server answers 404"),
    "no folder": (shutil.rmtree, "/faulty: cannot read metadata.json: the server answers 404"),
    "runtime": (
        edited(lambda metadata: metadata.update(runtime="onnxruntime")),
        "/faulty: must be exported with --runtime bergamot, is for onnxruntime",
    ),
    "format": (
        edited(lambda metadata: metadata.update(format="fairseq-compress model 9")),
        f"/faulty/metadata.json: its format must be {FORMATS}, got fairseq-compress model 9",
    ),
    "no JSON": (
        lambda folder: (folder / "metadata.json").write_text("{"),
        f"/faulty/metadata.json: its format must be {FORMATS}, got no JSON",
    ),
    "facts": (edited(lambda metadata: metadata.pop("bergamot")), "/faulty/metadata.json: is damaged: export"),
    "no model": (lambda folder: replace(folder, bytes(4096)), "Engine: Binary file versions do not match"),
    "no alpha": (remove_alpha, "Engine: We did not find an alpha in the model named: F0::Wemb_QuantMultA"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault, browser, address, site):
    change, expected = FAULTS[fault]
    shutil.rmtree(site / "faulty", ignore_errors=True)
    shutil.copytree(site / "student", site / "faulty")
    change(site / "faulty")
    later = time.time() + 10 * list(FAULTS).index(fault)  # the server compares whole seconds: "not modified"
    for file in (site / "faulty").glob("*"):
        os.utime(file, (later, later))
    line = opened(browser, address, "/faulty")
    assert line.startswith(expected)
    assert "\n" not in line
    assert text_of(browser, "status") == "No model is open."


def test_a_model_of_another_server(browser, address):
    line = opened(browser, address, "http://example.org/student")
    assert line == "model: must be a folder on the server of this page, got http://example.org/student"


def test_without_the_engine(browser, address, site):
    shutil.copytree(ROOT / "web", site / "bare", ignore=shutil.ignore_patterns("engine*"))
    line = opened(browser, address, page="/bare/")
    assert line == "Engine: the engine is missing: run bash web/fetch_engine.sh"
