// What is shown follows from the document and from `view`, which the URL's fragment holds.

let view, experiment, table, chart;

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
