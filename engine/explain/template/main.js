// Controls, theme, and the order in which the page comes up.

const control = (id) => document.getElementById(id);

function chooseHead(layer, head) {
  state.layer = layer;
  state.head = head;
  control("layer").selectedIndex = layer;
  control("head").selectedIndex = head;
  markGrid();
  draw();
}

function setThreshold(value) {
  state.threshold = value;
  control("threshold").value = String(value);
  control("least").textContent = percent(value);
}

// A long text spreads its attention thin: the slider then goes in smaller steps, and starts above an even average.
function scaleThreshold() {
  const most = n > 100 ? 0.1 : 0.5;
  control("threshold").max = String(most);
  control("threshold").step = String(most / 100);
  setThreshold(Math.round((100 * Math.min(0.1, 1.5 / n)) / most) * (most / 100));
}

function steerControls() {
  const numbers = (count) => Array.from({ length: count }, (_, i) => make("option", String(i + 1)));
  control("layer").append(...numbers(given.layers));
  control("head").append(...numbers(given.heads));
  const choose = () => chooseHead(control("layer").selectedIndex, control("head").selectedIndex);
  control("layer").addEventListener("change", choose);
  control("head").addEventListener("change", choose);
  control("threshold").addEventListener("input", (event) => { setThreshold(Number(event.target.value)); draw(); });
  control("hide").addEventListener("change", (event) => { state.hide = event.target.checked; drawColumns(); });
  control("filter").addEventListener("change", (event) => { state.filter = event.target.value; drawColumns(); });
  control("filter-label").hidden = !given.segments.includes(1);
  const marks = [...new Set(given.tokens.filter((_, i) => special[i]).map(visible))];
  control("specials").textContent = marks.join(", ");
  control("hide").parentElement.hidden = !marks.length || special.every(Boolean);
  control("controls").addEventListener("submit", (event) => event.preventDefault());
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  control("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

function steerTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = false;
  setTheme(system.matches ? "dark" : "light");
  system.addEventListener("change", () => { if (!chosen) setTheme(system.matches ? "dark" : "light"); });
  control("theme").addEventListener("click", () => {
    chosen = true;
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  });
}

async function start() {
  steerTheme();
  drawAnswer();
  control("kept").textContent = given.kept;
  if (!("DecompressionStream" in window)) {
    control("drawn").textContent = "This browser cannot unpack the weights (DecompressionStream, in all browsers since 2023).";
    return;
  }
  await unpack();
  steerControls();
  steerHeads();
  steerWorked();
  steerGrid();
  scaleThreshold();
  state.query = given.query;
  drawColumns();
  drawGrid();
  chooseHead(0, 0);
  document.documentElement.dataset.ready = "yes";
}

start();
