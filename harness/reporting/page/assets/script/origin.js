// Where a row comes from: what it opens to.

const STAGES = { train: "Training", export: "Export", latency: "Latency", accuracy: "Accuracy" };

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
