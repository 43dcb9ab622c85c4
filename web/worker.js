// The engine in a thread of its own.
// In:  {kind: "load", model, vocabularies, shortlist}; {kind: "translate", request, lines}
// Out: {kind: "ready"}; {kind: "line", request, line, text, milliseconds}; {kind: "done", request}; {kind: "failed", reason}

const ENGINE = "engine/bergamot-translator-worker";
const INSTALL = "bash web/fetch_engine.sh";

// One sentence on a line, greedy. The limit is that of Marian, a factor of the source tokens: 4 S is the smallest that
// cuts nothing which ends within 2 S + 4 tokens, the limit of `fairseq-compress translate`.
const OPTIONS = {
  "beam-size": 1, "normalize": 1.0, "word-penalty": 0, "skip-cost": true, "alignment": "soft",
  "gemm-precision": "int8shiftAlphaAll", "max-length-factor": 4.0, "max-length-break": 256, "mini-batch-words": 4096,
  "ssplit-mode": "sentence", "cpu-threads": 0, "workspace": 128, "quiet": true, "quiet-translation": true,
};

// Products that Firefox has for its own pages; the engine brings slower ones with it.
const PRODUCTS = {
  int8_prepare_a: "int8PrepareAFallback",
  int8_prepare_b: "int8PrepareBFallback",
  int8_prepare_b_from_transposed: "int8PrepareBFromTransposedFallback",
  int8_prepare_b_from_quantized_transposed: "int8PrepareBFromQuantizedTransposedFallback",
  int8_prepare_bias: "int8PrepareBiasFallback",
  int8_multiply_and_add_bias: "int8MultiplyAndAddBiasFallback",
  int8_select_columns_of_b: "int8SelectColumnsOfBFallback",
};

let engine, model, service, latest = 0, lastMessage = "";

async function startEngine() {
  const response = await fetch(`${ENGINE}.wasm`).catch(() => null);
  if (!response?.ok) throw new Error(`the engine is missing: run ${INSTALL}`);
  const binary = await response.arrayBuffer();
  return new Promise((resolve, reject) => {
    self.Module = {
      instantiateWasm(imports, accept) {
        const products = Object.fromEntries(
          Object.entries(PRODUCTS).map(([name, own]) => [name, (...values) => self.Module.asm[own](...values)]),
        );
        WebAssembly.instantiate(binary, { ...imports, wasm_gemm: products }).then(
          ({ instance }) => accept(instance), reject,
        );
        return {};
      },
      onRuntimeInitialized: () => resolve(self.Module),
      print: () => {},
      printErr(line) {
        if (line.includes("Error: ")) lastMessage ||= line.slice(line.indexOf("Error: ") + 7);
      },
    };
    try {
      importScripts(`${ENGINE}.js`);
    } catch {
      reject(new Error(`the engine is missing: run ${INSTALL}`));
    }
  });
}

function aligned(data, alignment) {
  const memory = new engine.AlignedMemory(data.byteLength, alignment);
  memory.getByteArrayView().set(new Int8Array(data));
  return memory;
}

async function load(files) {
  engine = await startEngine();
  const vocabularies = new engine.AlignedMemoryList();
  for (const each of files.vocabularies) vocabularies.push_back(aligned(each, 64));
  const text = Object.entries(OPTIONS).map(([name, value]) => `${name}: ${value}\n`).join("");
  const shortlist = aligned(files.shortlist ?? new ArrayBuffer(0), 64);
  model = new engine.TranslationModel(text, aligned(files.model, 256), shortlist, vocabularies, null);
  service = new engine.BlockingService({ cacheSize: 0 });
  translated("."); // the engine reads the model now: what it cannot compute is told before the first line
}

function translated(line) {
  const lines = new engine.VectorString();
  const options = new engine.VectorResponseOptions();
  lines.push_back(line);
  options.push_back({ alignment: false, html: false, qualityScores: false });
  const responses = service.translate(model, lines, options);
  const text = responses.get(0).getTranslatedText();
  for (const each of [lines, options, responses]) each.delete();
  return text;
}

async function translate({ request, lines }) {
  latest = request;
  for (const line of lines) {
    if (latest !== request) return; // the text has changed
    const start = performance.now();
    const text = translated(line).trim().replace(/  +/g, " "); // as `translate` writes it
    postMessage({ kind: "line", request, line, text, milliseconds: performance.now() - start });
    await new Promise((resolve) => setTimeout(resolve)); // newer requests come in here
  }
  if (latest === request) postMessage({ kind: "done", request });
}

self.addEventListener("message", async ({ data }) => {
  try {
    if (data.kind === "load") {
      await load(data);
      postMessage({ kind: "ready" });
    } else {
      await translate(data);
    }
  } catch (error) {
    const reason = lastMessage || error?.message || String(error);
    postMessage({ kind: "failed", reason: reason.trim().replace(/\.+$/, "") });
  }
});
