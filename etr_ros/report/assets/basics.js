// Shared by all scripts of the page: the data, the choice of the reader, and small tools.
// Whatever comes from the data becomes text or a number, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const spots = data.spots, entries = data.entries;
const byId = (id) => document.getElementById(id);

const VERDICTS = {
  wrong: { text: "wrong", long: "accepted, but wrong" },
  right: { text: "right", long: "accepted, and right" },
  missed: { text: "missed", long: "rejected, although the place was seen before" },
  unknown: { text: "not judged", long: "the truth is not known" },
  rejected: { text: "rejected", long: "rejected, and nothing was lost by it" },
};

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}
const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// The shape of a verdict around (0, 0): disc, cross, diamond, triangle, ring
function symbol(verdict, r) {
  const paths = {
    wrong: `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
    missed: `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0Z`,
    unknown: `M0,${-1.2 * r}L${1.2 * r},${r}L${-1.2 * r},${r}Z`,
  };
  if (verdict in paths) return svg("path", { d: paths[verdict], class: verdict === "missed" ? "mark hollow" : "mark" });
  return verdict === "right" ? svg("circle", { r, class: "mark" }) : svg("circle", { r: 0.6 * r, class: "mark hollow" });
}
const icon = (verdict) =>
  svg("svg", { class: `symbol ${verdict}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, symbol(verdict, 5));

function number(value, digits) {
  return value === undefined || value === null ? "–" : value.toFixed(digits).replace("-", "−");
}
function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

// Rows of cells as a table; a cell that is a number is aligned to the right
function table(columns, rows) {
  const isNumber = columns.map((_, c) => rows.every((row) => row[c] === "–" || /^[−\d.\s%°m]+$/.test(row[c])));
  const kind = (c) => ({ class: isNumber[c] ? "number" : null });
  return html("table", {},
    html("thead", {}, html("tr", {}, ...columns.map((name, c) => html("th", { scope: "col", ...kind(c) }, name)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell, c) => html("td", kind(c), cell))))));
}

// What the reader chose; `choose` tells everyone who listens
const choice = { verdicts: new Set(), answers: new Set(), states: new Set(), text: "", selected: null, layout: null };
const listeners = [];
function choose(changes) {
  Object.assign(choice, changes);
  for (const listener of listeners) listener(changes);
}

const stateOf = (entry) => spots[entry.q].state || "unknown";
const answerOf = (entry) => (entry.accepted ? "accepted" : "rejected");
const words = entries.map((entry) =>
  [spots[entry.q].name, entry.m === undefined ? "" : spots[entry.m].name, entry.reason || ""].join(" ").toLowerCase());

function isShown(row) {
  const entry = entries[row];
  return choice.verdicts.has(entry.verdict) && choice.answers.has(answerOf(entry)) &&
    choice.states.has(stateOf(entry)) && words[row].includes(choice.text);
}
const shownRows = () => entries.map((_, row) => row).filter(isShown);

function label(row) {
  const entry = entries[row];
  const match = entry.m === undefined ? "no place" : spots[entry.m].name;
  return `${VERDICTS[entry.verdict].text}: at ${clock(spots[entry.q].t)}, ${spots[entry.q].name} and ${match}`;
}

// Draws again when the width changes
function whenResized(node, draw) {
  let width = 0;
  new ResizeObserver((seen) => {
    const now = Math.round(seen[0].contentRect.width);
    if (now && now !== width) draw((width = now));
  }).observe(node);
}
