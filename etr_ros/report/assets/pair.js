// One pair: both pictures with the local matches that agree, and all that is known of it.
const DRAWN_W = 480;
let opened = null;  // row of the entry

function decoded(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function loadSize(image) {
  return new Promise((done) => {
    const probe = new Image();
    probe.onload = () => done([probe.naturalWidth, probe.naturalHeight]);
    probe.onerror = () => done([4, 3]);
    probe.src = image;
  });
}

const source = (spot) => (data.pictures[spot] ? `data:image/jpeg;base64,${data.pictures[spot]}` : null);

// Side by side where there is room, else one above the other
async function drawPictures(row, node, withLines) {
  const entry = entries[row];
  const both = [source(entry.q), entry.m === undefined ? null : source(entry.m)];
  const sizes = await Promise.all(both.map((image) => (image ? loadSize(image) : Promise.resolve([4, 3]))));
  if (opened !== row) return;
  const heights = sizes.map(([w, h]) => (DRAWN_W * h) / w), below = node.clientWidth < 560;
  const gap = 10, line = 22;
  const at = below ? [[0, line], [0, heights[0] + gap + 2 * line]] : [[0, line], [DRAWN_W + gap, line]];
  const width = below ? DRAWN_W : 2 * DRAWN_W + gap;
  const height = below ? heights[0] + heights[1] + gap + 2 * line : Math.max(...heights) + line;
  const names = ["picture", "taken for"];
  const parts = both.map((image, side) => svg("g", { transform: `translate(${at[side][0]} ${at[side][1]})` },
    svg("text", { x: 0, y: -7 }, names[side]),
    image ? svg("image", { href: image, width: DRAWN_W, height: heights[side] })
      : svg("rect", { width: DRAWN_W, height: heights[side] }),
    image ? null : svg("text", { x: DRAWN_W / 2, y: heights[side] / 2, "text-anchor": "middle" }, "no picture is kept")));
  const bytes = withLines && entry.lines ? decoded(entry.lines) : [];
  const lines = svg("g", { "aria-hidden": "true" });
  for (let i = 0; i + 3 < bytes.length; i += 4) {
    const point = (side) => [at[side][0] + (bytes[i + 2 * side] / data.grid) * DRAWN_W,
      at[side][1] + (bytes[i + 2 * side + 1] / data.grid) * heights[side]];
    const [a, b] = [point(0), point(1)];
    lines.append(svg("path", { class: "agree", d: linePath([a, b]) }),
      ...[a, b].map(([cx, cy]) => svg("circle", { class: "key", r: 2.4, cx: cx.toFixed(1), cy: cy.toFixed(1) })));
  }
  node.replaceChildren(svg("svg", { class: "pictures", viewBox: `0 0 ${width} ${Math.round(height)}`, role: "img",
    "aria-label": `${spots[entry.q].name} and ${entry.m === undefined ? "no place" : spots[entry.m].name}` }, ...parts, lines));
}

function pairFacts(entry) {
  const match = entry.m === undefined ? null : spots[entry.m], found = entry.geometry;
  const when = (spot) => (spot.t === undefined ? spot.name : `${clock(spot.t)}  (${spot.name})`);
  const rows = [["Picture at", when(spots[entry.q])], ["Taken for", match ? when(match) : "–"]];
  if (match && match.session) rows.push(["Session of the place", match.session]);
  if (spots[entry.q].state) rows.push(["State", spots[entry.q].state]);
  rows.push(["Match probability", number(entry.probability, 3)], ["ETR score", number(entry.etr, 2)],
    ["Retrieval score (cosine)", number(entry.retrieval, 3)]);
  if (entry.support !== undefined) rows.push(["Neighbouring pictures that agree", String(entry.support)]);
  if (found) {
    rows.push(["Inliers of local matches", `${found.inliers} of ${found.matches}`],
      ["They spread over", `${number(100 * (found.coverage || 0), 0)} % of the picture`]);
    if (found.degeneracy) rows.push(["Less certain, as", found.degeneracy]);
  }
  if (entry.apart) rows.push(["True places are apart", `${number(entry.apart[0], 2)} m, ${number(entry.apart[1], 0)}°`]);
  if (entry.off) rows.push(["Relative pose is off by", `${number(100 * entry.off[0], 1)} cm, ${number(entry.off[1], 2)}°`]);
  return html("table", {}, html("tbody", {}, ...rows.map(([name, value]) =>
    html("tr", {}, html("th", { scope: "row" }, name), html("td", {}, value)))));
}

function poseTable(found) {
  if (!found || !found.pose) return null;
  const axes = ["x", "y", "z", "rot x", "rot y", "rot z"];
  const unit = (axis) => (axis > 2 ? "°" : found.metric ? " m" : "");
  const rows = axes.map((name, axis) => [name, number(found.pose[axis], 3) + unit(axis),
    found.sigma ? number(found.sigma[axis], 3) + unit(axis) : "–"]);
  const made = table(["Relative pose", "Value", "σ"], rows);
  return html("div", {}, made, found.metric ? null : html("p", { class: "recorded" }, "Not metric: the position is a direction."));
}

function candidateTable(entry) {
  const rows = (entry.candidates || []).map(([name, retrieval, etr, probability, inliers, why]) =>
    [name, number(retrieval, 3), number(etr, 2), number(probability, 2), number(inliers, 0), why]);
  if (!rows.length) return null;
  const made = html("details", {}, html("summary", {}, `The best ${rows.length} candidates of this picture`),
    html("div", { class: "scroll" }, table(["Place", "Cosine", "ETR", "Prob.", "Inliers", "Answer"], rows)));
  return made;
}

function showPair(row) {
  opened = row;
  const entry = entries[row], rows = shownRows(), at = rows.indexOf(row);
  const pictures = html("div", {});
  const lines = html("input", { type: "checkbox", checked: true });
  lines.addEventListener("change", () => drawPictures(row, pictures, lines.checked));
  const drawn = entry.agree === undefined ? null : decoded(entry.lines || "").length / 4;
  const told = drawn === null ? null : html("label", { class: "switch" }, lines,
    `${entry.agree} of ${entry.matches} local matches agree with one epipolar geometry` +
    (drawn < entry.agree ? `, ${drawn} are drawn` : ""));
  const button = (text, name, act) => {
    const made = html("button", { type: "button", "aria-label": name, title: name }, text);
    made.addEventListener("click", act);
    return made;
  };
  const count = at < 0 ? "" : `${at + 1} of ${rows.length}`;
  byId("pair").replaceChildren(
    html("div", { class: "pair-head" },
      html("h2", { id: "pair-title" }, icon(entry.verdict), html("span", {}, VERDICTS[entry.verdict].long),
        html("span", { class: "of" }, count)),
      button("‹", "Previous pair", () => walk(-1)), button("›", "Next pair", () => walk(1)),
      button("✕", "Close", () => byId("pair").close())),
    html("div", { class: "pair-body" },
      entry.reason ? html("p", { class: "why" }, `Rejected: ${entry.reason}.`) : null, pictures, told,
      html("div", { class: "facts" }, pairFacts(entry), poseTable(entry.geometry)), candidateTable(entry)));
  drawPictures(row, pictures, true);
}

function openPair(row) {
  choose({ selected: row });
  showPair(row);
  const dialog = byId("pair");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function walk(by) {
  const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
  step(by);
  showPair(choice.selected);
  const again = focused && [...byId("pair").querySelectorAll("button")].find((b) => b.getAttribute("aria-label") === focused);
  if (again) again.focus();
}

function listenToPair() {
  const dialog = byId("pair");
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && event.target.type !== "checkbox") {
      event.preventDefault();
      walk(by);
    }
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => (opened = null));
}
