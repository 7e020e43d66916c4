// The head view: two columns of tokens, lines by weight.

const state = { layer: 0, head: 0, threshold: 0, hide: false, filter: "", hover: null, pin: null, query: 0 };
const MOST_LINES = 1500;
const HEIGHT = n <= 40 ? 28 : n <= 160 ? 22 : 18; // of a row, in pixels
const columns = { q: document.getElementById("queries"), k: document.getElementById("keys") };
let shown = { q: [], k: [] }; // the tokens in each column, from the top

function allowed(side, i) {
  if (state.hide && special[i]) return false;
  return state.filter === "" || given.segments[i] === Number(state.filter[side === "q" ? 0 : 1]);
}

function drawColumns() {
  document.documentElement.style.setProperty("--row", `${HEIGHT}px`);
  for (const side of ["q", "k"]) {
    shown[side] = given.tokens.map((_, i) => i).filter((i) => allowed(side, i));
    columns[side].replaceChildren(...shown[side].map((i, place) => {
      const token = make("div", visible(given.tokens[i]), { role: "option", dir: "auto", tabindex: place ? "-1" : "0" });
      token.className = special[i] ? "token special" : "token";
      token.title = given.names[i] === given.tokens[i] ? visible(given.tokens[i]) : `token ${visible(given.names[i])}`;
      token.dataset.i = i;
      token.dataset.side = side;
      return token;
    }));
  }
  if (!shown.q.includes(state.query)) state.query = shown.q[0] ?? 0;
  if (state.pin && !allowed(state.pin.side, state.pin.i)) state.pin = null;
  state.hover = null;
  draw();
}

// The pairs that the view may draw, the heaviest first.
function pairs() {
  const found = [];
  for (const query of shown.q) {
    for (const { key, weight } of row(state.layer, state.head, query)) {
      if (weight >= state.threshold && allowed("k", key)) found.push({ query, key, weight });
    }
  }
  return found.sort((a, b) => b.weight - a.weight);
}

function draw() {
  const active = state.hover ?? state.pin;
  if (active?.side === "q") state.query = active.i;
  const all = pairs();
  const mine = active ? all.filter((pair) => (active.side === "q" ? pair.query : pair.key) === active.i) : all;
  const lines = mine.slice(0, MOST_LINES);
  drawLines(lines, active !== null);
  markTokens(active, lines);
  const what = active ? `of ${visible(given.tokens[active.i])} as a ${active.side === "q" ? "query" : "key"}` : "of this head";
  const fewer = mine.length > lines.length ? `, the ${lines.length} heaviest drawn` : "";
  const weights = mine.length === 1 ? "weight" : "weights";
  document.getElementById("drawn").textContent = `${mine.length} ${weights} ${what} from ${percent(state.threshold)} up${fewer}.`;
  drawWorked(state.query, active?.side === "k" ? active.i : null);
}

function drawLines(lines, single) {
  const svg = document.getElementById("lines");
  const height = HEIGHT * Math.max(shown.q.length, shown.k.length, 1);
  svg.setAttribute("viewBox", `0 0 100 ${height}`);
  svg.style.height = `${height}px`;
  const middle = { q: new Map(shown.q.map((i, place) => [i, (place + 0.5) * HEIGHT])), k: new Map(shown.k.map((i, place) => [i, (place + 0.5) * HEIGHT])) };
  const heaviest = lines[0]?.weight ?? 1; // strength is relative, so that a head of many small weights shows too; width is not
  svg.replaceChildren(...lines.map(({ query, key, weight }) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const [from, to] = [middle.q.get(query), middle.k.get(key)];
    path.setAttribute("d", `M0 ${from}C45 ${from} 55 ${to} 100 ${to}`);
    path.setAttribute("stroke-width", (0.6 + 6 * weight).toFixed(2));
    path.setAttribute("stroke-opacity", ((single ? 0.2 : 0.08) + (0.75 * weight) / heaviest).toFixed(3));
    return path;
  }));
}

function markTokens(active, lines) {
  const heat = new Map();
  if (active) for (const line of lines) heat.set(active.side === "q" ? line.key : line.query, line.weight);
  for (const side of ["q", "k"]) {
    for (const token of columns[side].children) {
      const i = Number(token.dataset.i);
      const is = (place) => place !== null && place.side === side && place.i === i;
      token.classList.toggle("active", is(active));
      token.classList.toggle("pinned", is(state.pin));
      token.classList.toggle("query", side === "q" && i === state.query);
      token.setAttribute("aria-selected", String(is(state.pin)));
      const lit = active && active.side !== side && heat.has(i);
      token.style.backgroundColor = lit ? `rgba(var(--tint), ${(0.1 + 0.6 * heat.get(i)).toFixed(3)})` : "";
    }
  }
}

function at(event) {
  const token = event.target.closest?.(".token");
  return token ? { side: token.dataset.side, i: Number(token.dataset.i) } : null;
}

function look(place) {
  if (place?.side === state.hover?.side && place?.i === state.hover?.i) return;
  state.hover = place;
  draw();
}

function pin(place) {
  const again = state.pin !== null && state.pin.side === place.side && state.pin.i === place.i;
  state.pin = again ? null : place;
  state.hover = null;
  draw();
}

function steerHeads() {
  const view = document.getElementById("view");
  view.addEventListener("pointerover", (event) => { if (event.pointerType !== "touch") look(at(event)); });
  view.addEventListener("pointerleave", () => look(null));
  view.addEventListener("focusin", (event) => { if (event.target.matches(":focus-visible")) look(at(event)); });
  view.addEventListener("focusout", () => look(null));
  view.addEventListener("click", (event) => { if (at(event)) pin(at(event)); });
  view.addEventListener("keydown", (event) => {
    const place = at(event);
    if (!place) return;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(place); }
    if (event.key === "Escape") { state.pin = null; state.hover = null; draw(); }
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const other = columns[event.key === "ArrowRight" ? "k" : "q"];
      const next = other.querySelector(`[data-i="${place.i}"]`) ?? other.firstElementChild;
      event.preventDefault();
      event.stopPropagation();
      next?.focus();
    }
  }, true);
  for (const side of ["q", "k"]) rove(columns[side], () => Array.from(columns[side].children), 1);
}
