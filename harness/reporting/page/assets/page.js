// The page of one profile. What is shown follows from the document and from `view`, which the URL's fragment holds.
const report = JSON.parse(document.getElementById("document").textContent);
const part = (id) => document.getElementById(id);
const STAGES = { train: "Training", export: "Export", latency: "Latency", accuracy: "Accuracy" };
// More warnings than these are folded up.
const FEW = 6;
// A column title of more characters has more room.
const LONG = 40;

let view, experiment, table, chart;

// --- Elements --------------------------------------------------------------------------------------------------------

// An element. Text among its children is text, whatever is in it; attributes and children that are false are left out.
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child || child === 0));
  return made;
}

// The text of a name or a path, which may be broken between its parts.
const foldable = (text) => text.split(/(?<=[_/])/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));

const list = (items) => make("ul", {}, ...items.map((item) => make("li", {}, item)));

// A plain table: the first cell of every line names it.
function plainTable(head, lines) {
  const titles = head.map((text) => make(text ? "th" : "td", { scope: text ? "col" : false }, text));
  const rows = lines.map(([name, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell))),
  );
  return make("table", {}, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, ...rows));
}

// Something that unfolds to all that is in a value, by dotted names.
function unfold(title, value) {
  const pairs = [...flat(value)].flatMap(([path, text]) => [make("dt", {}, path), make("dd", {}, text)]);
  return make("details", {}, make("summary", {}, ...title), make("dl", {}, ...pairs));
}

function* flat(value, path = "") {
  const simple = (one) => one === null || typeof one !== "object";
  if (simple(value)) yield [path, String(value ?? "none")];
  else if (Array.isArray(value) && value.every(simple)) yield [path, value.join(", ") || "none"];
  else for (const [name, inner] of Object.entries(value)) yield* flat(inner, path ? `${path}.${name}` : name);
}

// --- The view, in the URL --------------------------------------------------------------------------------------------

function readView() {
  const given = new URLSearchParams(location.hash.slice(1));
  const named = (things, name) => things.find((one) => one.name === given.get(name)) ?? things[0];
  const chosen = named(report.experiments, "experiment");
  const { name, columns } = named(chosen.tables, "table");
  const [column, direction] = (given.get("sort") ?? "").split(" ");
  const facets = columns.filter((one) => one.facet && given.has(one.name)).map((one) => [one.name, given.get(one.name)]);
  return {
    experiment: chosen.name,
    table: name,
    sort: columns.some((one) => one.name === column) && { column, direction: direction === "desc" ? "desc" : "asc" },
    search: given.get("search") ?? "",
    facets: Object.fromEntries(facets),
    row: given.get("row"),
  };
}

function address({ experiment, table, sort, search, facets, row }) {
  const said = new URLSearchParams({ experiment, table, ...facets });
  if (sort) said.set("sort", `${sort.column} ${sort.direction}`);
  if (search) said.set("search", search);
  if (row) said.set("row", row);
  return `#${said}`;
}

// Takes note of a change that the page already shows.
function note(change) {
  Object.assign(view, change);
  history.replaceState(null, "", address(view));
}

function show() {
  view = readView();
  experiment = report.experiments.find((one) => one.name === view.experiment);
  const tables = experiment.tables;
  showLinks("experiments", report.experiments, view.experiment, (name) => ({ experiment: name, table: "models" }));
  showLinks("views", tables, view.table, (name) => ({ experiment: view.experiment, table: name }));
  part("experiment").textContent = experiment.title;
  part("says").textContent = [experiment.says, experiment.stands_for].filter(Boolean).join(" ");
  part("made").replaceChildren(list(experiment.lines));
  part("reading").replaceChildren(list(experiment.reading));
  showChart();
  showTable();
}

function showLinks(id, things, current, target) {
  const links = things.map(({ name, title }) =>
    make("a", { href: address(target(name)), "aria-current": name === current && "true" }, title),
  );
  part(id).replaceChildren(...links);
  part(id).hidden = things.length < 2;
}

// --- The table -------------------------------------------------------------------------------------------------------

const shown = () => experiment.tables.find((one) => one.name === view.table);
const rowName = (row) => row.models.join(" ");
const findings = (model) => experiment.findings[model] ?? [];
const fails = (row) => row.models.some((model) => findings(model).some((one) => one.severity === "error"));

// What is missing comes last, whichever way the others are sorted.
const figure = (text, missing) => (text === "" ? missing : Number(text));
DataTable.ext.type.order["figure-asc"] = (one, two) => figure(one, Infinity) - figure(two, Infinity) || 0;
DataTable.ext.type.order["figure-desc"] = (one, two) => figure(two, -Infinity) - figure(one, -Infinity) || 0;

