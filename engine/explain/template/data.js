// The data: what the page was given, its weights unpacked, and how a token is written.

const given = JSON.parse(document.getElementById("data").textContent);
const n = given.tokens.length;
const root = Math.sqrt(given.size); // sqrt(d), which scores are divided by
const special = given.segments.map((segment) => segment === null);
const packed = {}; // c: [rows], keys: [rows, keep] or null, below: [rows, keep]

async function unpack() {
  const bytes = Uint8Array.from(atob(given.weights.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const rows = given.layers * given.heads * n;
  const count = rows * given.weights.keep;
  let at = rows * 4;
  const planes = () => {
    const values = new Uint16Array(count);
    const part = new Uint8Array(buffer, at, 2 * count);
    for (let i = 0; i < count; i += 1) values[i] = part[i] | (part[i + count] << 8);
    at += 2 * count;
    return values;
  };
  const view = new DataView(buffer);
  packed.c = Float32Array.from({ length: rows }, (_, i) => view.getFloat32(4 * i, true));
  packed.keys = given.weights.keep < n ? planes() : null;
  packed.below = planes();
}

// The kept weights of one query: [{key, z, weight}] in the order of the keys; z = q.k / sqrt(d).
function row(layer, head, query) {
  const at = (layer * given.heads + head) * n + query;
  const keep = given.weights.keep;
  const found = new Array(keep);
  let key = 0;
  for (let i = 0; i < keep; i += 1) {
    const below = packed.below[at * keep + i] / given.weights.steps;
    key = packed.keys ? key + packed.keys[at * keep + i] : i;
    found[i] = { key, z: packed.c[at] - below, weight: Math.exp(-below) };
  }
  return found;
}

// The logarithm of the sum of exp(z) over all keys of a row, those left out among them.
function total(layer, head, query) {
  return packed.c[(layer * given.heads + head) * n + query];
}

// A token as visible text: marks get a circle to stand on, and what has no shape of its own its code point.
function visible(token) {
  const shaped = token.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (sign) =>
    /[\u200c\u200d]/.test(sign) ? sign : `⟨${code(sign)}⟩`); // the two joiners shape letters and emoji
  if (!/\S/u.test(shaped) || /^[\u200c\u200d]+$/.test(shaped)) return Array.from(token, code).join(" ") || "⟨empty⟩";
  return /^\p{M}/u.test(shaped) ? `◌${shaped}` : shaped;
}

// Running text: what would reorder or hide the rest of the page's line is named instead.
function legible(text) {
  return text.replace(/[\u202a-\u202e\u2066-\u2069]|(?![\t\n\r])\p{Cc}/gu, (sign) => `⟨${code(sign)}⟩`);
}

function code(sign) {
  return `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

// Text goes into the page as text alone, never as markup.
function make(kind, text, attributes = {}) {
  const element = document.createElement(kind);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// A token's name, with its place in the text where another is written the same.
const twins = new Map();
for (const token of given.tokens) twins.set(token, (twins.get(token) ?? 0) + 1);

function name(i) {
  const both = document.createDocumentFragment();
  both.append(make("bdi", visible(given.tokens[i])));
  if (twins.get(given.tokens[i]) > 1) both.append(make("span", String(i + 1), { class: "nth", title: `token ${i + 1}` }));
  return both;
}

const percent = (x) => (x > 0 && x < 0.0005 ? "< 0.1 %" : `${(100 * x).toFixed(x > 0 && x < 0.0995 ? 1 : 0)} %`);
const signed = (x, digits) => `${x < 0 ? "−" : ""}${Math.abs(x).toFixed(digits)}`;

// One tab stop for a group; arrow keys move inside it.
function rove(group, items, columns) {
  const list = items();
  list.forEach((item, i) => item.setAttribute("tabindex", i === 0 ? "0" : "-1"));
  group.addEventListener("keydown", (event) => {
    const now = items();
    const at = now.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: now.length - 1 - at }[event.key];
    if (at < 0 || step === undefined || !now[at + step]) return;
    event.preventDefault();
    now[at].setAttribute("tabindex", "-1");
    now[at + step].setAttribute("tabindex", "0");
    now[at + step].focus();
  });
}
