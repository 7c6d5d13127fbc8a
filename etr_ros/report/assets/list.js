// The pairs as a table: the other way to read the map, and for screen readers the first.
const listRows = new Map();  // row of the entry -> its <tr>

function listRow(row) {
  const entry = entries[row], match = entry.m === undefined ? null : spots[entry.m];
  const other = match ? (match.t === undefined ? match.name : clock(match.t)) : "–";
  const button = html("button", { type: "button", tabindex: -1, title: spots[entry.q].name }, clock(spots[entry.q].t));
  const inliers = entry.geometry ? entry.geometry.inliers : undefined;
  const made = html("tr", { "data-row": row },
    html("td", {}, icon(entry.verdict), html("span", { class: "hide" }, VERDICTS[entry.verdict].text)),
    html("td", { class: "number" }, button),
    html("td", {}, other, entry.reason ? html("span", { class: "why" }, entry.reason) : null),
    html("td", { class: "number" }, number(entry.probability, 2)),
    html("td", { class: "number" }, number(inliers, 0)));
  listRows.set(row, made);
  return made;
}

function drawList() {
  listRows.clear();
  const rows = shownRows();
  const head = ["", "Picture", data.mode === "loops" ? "Taken for" : "Place", "Prob.", "Inliers"];
  const isNumber = [false, true, false, true, true];
  const content = rows.length ? html("table", { "aria-label": "Pairs" },
    html("thead", {}, html("tr", {}, ...head.map((name, c) =>
      html("th", { scope: "col", class: isNumber[c] ? "number" : null }, name || html("span", { class: "hide" }, "Verdict"))))),
    html("tbody", {}, ...rows.map(listRow)))
    : html("p", { class: "none" }, entries.length ? "No pair passes the filters." : "No pairs: nothing was recognised, and nothing was missed.");
  byId("list").replaceChildren(content);
  const kinds = data.mode === "loops" ? "pairs" : "answers";
  byId("count").textContent = rows.length === entries.length ? `${entries.length} ${kinds}` : `${rows.length} of ${entries.length} ${kinds}`;
  byId("reset").hidden = rows.length === entries.length;
  tabStop();
}

// One row can be reached by Tab: the selected one, or the first
function tabStop() {
  const stop = listRows.has(choice.selected) ? choice.selected : listRows.keys().next().value;
  for (const [row, made] of listRows) {
    made.classList.toggle("on", row === choice.selected);
    made.querySelector("button").tabIndex = row === stop ? 0 : -1;
  }
}

function showInList(row) {
  const made = listRows.get(row), box = byId("list");
  if (!made) return;
  const top = made.offsetTop - 40, bottom = made.offsetTop + made.offsetHeight;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

function listenToList() {
  const box = byId("list");
  box.addEventListener("click", (event) => {
    const made = event.target.closest("[data-row]");
    if (made) openPair(+made.dataset.row);
  });
  box.addEventListener("focusin", (event) => {
    const made = event.target.closest("[data-row]");
    if (made && choice.selected !== +made.dataset.row) choose({ selected: +made.dataset.row });
  });
  box.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
    const made = listRows.get(choice.selected);
    if (made) made.querySelector("button").focus();
  });
}
