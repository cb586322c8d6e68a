// The page of one profile. What is shown is a function of the document and of `view`, which the URL's fragment holds.
const report = JSON.parse(document.getElementById("document").textContent);
const part = (id) => document.getElementById(id);
const STAGES = { train: "Training", export: "Export", latency: "Latency", accuracy: "Accuracy" };

let view, experiment, table, chart;

// An element; text among its children is text, whatever is in it.
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// --- The view, in the URL --------------------------------------------------------------------------------------------

function readView() {
  const given = new URLSearchParams(location.hash.slice(1));
  const chosen = report.experiments.find((one) => one.name === given.get("experiment")) ?? report.experiments[0];
  const shown = chosen.tables.find((one) => one.name === given.get("table")) ?? chosen.tables[0];
  const facets = shown.columns.filter((column) => column.facet && given.has(column.name));
  const [column, direction] = (given.get("sort") ?? "").split(" ");
  return {
    experiment: chosen.name,
    table: shown.name,
    sort: shown.columns.some((one) => one.name === column) ? { column, direction: direction ?? "asc" } : null,
    search: given.get("search") ?? "",
    facets: Object.fromEntries(facets.map((one) => [one.name, given.get(one.name)])),
    row: given.get("row"),
  };
}

function address(of) {
  const said = new URLSearchParams({ experiment: of.experiment, table: of.table, ...of.facets });
  if (of.sort) said.set("sort", `${of.sort.column} ${of.sort.direction}`);
  if (of.search) said.set("search", of.search);
  if (of.row) said.set("row", of.row);
  return `#${said}`;
}

// Notes a change that the page already shows.
function note(change) {
  Object.assign(view, change);
  history.replaceState(null, "", address(view));
}

function show() {
  view = readView();
  experiment = report.experiments.find((one) => one.name === view.experiment);
  links("experiments", report.experiments, (one) => ({ experiment: one.name, table: one.tables[0].name }), "experiment");
  links("views", experiment.tables, (one) => ({ experiment: experiment.name, table: one.name }), "table");
  part("experiment").textContent = experiment.title;
  part("says").textContent = [experiment.says, experiment.stands_for].filter(Boolean).join(" ");
  part("lines").replaceChildren(...experiment.lines.map((line) => make("li", {}, line)));
  part("reading").replaceChildren(...experiment.reading.map((line) => make("li", {}, line)));
  showChart();
  showTable();
}

function links(id, things, target, current) {
  const made = things.map((one) =>
    make("a", { href: address({ facets: {}, ...target(one) }), "aria-current": one.name === view[current] && "true" }, one.title));
  part(id).replaceChildren(...made);
  part(id).hidden = things.length < 2;
}

// --- The table -------------------------------------------------------------------------------------------------------

const shownTable = () => experiment.tables.find((one) => one.name === view.table);
const number = (text, missing) => (text === "" ? missing : Number(text));
// What is missing comes last, whichever way the others are sorted.
DataTable.ext.type.order["figure-asc"] = (one, other) => number(one, Infinity) - number(other, Infinity) || 0;
DataTable.ext.type.order["figure-desc"] = (one, other) => number(other, -Infinity) - number(one, -Infinity) || 0;

