// All heads as small maps, and one of them enlarged.

const THUMB = 64; // pixels of a small map at most
const NAMED = 32; // tokens at most that have room for their names around the large map
let enlarged = { layer: 0, head: 0, query: 0, key: 0 };

// Paint a head into a square of side pixels; of the weights that share a pixel, the largest.
function paint(canvas, layer, head, side) {
  const size = Math.min(n, side);
  canvas.width = size;
  canvas.height = size;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let query = 0; query < n; query += 1) {
    const y = Math.floor((query * size) / n);
    for (const { key, weight } of row(layer, head, query)) {
      const at = 4 * (y * size + Math.floor((key * size) / n));
      const alpha = Math.round(255 * Math.sqrt(weight));
      if (alpha > image.data[at + 3]) image.data.set([92, 110, 226, alpha], at);
    }
  }
  context.putImageData(image, 0, 0);
}

function drawGrid() {
  const grid = document.getElementById("grid");
  grid.style.gridTemplateColumns = `1.6em repeat(${given.heads}, minmax(0, 78px))`;
  for (let head = 0; head <= given.heads; head += 1) grid.append(make("span", head ? String(head) : "", { class: "at", "aria-hidden": "true" }));
  const jobs = [];
  for (let layer = 0; layer < given.layers; layer += 1) {
    grid.append(make("span", String(layer + 1), { class: "at", "aria-hidden": "true" }));
    for (let head = 0; head < given.heads; head += 1) {
      const button = make("button", undefined, { type: "button", "aria-label": `Layer ${layer + 1}, head ${head + 1}` });
      button.title = `layer ${layer + 1}, head ${head + 1}`;
      button.dataset.at = `${layer} ${head}`;
      const canvas = make("canvas", undefined, { "aria-hidden": "true" });
      button.append(canvas);
      button.addEventListener("click", () => enlarge(layer, head));
      grid.append(button);
      jobs.push(() => paint(canvas, layer, head, THUMB));
    }
  }
  rove(grid, () => Array.from(grid.querySelectorAll("button")), given.heads);
  const work = () => { // a few at a time, so that the page answers meanwhile
    const until = performance.now() + 12;
    while (jobs.length && performance.now() < until) jobs.shift()();
    if (jobs.length) requestAnimationFrame(work);
    else grid.dataset.done = "yes";
  };
  work();
}

function markGrid() {
  for (const button of document.querySelectorAll("#grid button")) {
    button.classList.toggle("chosen", button.dataset.at === `${state.layer} ${state.head}`);
  }
}

function enlarge(layer, head) {
  enlarged = { layer, head, query: 0, key: 0 };
  document.getElementById("large-title").textContent = `Layer ${layer + 1}, head ${head + 1}`;
  document.getElementById("cell").textContent = "Point at a square, or move with the arrow keys: its query, its key, the weight.";
  for (const id of ["across", "down"]) {
    const names = n <= NAMED ? given.tokens.map((token) => make("span", visible(token), { dir: "auto" })) : [];
    document.getElementById(id).replaceChildren(...names);
  }
  paint(document.getElementById("map"), layer, head, 512);
  document.getElementById("large").showModal();
}

function steerGrid() {
  const dialog = document.getElementById("large");
  const map = document.getElementById("map");
  const inside = (i) => Math.max(0, Math.min(n - 1, i));
  const tell = (query, key) => {
    Object.assign(enlarged, { query: inside(query), key: inside(key) });
    const found = row(enlarged.layer, enlarged.head, enlarged.query).find((each) => each.key === enlarged.key);
    document.getElementById("cell").replaceChildren(
      "From ", name(enlarged.query), " to ", name(enlarged.key), found ? `: ${percent(found.weight)}` : ": a small weight, left out of this page");
  };
  const point = (event) => {
    const box = map.getBoundingClientRect();
    tell(Math.floor(((event.clientY - box.top) / box.height) * n), Math.floor(((event.clientX - box.left) / box.width) * n));
  };
  map.addEventListener("pointermove", point);
  map.addEventListener("pointerdown", point);
  map.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    tell(enlarged.query + step[0], enlarged.key + step[1]);
  });
  document.getElementById("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.getElementById("open").addEventListener("click", () => {
    dialog.close();
    chooseHead(enlarged.layer, enlarged.head);
    document.getElementById("heads-title").scrollIntoView({ block: "start" });
    document.getElementById("layer").focus({ preventScroll: true });
  });
}
