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
for (const name of runs.settings)
  for (const value of new Set(columns[name])) at("settings").append(new Option(`${name}=${value}`));

// "a=1 b=2": runs with a = 1 and b = 2; a term that no setting fits keeps nothing
const kept = () => {
  const terms = at("filter").value.split(/\s+/).filter((term) => term.includes("="));
  return [...columns[runs.gaps[0]].keys()].filter((run) =>
    terms.every((term) => {
      const [name, value] = [term.slice(0, term.indexOf("=")), term.slice(term.indexOf("=") + 1)];
      const full = runs.settings.find((each) => each === name || each.endsWith(`.${name}`));
      return full !== undefined && String(columns[full][run]) === value;
    }));
};

const draw = () => {
  const [measure, gap, colour] = ["measure", "gap", "colour"].map((id) => at(id).value);
  const all = kept();
  const shown = all.filter((run) => columns[measure][run] !== null && columns[gap][run] !== null);
  const hover = shown.map((run) => runs.settings.map((name) => `${name} = ${columns[name][run]}`).join("<br>"));
  const trace = (members, name, marker) => ({
    type: many ? "scattergl" : "scatter", mode: "markers", name, hovertemplate: `%{text}<br>${measure} = %{x}<br>${gap} = %{y}<extra></extra>`,
    x: members.map((i) => columns[measure][shown[i]]), y: members.map((i) => columns[gap][shown[i]]),
    text: members.map((i) => hover[i]), marker: { size: 6, opacity: 0.75, ...marker },
  });
  const indices = [...shown.keys()];
  const values = indices.map((i) => columns[colour][shown[i]]);
  const levels = [...new Set(values)].sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
  const traces = levels.length <= 12
    ? levels.map((level) => trace(indices.filter((i) => values[i] === level), `${level}`, {}))
    : [trace(indices, colour, { color: values, colorscale: "Viridis", showscale: true, colorbar: { title: { text: colour } } })];
  const style = getComputedStyle(document.body);
  Plotly.react("plot", traces, {
    margin: { t: 10, r: 10 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: style.color, family: style.fontFamily },
    xaxis: { title: { text: measure }, type: at("scale").value }, yaxis: { title: { text: gap } },
    legend: { title: { text: colour } }, showlegend: levels.length <= 12 && levels.length > 1,
  }, { responsive: true, displayModeBar: false });
  const missing = all.length - shown.length;
  at("said").textContent = `${shown.length} of ${columns[gap].length} runs` + (missing ? `; ${missing} have no value` : "");
  for (const row of document.querySelectorAll("#ranking tbody tr")) row.classList.toggle("chosen", row.dataset.measure === measure);
};

for (const id of ["measure", "gap", "colour", "scale"]) at(id).addEventListener("change", draw);
at("filter").addEventListener("input", draw);

const body = document.querySelector("#ranking tbody");
for (const row of body.rows)
  row.addEventListener("click", () => {
    at("measure").value = row.dataset.measure;
    draw();
  });
const sort = (head) => {
  const column = Number(head.dataset.column), up = head.getAttribute("aria-sort") !== "ascending";
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
