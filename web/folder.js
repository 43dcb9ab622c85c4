// A folder that `fairseq-compress export --runtime bergamot` wrote: its files, compared with metadata.json.

// Those whose files of this runtime are alike; model 3 is of other segmentations, which this runtime does not have.
const FORMATS = [1, 2, 4, 5].map((number) => `fairseq-compress model ${number}`);

/** One line for the reader of the page. */
export class FolderError extends Error {}

/** A folder on the server of this page. A folder has a `name`, the `link` of a file, and `read`, which gives its bytes. */
export function folderAt(address) {
  const base = new URL(address.endsWith("/") ? address : `${address}/`, location.href);
  if (base.origin !== location.origin) {
    throw new FolderError(`model: must be a folder on the server of this page, got ${address}`);
  }
  return {
    name: address,
    link: (file) => new URL(file, base).href,
    async read(file) {
      const response = await fetch(new URL(file, base), { cache: "no-cache" }).catch(() => {
        throw new FolderError(`${address}: cannot read ${file}: the server does not answer`);
      });
      if (!response.ok) {
        throw new FolderError(`${address}: cannot read ${file}: the server answers ${response.status}`);
      }
      return response.arrayBuffer();
    },
  };
}

/** A folder that was chosen or dropped: a list of File objects. */
export function folderOf(files, name = files[0]?.webkitRelativePath.split("/")[0] || "folder") {
  const own = files.filter((file) => file.webkitRelativePath.split("/").length <= 2); // not those of folders inside
  const found = new Map(own.map((file) => [file.name, file]));
  return {
    name,
    link: (file) => URL.createObjectURL(found.get(file)),
    async read(file) {
      if (!found.has(file)) throw new FolderError(`${name}: cannot read ${file}: there is no such file`);
      return found.get(file).arrayBuffer().catch((error) => {
        throw new FolderError(`${name}: cannot read ${file}: ${error.message}`);
      });
    },
  };
}

/** What was dropped on the page, as a folder. Must be called while the event is handled. */
export async function droppedFolder(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = await Promise.all(
    entries.map(async (entry) => (entry.isDirectory ? children(entry) : [entry])).map((each) => each.then(opened)),
  );
  return folderOf(files.flat(), entries[0]?.isDirectory ? entries[0].name : undefined);
}

async function children(entry) {
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const more = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!more.length) return found.filter((each) => each.isFile);
    found.push(...more);
  }
}

function opened(entries) {
  return Promise.all(entries.map((entry) => new Promise((resolve, reject) => entry.file(resolve, reject))));
}

/**
 * Read and check a folder.
 * Result: metadata; sizes [name, bytes]; checked: whether checksums could be compared; model, vocabularies, shortlist.
 */
export async function readFolder(folder, report) {
  report(`Reading ${folder.name} …`);
  const metadata = parsed(folder, await folder.read("metadata.json"));
  const facts = metadata.bergamot;
  const vocabularies = [...new Set(facts.vocabularies)];
  const names = [facts.model, ...vocabularies, ...(facts.shortlist ? [facts.shortlist] : [])];
  const contents = new Map();
  for (const name of names) {
    report(`Reading ${folder.name}/${name} …`);
    const data = await folder.read(name);
    await compare(folder, name, data, metadata.files[name]);
    contents.set(name, data);
  }
  return {
    metadata,
    sizes: names.map((name) => [name, contents.get(name).byteLength]),
    checked: Boolean(crypto.subtle),
    model: contents.get(facts.model),
    vocabularies: vocabularies.map((name) => contents.get(name)),
    shortlist: facts.shortlist ? contents.get(facts.shortlist) : null,
  };
}

function parsed(folder, data) {
  let metadata = null;
  try {
    metadata = JSON.parse(new TextDecoder().decode(data));
  } catch {
    // told below
  }
  if (!FORMATS.includes(metadata?.format)) {
    const got = metadata?.format ?? "no JSON";
    throw new FolderError(`${folder.name}/metadata.json: its format must be one of ${FORMATS.join(", ")}, got ${got}`);
  }
  if (metadata.runtime !== "bergamot") {
    throw new FolderError(`${folder.name}: must be exported with --runtime bergamot, is for ${metadata.runtime}`);
  }
  const facts = metadata.bergamot;
  if (!facts?.model || !facts.vocabularies?.length || !metadata.files || !metadata.languages) {
    throw new FolderError(`${folder.name}/metadata.json: is damaged: export the model again`);
  }
  return metadata;
}

async function compare(folder, name, data, wanted) {
  if (!wanted) throw new FolderError(`${folder.name}/metadata.json: has no checksum of ${name}`);
  const path = `${folder.name}/${name}`;
  if (data.byteLength !== wanted.bytes) {
    throw new FolderError(`${path}: is damaged: must have ${wanted.bytes} bytes, has ${data.byteLength}`);
  }
  if (!crypto.subtle) return; // only over https and on localhost
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== wanted.sha256) throw new FolderError(`${path}: is damaged: its SHA-256 must be ${wanted.sha256}, is ${found}`);
}
