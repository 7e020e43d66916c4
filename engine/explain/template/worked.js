// The worked example: one query's numbers, from q.k to the weights.

const FIRST = 12; // keys shown before the rest is asked for
let everything = false;

function drawWorked(query, lit) {
  const found = row(state.layer, state.head, query).sort((a, b) => b.weight - a.weight || a.key - b.key);
  const highest = found[0].z;
  const sum = Math.exp(total(state.layer, state.head, query) - highest);
  const lines = [];
  const head = make("tr");
  const products = given.relative ? ["", "score"] : ["q·k", `÷ ${root.toFixed(2)}`];
  head.append(...["key", ...products, "exp", "weight"].map((text) => make("th", text, { scope: "col" })));
  lines.push(head);
  const rows = everything ? found : found.slice(0, FIRST);
  for (const { key, z, weight } of rows) lines.push(line(key, z, highest, weight, key === lit));
  const others = n - rows.length;
  if (others) {
    const held = 1 - rows.reduce((whole, { weight }) => whole + weight, 0);
    const rest = make("tr", undefined, { class: "rest" });
    rest.append(make("td", `${others} more`), make("td"), make("td"), make("td", (sum * Math.max(0, held)).toFixed(3)), make("td", percent(Math.max(0, held))));
    lines.push(rest);
  }
  const last = make("tr", undefined, { class: "sum" });
  last.append(make("td", "sum"), make("td"), make("td"), make("td", sum.toFixed(3)), make("td", "100 %"));
  lines.push(last);
  document.querySelector("#worked table").replaceChildren(...lines);
  tellQuery(query, highest);
  const more = document.getElementById("more");
  more.hidden = found.length <= FIRST;
  more.textContent = everything ? "Show fewer" : `Show all ${found.length}`;
}

function tellQuery(query, highest) {
  document.querySelector("#worked h3").replaceChildren("The query ", name(query), `, layer ${state.layer + 1}, head ${state.head + 1}`);
  document.querySelector("#worked .formula").replaceChildren(given.relative ? "weight = exp(score) ÷ sum. A score is q·k and what the distance of both tokens adds, divided by a root. The largest score has been taken off each." : `weight = exp(q·k ÷ √${given.size}) ÷ sum. In the column exp the largest score, ${signed(highest, 2)}, is taken off first, so that nothing grows too large.`);
}

function line(key, z, highest, weight, lit) {
  const tr = make("tr", undefined, lit ? { class: "lit" } : {});
  const first = make("td");
  first.append(name(key));
  const share = make("td", undefined, { class: "weight" });
  const both = make("span");
  const track = make("i");
  const bar = make("b");
  bar.style.width = `${(100 * weight).toFixed(1)}%`;
  track.append(bar);
  both.append(track, percent(weight));
  share.append(both);
  const products = given.relative ? ["", signed(z - highest, 2)] : [signed(z * root, 2), signed(z, 2)];
  tr.append(first, ...products.map((text) => make("td", text)), make("td", Math.exp(z - highest).toFixed(3)), share);
  return tr;
}

function steerWorked() {
  document.getElementById("more").addEventListener("click", () => {
    everything = !everything;
    draw();
  });
}
