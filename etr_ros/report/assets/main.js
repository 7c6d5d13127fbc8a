// Filters, and who listens to them.
function chips(id, name, values, chosen) {
  const counts = new Map(values.map((value) => [value.key, entries.filter((entry) => value.of(entry) === value.key).length]));
  for (const value of values) {
    if (!counts.get(value.key)) continue;
    chosen.add(value.key);
    const box = html("input", { type: "checkbox", name, value: value.key, checked: true });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(value.key);
      else chosen.delete(value.key);
      choose({ filtered: true });
    });
    byId(id).append(html("label", { class: "chip", title: value.title }, box, value.icon, value.text,
      html("span", { class: "n" }, String(counts.get(value.key)))));
  }
  if (byId(id).querySelectorAll("input").length < 2) byId(id).hidden = true;
}

function makeFilters() {
  chips("verdicts", "verdict", Object.entries(VERDICTS).map(([key, { text, long }]) =>
    ({ key, text, title: long, icon: icon(key), of: (entry) => entry.verdict })), choice.verdicts);
  chips("answers", "answer", ["accepted", "rejected"].map((key) => ({ key, text: key, of: answerOf })), choice.answers);
  chips("states", "state", ["localized", "ambiguous", "unknown"].map((key) => ({ key, text: key, of: stateOf })), choice.states);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("input", () => choose({ text: byId("text").value.trim().toLowerCase(), filtered: true }));
  byId("reset").addEventListener("click", () => {
    byId("text").value = "";
    for (const box of byId("filters").querySelectorAll("input[type=checkbox]")) {
      box.checked = true;
      choice[`${box.name}s`].add(box.value);
    }
    choose({ text: "", filtered: true });
    byId("text").focus();
  });
}

function makeLayouts() {
  const buttons = LAYOUTS.map((each) => {
    const made = html("button", { type: "button", role: "radio" }, each.name);
    made.addEventListener("click", () => pick(each.id));
    return made;
  });
  const pick = (id) => {
    buttons.forEach((button, i) => {
      const isOn = LAYOUTS[i].id === id;
      button.setAttribute("aria-checked", String(isOn));
      button.tabIndex = isOn ? 0 : -1;
    });
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    choose({ layout: id });
  };
  byId("layouts").append(...buttons);
  byId("layouts").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = (LAYOUTS.findIndex((each) => each.id === choice.layout) + by + LAYOUTS.length) % LAYOUTS.length;
    pick(LAYOUTS[next].id);
    buttons[next].focus();
  });
  pick(LAYOUTS[0].id);
}

makeFilters();
makeLayouts();
listeners.push((changes) => {
  if ("filtered" in changes) drawList();
  if ("filtered" in changes || "layout" in changes) drawMap();
  if ("selected" in changes) {
    markSelected();
    tabStop();
    showInList(choice.selected);
  }
});
listenToMap();
listenToList();
listenToPair();
drawList();
whenResized(byId("map"), (width) => {
  view.width = width;
  drawMap();
});
drawPrecisionRecall();
drawReliability();
drawLatency();
drawSimilarity();
document.documentElement.dataset.ready = "true";
