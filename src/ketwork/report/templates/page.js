// Draws the charts, sorts and filters the table, and shows one layer. All numbers come from the record.
const page = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

const theme = at("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
let redress = () => {}; // for what is painted in fixed colours
function dress(dark) {
  theme.setAttribute("aria-pressed", String(dark));
  redress();
}
dress(system.matches);
system.addEventListener("change", () => document.documentElement.dataset.theme || dress(system.matches));
theme.addEventListener("click", () => {
  const dark = theme.getAttribute("aria-pressed") !== "true";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  dress(dark);
});

// The interpreter evaluates Vega's expressions, so that the page needs no permission to run code from strings.
const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true };
async function draw(node, spec, datasets, chosen = {}) {
  const { view } = await window.vegaEmbed(node, { ...spec, datasets: { ...spec.datasets, ...datasets } }, { ...options, ...chosen });
  view.addEventListener("click", (_, item) => item?.datum?.id !== undefined && show(item.datum.id));
}

// A canvas knows no CSS variables: their present colours take their place.
function solid(spec) {
  const style = getComputedStyle(document.body.appendChild(make("span")));
  const colour = (name) => ((document.body.lastChild.style.color = name), style.color);
  const text = JSON.stringify(spec).replace(/var\(--\w+\)/g, colour);
  document.body.lastChild.remove();
  return JSON.parse(text);
}

const layers = page.layers ?? [];
const curve = (layer) => page.details[layer.id].ranks.map((rank, i) => ({
  id: layer.id, label: layer.label, place: layer.place, rank,
  eigenvalue: page.details[layer.id].eigenvalues[i], discarded: page.details[layer.id].discarded[i],
}));
const datasets = { layers, spectra: layers.flatMap(curve), points: page.points ?? [] };
const drawn = [...document.querySelectorAll("[data-chart]")].map((node) => {
  exportable(node, () => [page.charts[node.dataset.chart], datasets]);
  return draw(node, page.charts[node.dataset.chart], datasets);
});

// What is saved: a picture with the colours of the moment on paper, or a table's rows as they stand.
function save(name, url) {
  Object.assign(make("a"), { download: `${document.title.split(" · ")[0]} ${name}`.replace(/[^\p{L}\p{N}.]+/gu, "-"), href: url }).click();
}
function exportable(node, content) {
  const title = node.closest("section").querySelector("h2, h3").textContent;
  const part = node.closest("figure")?.querySelector("h3")?.textContent;
  const name = part ? `${title}: ${part}` : title;
  const button = Object.assign(make("button", "PNG", "save"), { type: "button", title: "Save as PNG" });
  button.setAttribute("aria-label", `Save as PNG: ${name}`);
  button.addEventListener("click", async () => {
    const [spec, data] = content();
    const sheet = { ...solid(spec), title: name, width: node.clientWidth - 80, background: getComputedStyle(document.documentElement).backgroundColor };
    sheet.config = { ...sheet.config, title: { color: getComputedStyle(document.body).color, anchor: "start" } };
    const { view } = await window.vegaEmbed(make("div"), { ...sheet, datasets: { ...sheet.datasets, ...data } }, { ...options, renderer: "canvas" });
    save(`${name}.png`, await view.toImageURL("png", 2));
    view.finalize();
  });
  node.after(button);
}

function cellsOf(measure) {
  const { rows, columns, values, errors } = page.matrices;
  const error = (i, j) => errors[measure]?.[i][j] ?? null;
  const plusMinus = (i, j) => error(i, j) === null ? "" : ` ± ${error(i, j).toFixed(3)}`;
  return values[measure].flatMap((line, i) => line.map((value, j) => ({
    layer: rows[i], other: columns[j], value, text: value === null ? "–" : value.toFixed(3) + plusMinus(i, j),
  })));
}
function drawMatrix(measure) {
  at("measured").setAttribute("popovertarget", `def-${measure}`);
  return draw(at("matrix"), solid(page.charts.matrix), { cells: cellsOf(measure) }, { renderer: "canvas" });
}
if (page.matrices) {
  at("measure").addEventListener("change", () => drawMatrix(at("measure").value));
  redress = () => drawMatrix(at("measure").value);
  drawn.push(redress());
  exportable(at("matrix"), () => [page.charts.matrix, { cells: cellsOf(at("measure").value) }]);
}

