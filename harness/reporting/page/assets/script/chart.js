// The chart of an experiment.

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
