// The map: the path, and a line with a mark for each pair. Drag or use the wheel with Ctrl to zoom, arrows to walk.
const PAD = 28;
const view = { zoom: 1, x: 0, y: 0, width: 0 };  // x, y: shift in pixels after zooming about the middle
const marks = new Map();  // row of the entry -> its element

function bounds(points) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
  return points.length ? [least(xs), least(ys), most(xs), most(ys)] : [0, 0, 1, 1];
}

// From positions to pixels
function projection(width, height) {
  const now = layout();
  if (now.isTime) {
    const scale = ((width - 2 * PAD) / duration) * view.zoom;
    const rows = [height - 56, 48];
    return { height, scale, to: ([t, row]) => [width / 2 + (t - duration / 2) * scale + view.x, rows[row]] };
  }
  const [x0, y0, x1, y1] = bounds([...now.path, ...now.places]);
  const fit = Math.min((width - 2 * PAD) / Math.max(x1 - x0, 1), (height - 2 * PAD) / Math.max(y1 - y0, 1));
  const scale = fit * view.zoom;
  const to = ([x, y]) => [
    width / 2 + (x - (x0 + x1) / 2) * scale + view.x, height / 2 - (y - (y0 + y1) / 2) * scale + view.y];
  return { height, scale, to };
}

function heightOf(width) {
  if (layout().isTime) return Math.min(420, Math.max(280, width * 0.55));
  const [x0, y0, x1, y1] = bounds([...layout().path, ...layout().places]);
  const ratio = (y1 - y0) / Math.max(x1 - x0, 1e-6);
  return Math.round(Math.min(620, Math.max(260, (width - 2 * PAD) * ratio + 2 * PAD)));
}

const linePath = (points) => "M" + points.map((p) => `${p[0].toFixed(1)},${p[1].toFixed(1)}`).join("L");

function linkPath(a, b, lift) {
  if (!lift) return linePath([a, b]);
  const top = a[1] - Math.min(lift, Math.max(18, Math.abs(b[0] - a[0]) * 0.55));
  return `M${a[0].toFixed(1)},${a[1]}C${a[0].toFixed(1)},${top} ${b[0].toFixed(1)},${top} ${b[0].toFixed(1)},${b[1]}`;
}

function entryMark(row, project) {
  const entry = entries[row], now = layout();
  const from = now.at(spots[entry.q]), to = entry.m === undefined ? null : now.at(spots[entry.m]);
  if (!from) return null;
  const a = project.to(from), b = to && project.to(to);
  const lift = now.isTime && b && b[1] === a[1] ? (project.height - 90) * 1.3 : 0;
  const d = b ? linkPath(a, b, lift) : linePath([a, a]);
  return svg("g", { class: `entry ${entry.verdict}`, id: `e${row}`, role: "option", "aria-label": label(row),
    "aria-selected": "false", "data-row": row },
  entry.verdict === "rejected" ? null : svg("path", { class: "hit", d, fill: "none" }), b && svg("path", { class: "link", d }),
  svg("g", { transform: `translate(${a[0].toFixed(1)} ${a[1].toFixed(1)})` },
    svg("circle", { class: "hit", r: 4 }), symbol(entry.verdict, 4.5)));
}

function scaleBar(project, width) {
  const now = layout(), target = 110 / project.scale;
  const power = 10 ** Math.floor(Math.log10(target));
  const steps = [5, 2, 1].find((step) => step * power <= target) || 1;
  const length = steps * power, pixels = length * project.scale, y = project.height - 14;
  const text = now.isTime ? (length >= 120 ? `${+(length / 60).toFixed(1)} min` : `${+length.toPrecision(1)} s`)
    : (length >= 1 ? `${length} m` : `${Math.round(100 * length)} cm`);
  return svg("g", { "aria-hidden": "true" }, svg("path", { class: "scale", d: `M${width - 16 - pixels},${y - 4}v4h${pixels}v-4` }),
    svg("text", { class: "end", x: width - 22 - pixels, y, "text-anchor": "end" }, text));
}

function background(project) {
  const now = layout();
  if (now.isTime) {
    const line = (row) => svg("path", { class: "path", d: linePath([project.to([0, row]), project.to([duration, row])]) });
    return svg("g", { "aria-hidden": "true" }, line(0), mapSpots.length ? line(1) : null);
  }
  const path = now.path.map(project.to);
  return svg("g", { "aria-hidden": "true" }, ...now.places.map((p) => {
    const [x, y] = project.to(p);
    return svg("circle", { class: "place", r: 2, cx: x.toFixed(1), cy: y.toFixed(1) });
  }), path.length ? svg("path", { class: "path", d: linePath(path) }) : null,
  path.length ? svg("text", { class: "end", x: path[0][0] + 7, y: path[0][1] - 7 }, "start") : null);
}