function showTable() {
  const { columns, rows } = shownTable();
  table?.destroy();
  const head = columns.map((column) => make("th", { scope: "col", class: column.sources && "figure" }, column.header));
  const body = rows.map((row, at) =>
    make("tr", { "data-at": at, class: isFailed(row) && "failed" }, ...row.cells.map((cell, column) => drawCell(row, cell, columns[column], column))));
  const drawn = make("table", { id: "models" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  part("scroller").replaceChildren(drawn);
  showFilters(columns, rows);
  table = new DataTable(drawn, {
    paging: false,
    autoWidth: false,
    order: view.sort ? [[columns.findIndex((one) => one.name === view.sort.column), view.sort.direction]] : [],
    columns: columns.map((column) => ({ orderSequence: ["asc", "desc"], ...(column.sources && { type: "figure" }) })),
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    language: { zeroRecords: "No model matches." },
  });
  table.on("order", () => {
    const [at, direction] = table.order()[0] ?? [];
    note({ sort: at === undefined ? null : { column: columns[at].name, direction } });
  });
  table.on("draw", showCount);
  applyFilters();
  if (view.row) open(view.row)?.scrollIntoView({ block: "center" });
}

// A cell is its text, its value, and the bounds of that.
function drawCell(row, [text, value], column, at) {
  const properties = column.sources ? { class: "figure", "data-order": value ?? "" } : { "data-search": text };
  const mean = row.models.length > 1;
  const content = at > 0 ? text : make("button", { type: "button", class: "open", "aria-expanded": "false", "data-row": rowName(row) }, text);
  return make(at > 0 ? "td" : "th", { ...properties, scope: at === 0 && "row" }, content, mean && at === 0 ? ` (${row.models.length} seeds)` : null);
}

const rowName = (row) => row.models.join(" ");
const isFailed = (row) => row.models.some((model) => (experiment.findings[model] ?? []).some((one) => one.severity === "error"));
const visible = () => table.rows({ search: "applied", order: "applied" }).nodes().toArray().map((node) => shownTable().rows[node.dataset.at]);

function showFilters(columns, rows) {
  const search = make("input", { type: "search", value: view.search, autocomplete: "off" });
  search.addEventListener("input", () => { note({ search: search.value }); applyFilters(); });
  const choices = columns.map((column, at) => ({ column, values: [...new Set(rows.map((row) => row.cells[at][0]))].sort() }));
  const selects = choices.filter(({ column, values }) => column.facet && values.length > 1).map(({ column, values }) => {
    const select = make("select", {}, ...["", ...values].map((value) => make("option", { value, selected: value === (view.facets[column.name] ?? "") }, value || "all")));
    select.addEventListener("change", () => {
      const { [column.name]: _, ...others } = view.facets;
      note({ facets: select.value ? { ...others, [column.name]: select.value } : others });
      applyFilters();
    });
    return make("label", {}, column.header, select);
  });
  const csv = make("button", { type: "button" }, "Download CSV");
  csv.addEventListener("click", () => save("csv", "text/csv", asCsv()));
  const json = make("button", { type: "button" }, "Download JSON");
  json.addEventListener("click", () => save("json", "application/json", asJson()));
  part("filters").replaceChildren(make("label", {}, "Search", search), ...selects, csv, json);
}

function applyFilters() {
  const { columns } = shownTable();
  columns.forEach((column, at) => {
    if (column.facet) table.column(at).search(view.facets[column.name] ?? "", { exact: Boolean(view.facets[column.name]) });
  });
  table.search(view.search).draw();
}

function showCount() {
  const { rows } = shownTable();
  const seen = visible();
  part("count").textContent = `${seen.length} of ${rows.length} rows. A name opens where its figures come from.`;
  fadeChart(new Set(seen.flatMap((row) => row.models)));
}

// --- Where a row comes from ------------------------------------------------------------------------------------------

function open(name) {
  const button = part("scroller").querySelector(`.open[data-row="${CSS.escape(name)}"]`);
  if (!button) return;
  close();
  const line = table.row(button.closest("tr"));
  line.child(origin(name.split(" ")), "opened").show();
  button.closest("tr").nextElementSibling.id = "opened";
  button.setAttribute("aria-expanded", "true");
  button.setAttribute("aria-controls", "opened");
  note({ row: name });
  return button;
}

function close() {
  for (const button of part("scroller").querySelectorAll(".open[aria-expanded=true]")) {
    table.row(button.closest("tr")).child.remove();
    button.setAttribute("aria-expanded", "false");
    button.removeAttribute("aria-controls");
  }
  note({ row: null });
}

part("scroller").addEventListener("click", (event) => {
  const button = event.target.closest(".open");
  if (!button) return;
  if (button.getAttribute("aria-expanded") === "true") close();
  else open(button.dataset.row);
});

function origin(models) {
  if (models.length > 1) return make("div", { class: "origin" }, make("h3", {}, "Its trainings"), make("ul", {}, ...models.map(linkTo)));
  const [id] = models;
  const model = report.models[id];
  return make("div", { class: "origin" },
    make("h3", {}, "Checks"), checks(id),
    make("h3", {}, "Records, from the trained weights to the figures"), records(model),
    make("h3", {}, "Settings, each stage with its key"), ...settings(model),
    make("h3", {}, "More from the records"), ...Object.entries(model.records).map(([name, record]) => more(name, record)));
}

function linkTo(id) {
  const { title } = report.models[id];
  return make("li", {}, make("a", { href: address({ experiment: experiment.name, table: "models", facets: {}, row: id }) }, title));
}

function checks(id) {
  const found = experiment.findings[id] ?? [];
  if (!found.length) return make("p", {}, `All ${report.checks.length} checks passed.`);
  return make("ul", {}, ...found.map((one) =>
    make("li", {}, make("strong", { class: one.severity === "error" ? "bad" : "warn" }, `${one.severity}: ${one.check}`), ` (${one.stage}): ${one.reason}. `, make("em", {}, "What to do: "), one.remedy)));
}

const settingsOf = (key) => report.shared[report.settings[key].own];
const hashesOf = (record) => report.shared[record.hashes];
const circumstances = (record) => report.shared[record.circumstances];

function stageName(name, record) {
  return name in STAGES ? STAGES[name] : `Latency, ${settingsOf(record.key).engine}, ${instructionSet(record)} instruction set, ${circumstances(record).threads} thread${circumstances(record).threads === 1 ? "" : "s"}`;
}

function instructionSet(record) {
  const { isa } = settingsOf(record.key);
  if (!isa) return "";
  const way = circumstances(record).instruction_set?.way;
  return isa === "host" ? "the host's" : `the ${isa}'s${way && way !== "none" ? ` (${way})` : ""}`;
}

function records(model) {
  const rows = Object.entries(model.records).map(([name, record]) => {
    const where = circumstances(record).environment;
    const hashes = Object.entries(hashesOf(record)).map(([what, hash]) => make("div", {}, `${what.replace("_sha256", "").replaceAll("_", " ")} `, make("code", { title: hash }, hash.slice(0, 12))));
    return make("tr", {},
      make("th", { scope: "row" }, stageName(name, record), make("div", {}, make("a", { href: record.file, class: "key" }, record.file))),
      make("td", {}, make("code", {}, record.key)), make("td", {}, ...hashes),
      make("td", {}, where.device ?? where.cpu ?? "unknown"), make("td", {}, instructionSet(record) || "—"),
      make("td", {}, where.image ? make("code", {}, String(where.image)) : "none"),
      make("td", {}, record.finished_at.slice(0, 10), make("div", { class: "faint" }, `${record.seconds.toFixed(0)} s`)));
  });
  if (!rows.length) return make("p", {}, "There are none that stand.");
  const head = ["Stage and record", "Key", "SHA-256 of", "Host", "Instruction set", "Image", "Made"].map((text) => make("th", { scope: "col" }, text));
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Records" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
}

// The stages from the teacher to the file, then the measurements of it.
function settings(model) {
  const lineage = [];
  for (let key = model.key; key; key = report.settings[key].parent) lineage.unshift(key);
  const measured = Object.entries(model.records).filter(([name]) => name !== "train" && name !== "export");
  const named = [...lineage.map((key) => [settingsOf(key).kind, key]), ...measured.map(([name, record]) => [stageName(name, record), record.key])];
  return named.map(([name, key]) => {
    const { kind: _, ...own } = settingsOf(key);
    const { parent } = report.settings[key];
    const title = name[0].toUpperCase() + name.slice(1);
    return unfold(make("summary", {}, `${title} `, make("code", {}, key)), { ...own, ...(parent && { "made from": parent }) });
  });
}

function more(name, record) {
  const { hashes: _, circumstances: __, ...told } = record;
  return unfold(make("summary", {}, stageName(name, record)), { ...told, ...hashesOf(record), ...circumstances(record) });
}

function unfold(summary, value) {
  const pairs = [...flat(value)].flatMap(([path, text]) => [make("dt", {}, path), make("dd", {}, text)]);
  return make("details", {}, summary, make("dl", {}, ...pairs));
}

function* flat(value, path = "") {
  const whole = value === null || typeof value !== "object";
  const plain = Array.isArray(value) && value.every((one) => one === null || typeof one !== "object");
  if (whole || plain) yield [path, plain ? value.join(", ") || "none" : String(value ?? "none")];
  else for (const [name, inner] of Object.entries(value)) yield* flat(inner, path ? `${path}.${name}` : name);
}

// --- The chart -------------------------------------------------------------------------------------------------------

function showChart() {
  if (chart?.of === experiment.name) return;
  chart?.view?.finalize();
  chart = { of: experiment.name, points: [] };
  const spec = structuredClone(experiment.picture);
  part("chart").className = spec ? "" : "none";
  part("chart").replaceChildren();
  if (!spec) return ready();
  const drawing = chart;
  chart.points = spec.data.values;
  part("chart").setAttribute("role", "img");
  part("chart").setAttribute("aria-label", `${experiment.title}: accuracy against latency ratio. The table below has the same figures.`);
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true },
    patch: (compiled) => ({ ...compiled, marks: [...compiled.marks, ...spec.usermeta.marks] }),
  };
  vegaEmbed(part("chart"), spec, options).then(({ view: drawn }) => {
    if (drawing !== chart) return drawn.finalize();
    chart.view = drawn;
    // the picture is described as a whole, and its figures are in the table
    part("chart").querySelector("svg").setAttribute("aria-hidden", "true");
    drawn.addEventListener("click", (_, item) => item?.datum?.models && openFromChart(item.datum.models));
    if (table) showCount();
    ready();
  });
}