function showTable() {
  const { columns, rows } = shown();
  const head = columns.map(({ sources, header }) =>
    make("th", { scope: "col", class: headClass(sources, header) }, header.replace("Δ ", "Δ\u00a0")),
  );
  const body = rows.map((row, at) =>
    make("tr", { "data-at": at, class: fails(row) && "failed" }, nameCell(row), ...figureCells(row, columns)),
  );
  const drawn = make("table", { id: "models" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  table?.destroy();
  part("scroller").replaceChildren(drawn);
  showFilters(columns, rows);
  table = new DataTable(drawn, {
    paging: false,
    autoWidth: false,
    order: view.sort ? [[columns.findIndex((one) => one.name === view.sort.column), view.sort.direction]] : [],
    columns: columns.map(({ sources }) => ({ orderSequence: ["asc", "desc"], ...(sources && { type: "figure" }) })),
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    language: { zeroRecords: "No model matches." },
  });
  table.on("order", () => {
    // a table that is not sorted yet says so as well
    const [[at, direction] = []] = table.order();
    note({ sort: at !== undefined && { column: columns[at].name, direction } });
  });
  table.on("draw", showCount);
  applyFilters();
  if (view.row) openRow(view.row)?.scrollIntoView({ block: "center" });
}

function nameCell(row) {
  const [text] = row.cells[0];
  const opens = { type: "button", class: "open", "aria-expanded": "false", "data-row": rowName(row) };
  const seeds = row.models.length > 1 && ` (${row.models.length} seeds)`;
  return make("th", { scope: "row", "data-search": text }, make("button", opens, ...foldable(text)), seeds);
}

// Few words share a line in a header, so that more columns have room; a title of many words would be too high.
const headClass = (sources, header) => [sources && "figure", header.length > LONG && "long"].filter(Boolean).join(" ");

// A cell is its text, its value, and the bounds of that.
function figureCells(row, columns) {
  return row.cells.slice(1).map(([text, value], at) =>
    make("td", columns[at + 1].sources ? { class: "figure", "data-order": value ?? "" } : { "data-search": text }, text),
  );
}

// The rows that match, in the order that they are shown in.
function visible() {
  const lines = table.rows({ search: "applied", order: "applied" }).nodes().toArray();
  return lines.map((line) => shown().rows[line.dataset.at]);
}

function showFilters(columns, rows) {
  const search = make("input", { type: "search", value: view.search, autocomplete: "off" });
  search.addEventListener("input", () => {
    note({ search: search.value });
    applyFilters();
  });
  const selects = columns.map((column, at) => {
    const values = [...new Set(rows.map((row) => row.cells[at][0]))].sort();
    return column.facet && values.length > 1 && make("label", {}, column.header, facet(column.name, values));
  });
  const buttons = [["CSV", "text/csv", asCsv], ["JSON", "application/json", asJson]].map(([kind, type, text]) => {
    const button = make("button", { type: "button" }, `Download ${kind}`);
    button.addEventListener("click", () => save(kind.toLowerCase(), type, text()));
    return button;
  });
  part("filters").replaceChildren(make("label", {}, "Search", search), ...selects.filter(Boolean), ...buttons);
}

function facet(name, values) {
  const chosen = view.facets[name] ?? "";
  const options = ["", ...values].map((value) => make("option", { value, selected: value === chosen }, value || "all"));
  const select = make("select", {}, ...options);
  select.addEventListener("change", () => {
    const { [name]: _, ...others } = view.facets;
    note({ facets: select.value ? { ...others, [name]: select.value } : others });
    applyFilters();
  });
  return select;
}

function applyFilters() {
  shown().columns.forEach(({ facet, name }, at) => {
    if (facet) table.column(at).search(view.facets[name] ?? "", { exact: name in view.facets });
  });
  table.search(view.search).draw();
}

function showCount() {
  const rows = visible();
  part("count").textContent = `${rows.length} of ${shown().rows.length} rows. Open a name to see where its figures come from.`;
  fadeChart(new Set(rows.flatMap((row) => row.models)));
}

// --- Where a row comes from ------------------------------------------------------------------------------------------

const settingsOf = (key) => report.shared[report.settings[key].own];
const hashesOf = (record) => report.shared[record.hashes];
const circumstances = (record) => report.shared[record.circumstances];

// Opens a row, and closes any other; returns its button, or nothing where there is no such row.
function openRow(name) {
  const button = part("scroller").querySelector(`.open[data-row="${CSS.escape(name)}"]`);
  if (!button) return undefined;
  closeRow();
  const line = button.closest("tr");
  table.row(line).child(origin(name.split(" ")), "opened").show();
  // a row that the filters hide stays hidden
  if (line.nextElementSibling) line.nextElementSibling.id = "opened";
  button.setAttribute("aria-expanded", "true");
  note({ row: name });
  return button;
}

function closeRow() {
  for (const button of part("scroller").querySelectorAll(".open[aria-expanded=true]")) {
    table.row(button.closest("tr")).child.remove();
    button.setAttribute("aria-expanded", "false");
  }
  note({ row: null });
}

part("scroller").addEventListener("click", ({ target }) => {
  const button = target.closest(".open");
  if (button?.getAttribute("aria-expanded") === "true") closeRow();
  else if (button) openRow(button.dataset.row);
});

function origin(models) {
  const within = (title, ...content) => [make("h3", {}, title), ...content];
  if (models.length > 1) return make("div", { class: "origin" }, ...within("Its trainings", list(models.map(linkTo))));
  const model = report.models[models[0]];
  const records = Object.entries(model.records);
  return make(
    "div",
    { class: "origin" },
    ...within("Checks", checks(models[0])),
    ...within("Records, from the trained weights to the figures", recordsTable(records)),
    ...within("Settings, each stage with its key", ...settings(model.key, records)),
    ...within("More from the records", ...records.map(([name, record]) => more(name, record))),
  );
}

function linkTo(model) {
  const target = { experiment: view.experiment, table: "models", row: model };
  return make("a", { href: address(target) }, report.models[model].title);
}

function checks(model) {
  const found = findings(model).map(({ severity, check, stage, reason, remedy }) => {
    const title = make("strong", { class: severity }, `${severity}: ${check}`);
    return make("span", {}, title, ` (${stage}): ${reason}. `, make("em", {}, "What to do: "), remedy);
  });
  return found.length ? list(found) : make("p", {}, `All ${report.checks.length} checks passed.`);
}

function stageName(name, record) {
  if (name in STAGES) return STAGES[name];
  const { threads } = circumstances(record);
  const under = `${instructionSet(record)} instruction set, ${threads} thread${threads === 1 ? "" : "s"}`;
  return `Latency, ${settingsOf(record.key).engine}, ${under}`;
}

// Whose instruction set the engine saw, and how that was done; nothing for stages that have none.
function instructionSet(record) {
  const { isa } = settingsOf(record.key);
  const way = circumstances(record).instruction_set?.way;
  if (!isa || isa === "host") return isa && "the host's";
  return `the ${isa}'s${way ? ` (${way})` : ""}`;
}

function recordsTable(records) {
  if (!records.length) return make("p", {}, "There are none that stand.");
  const lines = records.map(([name, record]) => {
    const { device, cpu, image } = circumstances(record).environment;
    const hashes = Object.entries(hashesOf(record)).map(([what, hash]) => {
      const short = make("code", { title: hash }, hash.slice(0, 12));
      return make("div", {}, `${what.replace("_sha256", "").replaceAll("_", " ")} `, short);
    });
    return [
      make("span", {}, stageName(name, record), make("br"), make("a", { href: record.file, class: "key" }, ...foldable(record.file))),
      make("code", {}, record.key),
      make("span", {}, ...hashes),
      device ?? cpu ?? "unknown",
      instructionSet(record) ?? "—",
      image ? make("code", {}, String(image)) : "none",
      `${record.finished_at.slice(0, 10)}, ${record.seconds.toFixed(0)} s`,
    ];
  });
  const head = ["Stage and record", "Key", "SHA-256 of", "Host", "Instruction set", "Image", "Made"];
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Records" }, plainTable(head, lines));
}

// The stages from the teacher to the model file, and then the measurements of it.
function settings(last, records) {
  const stages = [];
  for (let key = last; key; key = report.settings[key].parent) stages.unshift([settingsOf(key).kind, key]);
  const measured = records.filter(([name]) => name !== "train" && name !== "export");
  stages.push(...measured.map(([name, record]) => [stageName(name, record), record.key]));
  return stages.map(([name, key]) => {
    const { kind: _, ...own } = settingsOf(key);
    const { parent } = report.settings[key];
    const title = [`${name[0].toUpperCase()}${name.slice(1)} `, make("code", {}, key)];
    return unfold(title, { ...own, ...(parent && { "made from": parent }) });
  });
}

function more(name, record) {
  const { hashes: _, circumstances: __, ...told } = record;
  return unfold([stageName(name, record)], { ...told, ...hashesOf(record), ...circumstances(record) });
}

// --- The chart -------------------------------------------------------------------------------------------------------

function showChart() {
  if (chart?.of === experiment.name) return;
  chart?.view?.finalize();
  const drawing = { of: experiment.name, points: experiment.picture?.data.values ?? [] };
  chart = drawing;
  const place = part("chart");
  place.replaceChildren();
  place.hidden = !experiment.picture;
  if (place.hidden) return ready();
  place.setAttribute("aria-label", `${experiment.title}: accuracy against latency ratio, as in the table that follows`);
  const specification = structuredClone(experiment.picture);
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    // without eval, which the page's policy forbids
    ast: true,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
    patch: (compiled) => ({ ...compiled, marks: [...compiled.marks, ...specification.usermeta.marks] }),
  };
  vegaEmbed(place, specification, options).then(({ view: drawn }) => {
    // another experiment has been chosen in the meantime
    if (drawing !== chart) return drawn.finalize();
    drawing.view = drawn;
    // the picture is described as a whole, and its figures are in the table
    place.querySelector("svg").setAttribute("aria-hidden", "true");
    drawn.addEventListener("click", (_, item) => item?.datum?.models && openFromChart(item.datum.models));
    showCount();
    return ready();
  });
}

// The chart follows the width of its place, which changes with the window and with the scroll bar; Vega hears of the
// window only.
new ResizeObserver(() => window.dispatchEvent(new Event("resize"))).observe(part("chart"));

// Tells those who wait that all is drawn.
function ready() {
  document.documentElement.dataset.ready = "true";
}

// Leaves the marks pale of models that the table does not show.
function fadeChart(seen) {
  const values = chart.points.map((point) => ({ ...point, hidden: !point.models.some((model) => seen.has(model)) }));
  chart.view?.data("points", values).runAsync();
}

function openFromChart(models) {
  const wanted = { experiment: view.experiment, table: models.length > 1 ? "means" : "models", row: models.join(" ") };
  if (view.table === wanted.table) openRow(wanted.row)?.focus();
  else location.hash = address(wanted);
}

// --- Downloads: what is shown, in its order, unrounded ---------------------------------------------------------------

function asCsv() {
  const { columns, rows } = shown();
  const bounded = columns.map((_, at) => rows.some((row) => row.cells[at].length > 2));
  const names = columns.flatMap(({ name }, at) => (bounded[at] ? [name, `${name}_low`, `${name}_high`] : [name]));
  const values = ([text, ...figures], at) => {
    if (!columns[at].sources) return [text];
    return bounded[at] ? [figures[0], figures[1], figures[2]] : [figures[0]];
  };
  const lines = visible().map((row) => [rowName(row), ...row.cells.flatMap(values)]);
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [["id", ...names], ...lines].map((line) => `${line.map((one) => quoted(String(one ?? "")))}\r\n`).join("");
}

function asJson() {
  const { columns } = shown();
  const value = ([text, value, low, high], { sources }) => {
    if (!sources) return text;
    return low === undefined ? (value ?? null) : { value, low, high };
  };
  const rows = visible().map((row) => ({
    models: row.models,
    ...Object.fromEntries(row.cells.map((cell, at) => [columns[at].name, value(cell, columns[at])])),
  }));
  const { experiment, table } = view;
  return `${JSON.stringify({ profile: report.profile, experiment, table, rows }, null, 1)}\n`;
}

function save(extension, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: `${report.profile}-${view.experiment}-${view.table}.${extension}` }).click();
  URL.revokeObjectURL(url);
}

// --- What is the same in every view ----------------------------------------------------------------------------------

function showWarnings() {
  const said = new Map();
  for (const { title, warnings } of report.experiments) {
    for (const text of warnings) said.set(text, [...(said.get(text) ?? []), title]);
  }
  const everywhere = report.experiments.length;
  const lines = [...said].map(([text, of]) => (of.length < everywhere ? `${of.join("; ")}: ${text}` : text));
  if (lines.length) {
    const title = make("summary", {}, `${lines.length} warning${lines.length === 1 ? "" : "s"}`);
    part("warnings").className = "some";
    part("warnings").append(make("details", { open: lines.length <= FEW }, title, list(lines)));
  } else {
    part("warnings").append(`No warnings: every row has its figures and passes all ${report.checks.length} checks.`);
  }
}

part("title").textContent = `Accuracy and latency, profile ${report.profile}`;
part("network").textContent = report.network;
part("filters").addEventListener("submit", (event) => event.preventDefault());
part("machines").append(plainTable(["", "Measured on", "Meant for"], report.machines));
part("machines").hidden = !report.machines.length;
showWarnings();
show();
window.addEventListener("hashchange", show);
