// Elements of the page, made from data.

const report = JSON.parse(document.getElementById("document").textContent);
const part = (id) => document.getElementById(id);

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