// For those who wait until all is drawn.
function ready() {
  document.documentElement.dataset.ready = "true";
}

// Marks of models that the table does not show.
function fadeChart(seen) {
  if (!chart.view) return;
  const values = chart.points.map((point) => ({ ...point, hidden: !point.models.some((model) => seen.has(model)) }));
  chart.view.data("points", values).runAsync();
}

function openFromChart(models) {
  const wanted = models.length > 1 ? "means" : "models";
  if (view.table !== wanted) {
    location.hash = address({ experiment: view.experiment, table: wanted, facets: {}, row: models.join(" ") });
  } else open(models.join(" "))?.focus();
}

// --- Downloads -------------------------------------------------------------------------------------------------------

function asCsv() {
  const { columns, rows } = shownTable();
  const wide = columns.map((_, at) => rows.some((row) => row.cells[at].length > 2));
  const names = columns.flatMap(({ name }, at) => (wide[at] ? [name, `${name}_low`, `${name}_high`] : [name]));
  const parts = ([text, value, low, high], at) => (columns[at].sources ? [value, low, high].slice(0, wide[at] ? 3 : 1) : [text]);
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = visible().map((row) => [rowName(row), ...row.cells.flatMap(parts)]);
  return [["id", ...names], ...lines].map((line) => line.map((value) => quoted(String(value ?? ""))).join(",") + "\r\n").join("");
}

