// Charts: axes of our own in pixels, so that text stays readable at any width; each has its numbers as a table.
function ticks(low, high, count) {
  const span = Math.max(high - low, 1e-9), power = 10 ** Math.floor(Math.log10(span / count));
  const size = [1, 2, 5, 10].map((s) => s * power).find((s) => span / s <= count);
  const first = Math.ceil(low / size - 1e-9);
  return Array.from({ length: Math.floor(high / size + 1e-9) - first + 1 }, (_, i) => (first + i) * size);
}

function axes(width, height, x, y) {
  const marks = ticks(y.low, y.high, 5).map((v) => [v, y.text(v)]);
  const left = 30 + 7.5 * Math.max(...marks.map(([, text]) => text.length)), right = 12, top = 10, bottom = 44;
  const toX = (v) => left + ((v - x.low) / (x.high - x.low)) * (width - left - right);
  const toY = (v) => height - bottom - ((v - y.low) / (y.high - y.low)) * (height - top - bottom);
  const lines = svg("g", { "aria-hidden": "true" });
  for (const v of ticks(x.low, x.high, Math.max(3, Math.floor(width / 90)))) {
    lines.append(svg("text", { x: toX(v), y: height - bottom + 18, "text-anchor": "middle" }, x.text(v)));
  }
  for (const [v, text] of marks) {
    lines.append(svg("path", { class: "grid", d: `M${left},${toY(v)}H${width - right}` }),
      svg("text", { x: left - 8, y: toY(v) + 4, "text-anchor": "end" }, text));
  }
  lines.append(svg("path", { class: "axis", d: `M${left},${toY(y.low)}H${width - right}` }),
    svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.name),
    svg("text", { transform: `translate(12 ${(height - bottom + top) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.name));
  return { lines, toX, toY };
}

function chart(id, title, caption, description, height, draw, numbers) {
  const box = html("div", {});
  byId(id).replaceChildren(html("h3", {}, title), box, html("figcaption", {}, caption));
  if (numbers) {
    byId(id).append(html("details", {}, html("summary", {}, "The numbers"), html("div", { class: "scroll" }, numbers())));
  }
  whenResized(box, (width) => {
    const h = typeof height === "function" ? height(width) : height;
    const made = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${h}`, height: h, role: "img", "aria-label": description });
    made.append(...draw(width, h));
    box.replaceChildren(made);
  });
}

const percent = (v) => `${Math.round(100 * v)}`;
const share = (name) => ({ low: 0, high: 1, text: percent, name });

function drawPrecisionRecall() {
  if (!data.pr.length) return;
  const areas = data.pr.map((c) => `${c.label} ${number(c.area, 3)}`).join(", ");
  chart("pr", "Precision and recall of the first candidate", `Area below the curve: ${areas}. Neighbouring pictures and odometry are not asked here.`,
    `Precision-recall curve. Area below it: ${areas}`, 320, (width, height) => {
      const { lines, toX, toY } = axes(width, height, share("recall, %"), share("precision, %"));
      const curves = data.pr.map((curve, i) => {
        let d = `M${toX(0)},${toY(curve.points[0][1])}`;
        for (const [recall, precision] of curve.points) d += `L${toX(recall).toFixed(1)},${toY(precision).toFixed(1)}`;
        return svg("path", { class: i ? "two-line" : "one", d });
      });
      const names = data.pr.map((curve, i) => {
        const x = toX(0) + 12, y = toY(0) - 14 - 18 * (data.pr.length - 1 - i);
        return svg("g", {}, svg("path", { class: i ? "two-line" : "one", d: `M${x},${y - 4}h22` }),
          svg("text", { class: i ? "second" : "first", x: x + 30, y }, curve.label));
      });
      return [lines, ...curves, ...names];
    }, () => html("div", {}, ...data.pr.map((curve) => {
      const every = Math.max(1, Math.ceil(curve.points.length / 20));
      const rows = curve.points.filter((_, i) => i % every === 0 || i === curve.points.length - 1)
        .map(([recall, precision, from]) => [number(100 * recall, 1), number(100 * precision, 1), number(from, 3)]);
      return html("div", {}, html("h3", {}, curve.label), table(["Recall, %", "Precision, %", `From ${curve.confidence}`], rows));
    })));
}

