// The page: opens a folder, translates as one types, and shows what the model is.

import { FolderError, droppedFolder, folderAt, folderOf, readFolder } from "./folder.js";

const PAUSE = 150; // milliseconds without a key before a translation starts
const WAITING = "…";
const $ = (id) => document.getElementById(id);
const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

let worker = null, opening = 0, request = 0, timer = 0, spent = 0, count = 0;
let known = new Map(); // lines and their translations

function showError(line) {
  $("error").textContent = line;
  $("error").hidden = !line;
}

function languageName(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code);
  } catch {
    return code; // not a code of BCP 47
  }
}

/** Open what the function `folder` gives in place of the model that is open. */
async function open(folder) {
  const own = ++opening;
  close();
  try {
    const chosen = await folder();
    const files = await readFolder(chosen, (line) => own === opening && ($("status").textContent = line));
    if (own !== opening) return;
    $("status").textContent = "Starting the engine …";
    const begun = await start(files, own);
    if (own !== opening) return begun.terminate();
    worker = begun;
    describe(files, chosen);
    $("source").disabled = false;
    $("source").focus();
    await update();
  } catch (error) {
    if (own !== opening) return;
    close();
    showError(error instanceof FolderError ? error.message : `The folder cannot be read: ${error.message}`);
  }
}

function close() {
  worker?.terminate();
  worker = null;
  known = new Map();
  request++;
  showError("");
  $("status").textContent = "No model is open.";
  $("source").disabled = true;
  $("target").value = "";
  $("time").textContent = "\u00a0";
  $("about").hidden = true;
}

/** A worker that has loaded the model. */
function start({ model, vocabularies, shortlist }, own) {
  const begun = new Worker(new URL("worker.js", import.meta.url));
  return new Promise((resolve, reject) => {
    begun.addEventListener("error", () => reject(new FolderError("Engine: worker.js cannot be run")));
    begun.addEventListener("message", ({ data }) => {
      if (data.kind === "ready") {
        resolve(begun);
      } else if (data.kind === "failed") {
        begun.terminate();
        reject(new FolderError(`Engine: ${data.reason}`));
        if (worker === begun) fail(`Engine: ${data.reason}`);
      } else if (own === opening) {
        receive(data);
      }
    });
    begun.postMessage({ kind: "load", model, vocabularies, shortlist });
  });
}

function fail(line) {
  close();
  showError(`${line}. Open the folder again`);
}

function receive(data) {
  if (data.kind === "line") {
    known.set(data.line, data.text);
    if (data.request !== request) return;
    spent += data.milliseconds;
    count++;
    show();
  } else if (data.request === request) {
    $("time").textContent = `Last translation: ${number(spent, 1)} ms for ${count} line${count === 1 ? "" : "s"}`;
    $("target").removeAttribute("aria-busy");
  }
}

/** The lines of the text; a translation of each is in `known` in the end. */
const lines = () => $("source").value.split("\n").map((line) => line.trim());

function show() {
  $("target").value = lines().map((line) => (line ? known.get(line) ?? WAITING : "")).join("\n");
}

/** Ask for the lines that are not known. */
async function update() {
  if (!worker) return;
  request++;
  spent = count = 0;
  const wanted = [...new Set(lines())].filter((line) => line && !known.has(line));
  if (known.size > 10000) known = new Map();
  show();
  if (!wanted.length) return $("target").removeAttribute("aria-busy");
  $("target").setAttribute("aria-busy", "true");
  worker.postMessage({ kind: "translate", request, lines: wanted });
}

function describe({ metadata, sizes, checked }, folder) {
  const { source, target } = metadata.languages;
  const [from, to] = [languageName(source), languageName(target)];
  $("source").lang = source;
  $("target").lang = target;
  $("source-title").textContent = from;
  $("target-title").textContent = to;
  $("status").textContent = `${from} to ${to} is open.`;
  const facts = [
    ["Languages", `${from} to ${to}`],
    ["Licence", metadata.licence ?? "not stated"],
    ["Made by", metadata.made_by],
    ["Quantization", metadata.quantization],
    ["Parameters", number(metadata.parameters)],
    ["Check", checkOf(metadata.check)],
    ...sizes.map(([name, bytes]) => [name, `${number(bytes)} bytes`]),
    ["Together", `${number(sizes.reduce((sum, [, bytes]) => sum + bytes, 0))} bytes`],
    ["Checksums", checked ? "equal to metadata.json" : "not compared: that needs https or localhost"],
  ];
  $("facts").replaceChildren(...facts.flatMap(([title, value]) => [element("dt", title), element("dd", value)]));
  $("metadata").href = folder.link("metadata.json");
  $("about").hidden = false;
}

function checkOf(check) {
  if (!check) return "not made";
  const equal = `${number(100 * check.equal, 1)}% of ${number(check.sentences)} sentences equal to the checkpoint's`;
  return check.bleu ? `BLEU ${number(check.bleu.exported, 1)} (checkpoint ${number(check.bleu.checkpoint, 1)}), ${equal}` : equal;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

$("source").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(update, PAUSE);
});

$("folder").addEventListener("change", ({ target }) => {
  const files = [...target.files];
  target.value = ""; // the same folder can be chosen again
  if (files.length) open(async () => folderOf(files));
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", ({ dataTransfer }) => {
  const folder = droppedFolder(dataTransfer);
  open(() => folder);
});

const address = new URLSearchParams(location.search).get("model");
if (address) open(async () => folderAt(address));