const body = document.querySelector("#table tbody");
const number = new Intl.Collator(undefined, { numeric: true });
function compare(a, b) {
  if (a === "" || b === "") return 0;
  return isNaN(a) || isNaN(b) ? number.compare(a, b) : a - b;
}
for (const button of document.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const up = head.getAttribute("aria-sort") === "descending" || (head.getAttribute("aria-sort") === "none" && head.classList.contains("words"));
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.children[button.dataset.column].dataset.value;
    const sorted = [...body.rows].sort((a, b) => (key(a) === "") - (key(b) === "") || (up ? 1 : -1) * compare(key(a), key(b)));
    body.append(...sorted);
  });
}
at("filter")?.addEventListener("input", ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  for (const row of body.rows) row.hidden = !row.dataset.words.includes(wanted);
  at("count").value = `${[...body.rows].filter((row) => !row.hidden).length} of ${body.rows.length}`;
});
for (const row of body?.rows ?? []) row.dataset.words = [...row.querySelectorAll(".words")].map((cell) => cell.textContent).join(" ").toLowerCase();

// Columns: as many as the width has room for, the most important first, until the reader chooses others.
const table = at("table");
if (table) {
  for (const node of document.querySelectorAll(".scripted")) node.hidden = false;
  const heads = [...table.tHead.rows[0].cells];
  const lines = [...table.rows];
  const titles = heads.map((head) => head.querySelector(".sort").textContent);
  const visible = (i) => !heads[i].classList.contains("gone");
  const set = (i, on) => {
    for (const line of lines) line.cells[i].classList.toggle("gone", !on);
    boxes[i].checked = on;
  };
  const boxes = titles.map((title, i) => {
    const label = make("label", title);
    const box = Object.assign(make("input"), { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      chosen = true;
      set(i, box.checked);
    });
    label.prepend(box);
    if (i > 1) at("columns").append(label);
    return box;
  });
  let chosen = false;
  const fit = () => {
    if (chosen) return;
    const frame = table.parentNode;
    heads.forEach((_, i) => set(i, true));
    const order = heads.map((head, i) => [Number(head.dataset.rank), i]).filter(([rank]) => rank > 0).sort((a, b) => b[0] - a[0] || b[1] - a[1]);
    for (const [, i] of order) {
      if (frame.scrollWidth <= frame.clientWidth) break;
      set(i, false);
    }
  };
  const every = Object.assign(make("button", "all", "pick"), { type: "button" });
  const fitting = Object.assign(make("button", "what fits", "pick"), { type: "button" });
  every.addEventListener("click", () => ((chosen = true), heads.forEach((_, i) => set(i, true))));
  fitting.addEventListener("click", () => ((chosen = false), fit()));
  at("columns").append(every, fitting);
  fit();
  addEventListener("resize", fit);
  at("csv").addEventListener("click", () => {
    const quoted = (text) => `"${text.replace(/\s+/g, " ").trim().replaceAll('"', '""')}"`;
    const shown = [...body.rows].filter((row) => !row.hidden);
    const errors = titles.map((_, i) => shown.some((row) => row.cells[i].querySelector(".error")));
    const cells = (row) => titles.flatMap((_, i) => {
      const { value } = row.cells[i].dataset;
      const error = row.cells[i].querySelector(".error")?.textContent.replace("±", "").trim() ?? "";
      return visible(i) ? [isNaN(value) || value === "" ? quoted(value) : value, ...(errors[i] ? [error] : [])] : [];
    });
    const head = titles.flatMap((title, i) => {
      const unit = heads[i].querySelector(".unit").firstChild?.textContent.trim();
      const name = unit ? `${title} (${unit})` : title;
      return visible(i) ? [quoted(name), ...(errors[i] ? [quoted(`${name} ±`)] : [])] : [];
    });
    const text = [head, ...shown.map(cells)].map((line) => line.join(",")).join("\r\n");
    save("layers.csv", URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" })));
  });
}

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      document.execCommand("copy"); // where the page has no right to the clipboard
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

const dialog = at("layer");
if (dialog) {
  document.addEventListener("click", (event) => {
    const { target } = event;
    const named = target.closest("[data-layer]");
    if (named) {
      event.preventDefault();
      show(Number(named.dataset.layer));
    }
    if (target === dialog) dialog.close();
  });
  at("close").addEventListener("click", () => dialog.close());
  at("before").addEventListener("click", () => show(current - 1));
  at("after").addEventListener("click", () => show(current + 1));
  dialog.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft") show(current - 1);
    if (key === "ArrowRight") show(current + 1);
  });
}

