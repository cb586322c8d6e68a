// Downloads: what is shown, in its order, unrounded.

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
