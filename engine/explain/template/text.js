// The answer, and the text shaded by what leaving each word out changes.

function drawAnswer() {
  const verdict = document.getElementById("verdict");
  given.labels.forEach(([label, score], i) => {
    const line = make("div");
    line.append(make("bdi", label), make("span", given.regression ? signed(score, 3) : percent(score)));
    if (i === given.best) line.className = "best";
    verdict.append(line);
  });
  const text = document.getElementById("text");
  const most = Math.max(given.regression ? 1e-6 : 0.02, ...given.texts.flat().map(([, change]) => Math.abs(change ?? 0)));
  for (const pieces of given.texts) {
    const line = make("p", undefined, { dir: "auto" });
    for (const [piece, change] of pieces) {
      const span = make("span", legible(piece));
      if (change !== null) {
        span.className = "word";
        span.style.backgroundColor = `rgba(var(--${change < 0 ? "against" : "for"}), ${(0.75 * Math.abs(change) / most).toFixed(3)})`;
        const tell = () => tellEffect(piece, change);
        span.addEventListener("pointerenter", tell);
        span.addEventListener("focus", tell);
      }
      line.append(span);
    }
    text.append(line);
  }
  const words = Array.from(text.querySelectorAll(".word"));
  rove(text, () => words, 1);
  document.getElementById("legend").hidden = !words.length;
  document.getElementById("effect").textContent = words.length ? hint() : "Leaving words out was not asked for.";
}

function hint() {
  const together = given.together ? "In a text of this length a few words are left out together. " : "";
  return `${together}Shaded: what leaving a word out does to ${visible(given.labels[given.best][0])}.`;
}

function tellEffect(piece, change) {
  const effect = document.getElementById("effect");
  const label = visible(given.labels[given.best][0]);
  const amount = given.regression ? `by ${signed(-change, 3)}` : `by ${signed(-100 * change, 1)} points`;
  effect.replaceChildren("Without ", make("bdi", `“${visible(piece)}”`), `, ${label} changes ${amount}.`);
}