let current;
function show(id) {
  if (!layers[id]) return;
  current = id;
  const layer = layers[id];
  const detail = page.details[id];
  at("layer-name").textContent = layer.label;
  at("layer-summary").textContent = detail.summary;
  at("layer-place").textContent = `${id + 1} of ${layers.length}`;
  at("before").disabled = id === 0;
  at("after").disabled = id === layers.length - 1;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  at("layer-spectrum").hidden = detail.ranks.length === 0;
  at("spectrum-caption").textContent = detail.spectrum ?? "";
  if (detail.ranks.length) draw(at("spectrum"), page.layerCharts.spectrum, { one: curve(layer).map(({ id, ...rest }) => rest) });
  showConfusion(detail.confusion);
  showBall(detail.ball);
  at("numbers").replaceChildren(...page.quantities.filter(({ name }) => layer[`${name}_text`]).map(({ name, title, unit, definition }) => {
    const entry = make("details");
    const head = make("summary");
    head.append(make("span", title), make("span", `${layer[`${name}_text`]} ${unit}`.trim()));
    entry.append(head, make("p", definition));
    return entry;
  }));
}

function showConfusion(confusion) {
  at("layer-confusion").hidden = !confusion;
  if (!confusion) return;
  const counts = confusion.counts ?? confusion.worst;
  const kinds = Object.keys(counts);
  const pick = (kind) => {
    for (const button of at("readouts").children) button.setAttribute("aria-pressed", String(button.textContent.startsWith(kind)));
    if (confusion.worst) {
      const list = make("ul");
      list.append(...counts[kind].map(({ label, read, count }) => make("li", `${label} classified as ${read}: ${count}`)));
      at("confusion").replaceChildren(make("p", "The commonest errors:"), list);
      return;
    }
    const small = confusion.labels.length <= 14;
    const cells = counts[kind].flatMap((line, i) => line.map((count, j) => ({
      label: confusion.labels[i], read: confusion.labels[j], count, small,
      share: count / Math.max(1, line.reduce((a, b) => a + b, 0)),
    })));
    draw(at("confusion"), { ...page.layerCharts.confusion, height: 24 * confusion.labels.length }, { confusion: cells });
  };
  at("readouts").replaceChildren(...kinds.map((kind) => {
    const button = Object.assign(make("button", kind === "linear" ? "linear probe" : `${kind} measurement`, "pick"), { type: "button" });
    button.addEventListener("click", () => pick(kind));
    return button;
  }));
  pick(kinds[0]);
}

function showBall(ball) {
  at("layer-ball").hidden = !ball;
  if (!ball) return;
  const point = (name, [x, y, z], label) => ({ name, x, y, z, label, own: label === undefined });
  const states = [point("the layer's state", ball.own), ...ball.labels.map(([name, vector]) => point(`label ${name}`, vector, name))];
  draw(at("ball"), page.layerCharts.ball, { states, kets: ball.kets.map((vector) => point("a vector (ket)", vector)) });
  at("ball-caption").textContent = ball.caption;
}

Promise.all(drawn).then(() => { document.documentElement.dataset.ready = ""; });