function asJson() {
  const { columns } = shownTable();
  const told = ([text, value, low, high], column) => (!column.sources ? text : low === undefined ? (value ?? null) : { value, low, high });
  const rows = visible().map((row) => ({
    models: row.models,
    ...Object.fromEntries(row.cells.map((cell, at) => [columns[at].name, told(cell, columns[at])])),
  }));
  return JSON.stringify({ profile: report.profile, experiment: view.experiment, table: view.table, rows }, null, 1) + "\n";
}

function save(extension, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: `${report.profile}-${view.experiment}-${view.table}.${extension}` }).click();
  URL.revokeObjectURL(url);
}

// --- What stays ------------------------------------------------------------------------------------------------------

function showWarnings() {
  const said = new Map();
  for (const one of report.experiments) for (const text of one.warnings) said.set(text, [...(said.get(text) ?? []), one.title]);
  const lines = [...said].map(([text, titles]) => make("li", {}, titles.length < report.experiments.length ? `${titles.join("; ")}: ${text}` : text));
  if (!lines.length) {
    part("warnings").append(make("p", {}, `No warnings: every row has its figures and passes all ${report.checks.length} checks.`));
  } else {
    part("warnings").className = "some";
    const title = make("summary", {}, `${lines.length} warning${lines.length === 1 ? "" : "s"}`);
    part("warnings").append(make("details", { open: lines.length <= 6 }, title, make("ul", {}, ...lines)));
  }
}

function showMachines() {
  if (!report.machines.length) return part("machines").remove();
  const head = ["", "Measured on", "Meant for"].map((text, at) => make(at ? "th" : "td", { scope: at > 0 && "col" }, text));
  const lines = report.machines.map(([fact, host, target]) => make("tr", {}, make("th", { scope: "row" }, fact), make("td", {}, host), make("td", {}, target)));
  part("machines").append(make("h2", { id: "machines-title" }, "Host and target"), make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines)));
}

part("title").textContent = `Accuracy and latency, profile ${report.profile}`;
part("network").textContent = report.network;
part("filters").addEventListener("submit", (event) => event.preventDefault());
showWarnings();
showMachines();
show();
window.addEventListener("hashchange", show);