const ORDER = ["rejected", "missed", "unknown", "right", "wrong"];  // what matters more is drawn later

function drawMap() {
  const width = view.width;
  if (!width) return;
  const project = projection(width, heightOf(width));
  marks.clear();
  const rows = shownRows().sort((a, b) => ORDER.indexOf(entries[a].verdict) - ORDER.indexOf(entries[b].verdict) || a - b);
  for (const row of rows) {
    const mark = entryMark(row, project);
    if (mark) marks.set(row, mark);
  }
  const picture = svg("svg", { viewBox: `0 0 ${width} ${project.height}`, height: project.height, tabindex: 0, role: "listbox",
    "aria-label": "Map of the pairs; arrow keys walk through them, Enter opens one, plus and minus zoom" },
  background(project), svg("g", { role: "presentation" }, ...marks.values()), scaleBar(project, width));
  const before = byId("map").firstChild, hadFocus = before && before === document.activeElement;
  byId("map").replaceChildren(picture);
  if (hadFocus) picture.focus({ preventScroll: true });
  byId("map-caption").textContent = layout().caption;
  markSelected();
}

function markSelected() {
  const picture = byId("map").firstChild;
  if (!picture) return;
  for (const [row, mark] of marks) {
    const isOn = row === choice.selected;
    mark.classList.toggle("on", isOn);
    mark.setAttribute("aria-selected", String(isOn));
    if (isOn) mark.parentNode.append(mark);
  }
  if (marks.has(choice.selected)) picture.setAttribute("aria-activedescendant", `e${choice.selected}`);
  else picture.removeAttribute("aria-activedescendant");
}

function zoomTo(zoom, x, y) {
  const factor = Math.min(60, Math.max(1, zoom)) / view.zoom;
  const height = heightOf(view.width);
  view.x = (view.x - (x - view.width / 2)) * factor + (x - view.width / 2);
  view.y = (view.y - (y - height / 2)) * factor + (y - height / 2);
  view.zoom *= factor;
  if (view.zoom <= 1.001) Object.assign(view, { zoom: 1, x: 0, y: 0 });
  drawMap();
}
const zoomBy = (factor) => zoomTo(view.zoom * factor, view.width / 2, heightOf(view.width) / 2);
const zoomAll = () => zoomTo(1, 0, 0);

// The pair that comes after the selected one in time, among those that are shown
function step(by) {
  const rows = shownRows();
  if (!rows.length) return;
  const at = rows.indexOf(choice.selected);
  choose({ selected: at < 0 ? rows[by > 0 ? 0 : rows.length - 1] : rows[(at + by + rows.length) % rows.length] });
}

function listenToMap() {
  const box = byId("map");
  let drag = null;
  const rowAt = (event) => event.target.closest && event.target.closest("[data-row]");
  box.addEventListener("pointerdown", (event) => (drag = { x: event.clientX, y: event.clientY, moved: false }));
  box.addEventListener("pointermove", (event) => {
    const on = rowAt(event);
    if (!drag && on && event.pointerType === "mouse" && choice.selected !== +on.dataset.row) choose({ selected: +on.dataset.row });
    if (!drag || !event.buttons || event.pointerType === "touch") return;
    const x = event.clientX - drag.x, y = event.clientY - drag.y;
    if (!drag.moved && Math.hypot(x, y) < 5) return;
    view.x += x; view.y += y;
    drag = { x: event.clientX, y: event.clientY, moved: true };
    drawMap();
  });
  box.addEventListener("click", (event) => {
    const on = rowAt(event);
    if (on && !(drag && drag.moved)) openPair(+on.dataset.row);
    drag = null;
  });
  window.addEventListener("pointerup", () => setTimeout(() => (drag = null)));
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const at = box.getBoundingClientRect();
    zoomTo(view.zoom * Math.exp(-event.deltaY / 300), event.clientX - at.left, event.clientY - at.top);
  }, { passive: false });
  box.addEventListener("keydown", (event) => {
    const actions = {
      ArrowRight: () => step(1), ArrowDown: () => step(1), ArrowLeft: () => step(-1), ArrowUp: () => step(-1),
      Enter: () => choice.selected !== null && openPair(choice.selected),
      "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: zoomAll,
    };
    if (event.key in actions && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      actions[event.key]();
    }
  });
  byId("zoom-in").addEventListener("click", () => zoomBy(1.6));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.6));
  byId("zoom-all").addEventListener("click", zoomAll);
}
