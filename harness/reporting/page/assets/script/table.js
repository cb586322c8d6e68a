// The table of an experiment: sorted, filtered, with a row that is open.

// A column title of more characters has more room.
const LONG = 40;

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
    columns[at + 1].sources
      ? make("td", { class: "figure", "data-order": value ?? "" }, text)
      : make("td", { "data-search": text }, make("div", { class: "text" }, text)),
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
