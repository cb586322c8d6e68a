// What is the same in every view; and the first view.

// More warnings than these are folded up.
const FEW = 6;

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
