// The page of a ranking: a reader picks measure, gap, colour and filter; the table sorts and picks.
const runs = JSON.parse(document.getElementById("runs").textContent);
const at = (id) => document.getElementById(id);
const columns = runs.columns; // name → a value a run
const many = columns[runs.gaps[0]].length > 5000; // WebGL draws more points, but not everywhere
const fill = (id, names, chosen) => {
  for (const name of names) at(id).add(new Option(name, name, false, name === chosen));
};
fill("measure", runs.measures, runs.measures[0]);
fill("gap", runs.gaps, runs.gaps[0]);
fill("colour", [...runs.settings, ...runs.measures], runs.settings[0]);
fill("setting", runs.settings);

// Plotly reads tags and formulas in texts
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("$", "$\u200b");
const kept = () => {
  const setting = at("setting").value;
  const all = [...columns[runs.gaps[0]].keys()];
  return setting === "" ? all : all.filter((run) => String(columns[setting][run]) === at("value").value);
};

const draw = () => {
  const [measure, gap, colour] = ["measure", "gap", "colour"].map((id) => at(id).value);
  const all = kept();
  const shown = all.filter((run) => columns[measure][run] !== null && columns[gap][run] !== null);
  const hover = shown.map((run) => runs.settings.map((name) => plain(`${name} = ${columns[name][run]}`)).join("<br>"));
  const trace = (members, name, marker) => ({
    type: many ? "scattergl" : "scatter", mode: "markers", name: plain(name), hovertemplate: `%{text}<br>${plain(measure)} = %{x}<br>${plain(gap)} = %{y}<extra></extra>`,
    x: members.map((i) => columns[measure][shown[i]]), y: members.map((i) => columns[gap][shown[i]]),
    text: members.map((i) => hover[i]), marker: { size: 6, opacity: 0.75, ...marker },
  });
  const indices = [...shown.keys()];
  const values = indices.map((i) => columns[colour][shown[i]]);
  const levels = [...new Set(values)].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
  const traces = levels.length <= 12
    ? levels.map((level) => trace(indices.filter((i) => values[i] === level), `${level}`, {}))
    : [trace(indices, colour, { color: values, colorscale: "Viridis", showscale: true, colorbar: { title: { text: plain(colour) } } })];
  const style = getComputedStyle(document.body);
  Plotly.react("plot", traces, {
    margin: { t: 10, r: 10 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: style.color, family: style.fontFamily },
    xaxis: { title: { text: plain(measure) }, type: at("scale").value }, yaxis: { title: { text: plain(gap) } },
    legend: { title: { text: plain(colour) } }, showlegend: levels.length <= 12 && levels.length > 1,
  }, { responsive: true, displayModeBar: false });
  const missing = all.length - shown.length;
  at("said").textContent = `${shown.length} of ${columns[gap].length} runs` + (missing ? `; ${missing} have no value` : "");
  for (const row of document.querySelectorAll("#ranking tbody tr")) row.classList.toggle("chosen", row.dataset.measure === measure);
};

for (const id of ["measure", "gap", "colour", "scale", "value"]) at(id).addEventListener("change", draw);
at("setting").addEventListener("change", () => {
  const setting = at("setting").value;
  at("value").replaceChildren();
  at("value").disabled = setting === "";
  if (setting !== "") fill("value", new Set(columns[setting].map(String)));
  draw();
});

const body = document.querySelector("#ranking tbody");
for (const row of body.rows)
  row.addEventListener("click", () => {
    if (row.classList.contains("control")) return; // no column of the runs
    at("measure").value = row.dataset.measure;
    draw();
  });
const sort = (head) => {
  const column = Number(head.dataset.column);
  const before = head.getAttribute("aria-sort") ?? (column < 2 ? "descending" : "ascending"); // names and ranks rise first
  const up = before === "descending";
  for (const each of document.querySelectorAll("#ranking th.sort")) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.cells[column].dataset.key;
  const order = (a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === ""); // what is not defined comes last
    const [x, y] = [Number(key(a)), Number(key(b))];
    const found = Number.isNaN(x) || Number.isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
    return up ? found : -found;
  };
  body.append(...[...body.rows].sort(order));
};
for (const head of document.querySelectorAll("#ranking th.sort")) {
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head));
}
draw();