function drawReliability() {
  const bins = data.reliability;
  if (!bins.length) return;
  const most = Math.max(...bins.map((bin) => bin[2]));
  chart("reliability", "Reliability of the probability",
    "A point on the diagonal means that the probability is honest. The bars show how many pictures stand behind a point.",
    "Reliability diagram: probability against the share that is correct", 320, (width, height) => {
      const { lines, toX, toY } = axes(width, height, share("match probability, %"), share("correct, %"));
      const bars = bins.map(([p, , n]) => {
        const bin = Math.min(9, Math.max(0, Math.ceil(10 * p) - 1)), x = toX(bin / 10) + 1;
        return svg("rect", { class: "bar-count", x, width: toX(0.1) - toX(0) - 2, y: toY((n / most) * 0.5),
          height: toY(0) - toY((n / most) * 0.5) });
      });
      const points = bins.map(([p, correct]) => [toX(p), toY(correct)]);
      return [...bars, lines, svg("path", { class: "ideal", d: `M${toX(0)},${toY(0)}L${toX(1)},${toY(1)}` }),
        svg("path", { class: "one", d: linePath(points) }),
        ...points.map(([cx, cy]) => svg("circle", { class: "dot", r: 4, cx, cy }))];
    }, () => table(["Probability, %", "Correct, %", "Pictures"],
      bins.map(([p, correct, n]) => [number(100 * p, 1), number(100 * correct, 1), String(n)])));
}

function drawLatency() {
  const timed = queries.filter((spot) => spot.ms !== undefined), total = data.times.total;
  if (!timed.length || !total) return;
  const most = Math.max(...timed.map((spot) => spot.ms)), unit = most > 2000 ? ["s", 1000] : ["ms", 1];
  const high = (most / unit[1]) * 1.05;
  const text = `median ${number(total.p50, 0)} ms, 90 % within ${number(total.p90, 0)} ms, 99 % within ${number(total.p99, 0)} ms`;
  chart("latency", "Time per picture", `The dashed line is the median. All stages together: ${text}.`, `Time per picture over the recording: ${text}`,
    240, (width, height) => {
      const isLong = duration > 300;
      const x = { low: 0, high: duration, text: (v) => String(+(isLong ? v / 60 : v).toFixed(1)), name: `time in the recording, ${isLong ? "min" : "s"}` };
      const { lines, toX, toY } = axes(width, height, x, { low: 0, high, text: (v) => String(+v.toFixed(1)), name: unit[0] });
      const points = timed.map((spot) => [toX(spot.t), toY(spot.ms / unit[1])]);
      return [lines, ...points.map(([cx, cy]) => svg("circle", { class: "dot", r: points.length > 400 ? 1.6 : 2.2, cx: cx.toFixed(1), cy: cy.toFixed(1) })),
        svg("path", { class: "ideal", d: `M${toX(0)},${toY(total.p50 / unit[1])}H${toX(duration)}` })];
    });
}

function drawSimilarity() {
  const matrix = data.similarity;
  if (!matrix) {
    byId("similarity").replaceChildren(html("p", { class: "none" }, "No pictures are kept with this result."));
    return;
  }
  const across = matrix.of_map ? "place of the map, by number" : "picture, by number";
  const caption = `Cosine of the global descriptors, dark ${matrix.low}, bright ${matrix.high}. Rings are accepted pairs.` +
    (matrix.of_map ? "" : " A bright line beside the diagonal is a stretch that was driven again.");
  chart("similarity", matrix.of_map ? "Pictures and places of the map" : "Every picture with every other", caption,
    `Similarity matrix of ${matrix.rows} pictures and ${matrix.columns} places`,
    (width) => 54 + (width - 64) * Math.min(1.2, Math.max(0.3, matrix.rows / matrix.columns)), (width, height) => {
      const x = { low: 0, high: matrix.columns, text: String, name: across };
      const { lines, toX, toY } = axes(width, height, x, { low: 0, high: matrix.rows, text: String, name: "picture, by number" });
      const top = toY(matrix.rows);
      const rings = entries.filter((e) => e.accepted && e.m !== undefined && (spots[e.m].t === undefined) === matrix.of_map)
        .map((e) => svg("circle", { class: `ring ${e.verdict}`, r: 3, cx: toX(spots[e.m].id + 0.5), cy: toY(spots[e.q].id + 0.5) }));
      const picture = svg("image", { href: `data:image/png;base64,${matrix.png}`, x: toX(0), y: top, width: toX(matrix.columns) - toX(0),
        height: toY(0) - top, preserveAspectRatio: "none",
        transform: `translate(0 ${top + toY(0)}) scale(1 -1)` });
      return [picture, lines, ...rings];
    });
}
