// The page: panels at their places, drawn from what Prometheus answered. `DATA` is put in front by draw.py:
//   dashboard  the JSON that Grafana reads
//   results    panel id -> reference letter -> series as Prometheus gives them
//   dots       panel id -> [seconds, value] of single calls
//   marks      annotation name -> {colour, times}
//   from, to   seconds; width pixels; variables name -> value
"use strict";

const ROW = 34;
const SHADES = {
  red: ["#FFA6B0", "#FF7383", "#F2495C", "#E02F44", "#C4162A"],
  orange: ["#FFCB7D", "#FFB357", "#FF9830", "#FF780A", "#FA6400"],
  yellow: ["#FFF899", "#FFEE52", "#FADE2A", "#F2CC0C", "#E0B400"],
  green: ["#C8F2C2", "#96D98D", "#73BF69", "#56A64B", "#37872D"],
  blue: ["#C0D8FF", "#8AB8FF", "#5794F2", "#3274D9", "#1F60C4"],
  purple: ["#DEB6F2", "#CA95E5", "#B877D9", "#A352CC", "#8F3BB8"],
};
const DEPTHS = ["super-light-", "light-", "", "semi-dark-", "dark-"];
// Steps of an axis of durations.
const SECONDS = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200];
const PALETTE = [
  "#56A64B", "#F2CC0C", "#3274D9", "#FF780A", "#A352CC", "#37872D", "#E0B400", "#1F60C4", "#FA6400", "#8F3BB8",
  "#0d9488", "#b45309",
];

function colour(name) {
  if (name === "text") return "#24292e";
  for (const [hue, shades] of Object.entries(SHADES)) {
    const depth = DEPTHS.findIndex((prefix) => name === prefix + hue);
    if (depth >= 0) return shades[depth];
  }
  return name;
}

// The names of a panel have colours of their own, the first free one of the palette each.
function paletteOf(names) {
  const found = {};
  [...names].sort().forEach((name, place) => (found[name] = PALETTE[place % PALETTE.length]));
  return found;
}

function plain(value, decimals) {
  if (decimals !== undefined) return value.toFixed(decimals);
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return String(Number(value.toFixed(digits)));
}

function shown(value, unit, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return "∞";
  if (unit === "percentunit") return plain(value * 100, decimals) + "%";
  if (unit === "s") {
    const size = Math.abs(value);
    if (size === 0) return "0 s";
    if (size < 1e-3) return plain(value * 1e6, 0) + " µs";
    if (size < 1) return plain(value * 1e3, size < 0.01 ? 1 : 0) + " ms";
    if (size < 60) return plain(value, decimals) + " s";
    if (size < 3600) return plain(value / 60, 1) + " min";
    if (size < 86400) return plain(value / 3600, 1) + " h";
    return plain(value / 86400, 1) + " d";
  }
  const suffix = { cps: " c/s", ops: " ops/s" }[unit] || "";
  if (Math.abs(value) >= 1e6) return plain(value / 1e6, 1) + " Mil" + suffix;
  if (Math.abs(value) >= 1e4) return plain(value / 1e3, 1) + " K" + suffix;
  return plain(value, decimals) + suffix;
}

function settingsOf(panel, name) {
  const found = structuredClone(panel.fieldConfig.defaults);
  found.custom = found.custom || {};
  for (const override of panel.fieldConfig.overrides) {
    if (override.matcher.options !== name) continue;
    for (const { id, value } of override.properties) {
      if (id.startsWith("custom.")) found.custom[id.slice(7)] = value;
      else found[id] = value;
    }
  }
  return found;
}

// The word and the colour of a value.
function read(value, settings) {
  for (const mapping of settings.mappings || []) {
    if (mapping.type === "value" && String(value) in mapping.options) return mapping.options[String(value)];
    if (mapping.type === "range" && value >= mapping.options.from && value <= mapping.options.to) return mapping.options.result;
  }
  let found = "#24292e";
  for (const step of settings.thresholds?.steps || []) {
    if (step.value === null || step.value === undefined || value >= step.value) found = step.color;
  }
  return { color: found };
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function named(target, labels) {
  if (!target.legendFormat) return Object.entries(labels).filter(([name]) => name !== "__name__").map(([, value]) => value).join(" ");
  return target.legendFormat.replace(/{{(\w+)}}/g, (_, label) => labels[label] ?? "");
}

function nothing(body, panel) {
  body.append(element("div", "nothing", panel.fieldConfig.defaults.noValue || "No data"));
}

function drawStat(panel, body) {
  const series = Object.values(DATA.results[panel.id])[0][0];
  const last = series && (series.value || series.values.at(-1));
  const settings = settingsOf(panel, "");
  const value = last ? Number(last[1]) : null;
  const word = last ? read(value, settings) : {};
  const text = last ? word.text ?? shown(value, settings.unit, settings.decimals) : settings.noValue;
  const made = element("div", "stat", text);
  const isFilled = panel.options.colorMode === "background" && last;
  made.style.background = isFilled ? colour(word.color) : "#fff";
  made.style.color = isFilled ? "#fff" : last ? "#24292e" : "#8a8f94";
  const room = panel.gridPos.w * (DATA.width / 24) - 40;
  made.style.fontSize = Math.max(15, Math.min(34, room / (text.length * 0.62))) + "px";
  body.append(made);
}

function linesOf(panel) {
  const lines = [];
  for (const target of panel.targets) {
    for (const series of DATA.results[panel.id][target.refId] || []) {
      const name = named(target, series.metric);
      lines.push({ name, settings: settingsOf(panel, name), points: new Map(series.values.map(([at, value]) => [at, Number(value)])) });
    }
  }
  return lines;
}

function tensOnly(_, splits) {
  return splits.map((value) => (Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6 ? value : null));
}

function moment(at) {
  const date = new Date(at * 1000).toISOString();
  if (DATA.to - DATA.from > 2 * 86400) return date.slice(5, 10);
  return DATA.to - DATA.from > 1200 ? date.slice(11, 16) : date.slice(11, 19);
}

// A colour as it looks on white, so that what lies below does not shine through.
function onWhite(hex, opacity) {
  const parts = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  return `rgb(${parts.map((part) => Math.round(255 - (255 - part) * opacity)).join(",")})`;
}

function drawGraph(panel, body, inner) {
  const lines = linesOf(panel);
  if (!lines.length) return nothing(body, panel);
  const times = [...new Set(lines.flatMap((line) => [...line.points.keys()]))].sort((a, b) => a - b);
  const palette = paletteOf(lines.map((line) => line.name));
  const below = new Array(times.length).fill(0);
  const drawn = lines.map((line) => {
    const { custom, color } = line.settings;
    const isStacked = custom.stacking?.mode === "normal";
    const isByTens = custom.scaleDistribution?.type === "log";
    const own = times.map((at) => (Number.isFinite(line.points.get(at)) && !(isByTens && line.points.get(at) <= 0) ? line.points.get(at) : null));
    const values = isStacked ? own.map((value, place) => (value === null ? null : (below[place] += value))) : own;
    return { ...line, custom, values, isStacked, colour: colour(color?.mode === "fixed" ? color.fixedColor : palette[line.name]) };
  });
  // The highest of a stack first, so that the lower ones lie over it.
  const order = [...drawn.filter((line) => line.isStacked).reverse(), ...drawn.filter((line) => !line.isStacked)];
  const { unit, decimals, max } = panel.fieldConfig.defaults;
  const lineAt = panel.fieldConfig.defaults.thresholds?.steps?.find((step) => step.value != null && panel.fieldConfig.defaults.custom?.thresholdsStyle)?.value;

  const legend = element("div", "legend");
  for (const line of drawn) {
    // A word that never occurred needs no place in the legend of a preview.
    if (line.isStacked && line.values.length && [...line.points.values()].every((value) => !value)) continue;
    const item = element("span", "", line.name);
    const stroke = element("i");
    stroke.style.borderTopColor = line.colour;
    stroke.style.borderTopStyle = line.custom.lineStyle?.fill === "dash" ? "dashed" : "solid";
    item.prepend(stroke);
    legend.append(item);
  }
  inner.append(legend);

  const isByTens = panel.fieldConfig.defaults.custom?.scaleDistribution?.type === "log";
  const options = {
    width: body.clientWidth,
    height: body.clientHeight,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 26, 0, 0],
    scales: {
      x: { time: true, range: [DATA.from, DATA.to] },
      y: isByTens ? { distr: 3 } : { range: (_, low, high) => [Math.min(0, low), max ?? (Math.max(high, lineAt ?? 0) * 1.08 || 1)] },
    },
    axes: [
      { font: "11px DejaVu Sans", size: 24, grid: { stroke: "#eef0f2" }, ticks: { show: false }, space: 80, values: (_, ticks) => ticks.map(moment) },
      { font: "11px DejaVu Sans", size: 66, ...(unit === "s" && !isByTens ? { incrs: SECONDS } : {}), grid: { stroke: "#eef0f2", ...(isByTens ? { filter: tensOnly } : {}) }, ticks: { show: false }, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : shown(tick, unit, undefined))) },
    ],
    series: [{}, ...order.map((line) => seriesOf(line))],
    hooks: { draw: [(plot) => drawOver(plot, lineAt, DATA.dots[panel.id])] },
  };
  new uPlot(options, [times, ...order.map((line) => line.values)], body);
}

function seriesOf(line) {
  const { custom } = line;
  const isBars = custom.drawStyle === "bars";
  const opacity = (custom.fillOpacity ?? 0) / 100;
  const alpha = Math.round(opacity * 255).toString(16).padStart(2, "0");
  const fill = line.isStacked ? onWhite(line.colour, opacity) : line.colour + alpha;
  return {
    stroke: line.colour,
    width: isBars ? 0 : Math.max(1.5, custom.lineWidth ?? 1),
    dash: custom.lineStyle?.dash,
    fill: opacity && line.colour.startsWith("#") ? fill : undefined,
    points: { show: false },
    spanGaps: false,
    paths: isBars ? uPlot.paths.bars({ size: [0.8, 60] }) : custom.lineInterpolation === "stepAfter" ? uPlot.paths.stepped({ align: 1 }) : undefined,
  };
}

function drawOver(plot, lineAt, dots) {
  const { ctx, bbox } = plot;
  ctx.save();
  if (lineAt !== undefined) {
    const y = plot.valToPos(lineAt, "y", true);
    ctx.strokeStyle = "#24292e";
    ctx.setLineDash([8, 4]);
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.fillStyle = "#0d9488";
  ctx.setLineDash([]);
  for (const [at, value] of dots) {
    if (value > plot.scales.y.max) continue;
    const [x, y] = [plot.valToPos(at, "x", true), plot.valToPos(value, "y", true)];
    if (x > bbox.left) ctx.fillRect(x - 2, y - 2, 4, 4);
  }
  for (const mark of Object.values(DATA.marks)) {
    ctx.strokeStyle = colour(mark.colour);
    ctx.fillStyle = ctx.strokeStyle;
    ctx.setLineDash([3, 3]);
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.6;
    for (const at of mark.times) {
      const x = plot.valToPos(at, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x - 4, bbox.top + bbox.height + 5);
      ctx.lineTo(x + 4, bbox.top + bbox.height + 5);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.fill();
    }
  }
  ctx.restore();
}

// Rows of name -> value, as Grafana's transformations would leave them.
function rowsOf(panel) {
  const isSingle = panel.targets.length === 1;
  const joined = panel.transformations.find((step) => step.id === "joinByField")?.options.byField;
  const rows = new Map();
  let count = 0;
  for (const target of panel.targets) {
    for (const series of DATA.results[panel.id][target.refId] || []) {
      const key = joined ? series.metric[joined] : count++;
      const row = rows.get(key) || {};
      Object.assign(row, series.metric, { [isSingle ? "Value" : `Value #${target.refId}`]: Number(series.value[1]) });
      rows.set(key, row);
    }
  }
  return [...rows.values()];
}

function drawTable(panel, body) {
  if (panel.transformations.some((step) => step.id === "groupingToMatrix")) return drawMatrix(panel, body);
  const { renameByName, indexByName } = panel.transformations.find((step) => step.id === "organize").options;
  const columns = Object.keys(renameByName).sort((a, b) => indexByName[a] - indexByName[b]);
  const rows = rowsOf(panel);
  if (!rows.length) return nothing(body, panel);
  const sort = panel.options.sortBy?.[0];
  if (sort) {
    const by = columns.find((name) => renameByName[name] === sort.displayName);
    rows.sort((a, b) => (b[by] ?? -Infinity) - (a[by] ?? -Infinity));
  }
  const table = element("table");
  const head = element("tr");
  for (const name of columns) head.append(element("th", name.startsWith("Value") ? "" : "text", renameByName[name]));
  table.append(head);
  for (const row of rows) {
    const line = element("tr");
    for (const name of columns) {
      const settings = settingsOf(panel, renameByName[name]);
      const value = row[name];
      const isText = !name.startsWith("Value");
      const word = isText ? {} : read(value, settings);
      const cell = element("td", isText ? "text" : "", isText ? value ?? "" : value === undefined ? "" : word.text ?? shown(value, settings.unit, settings.decimals));
      if (settings.links) cell.classList.add("link");
      if (settings.custom.cellOptions?.type === "color-text" && value !== undefined) {
        cell.classList.add("strong");
        cell.style.color = colour(word.color);
      }
      line.append(cell);
    }
    table.append(line);
  }
  body.append(table);
}

function drawMatrix(panel, body) {
  const { columnField, rowField } = panel.transformations.find((step) => step.id === "groupingToMatrix").options;
  const series = DATA.results[panel.id][panel.targets[0].refId];
  if (!series.length) return nothing(body, panel);
  const columns = [...new Set(series.map((one) => one.metric[columnField]))].sort();
  const rows = [...new Set(series.map((one) => one.metric[rowField]))].sort();
  const corner = settingsOf(panel, `${rowField}\\${columnField}`);
  const table = element("table", "matrix");
  const head = element("tr");
  for (const name of [corner.displayName, ...columns]) head.append(element("th", "", name));
  table.append(head);
  const settings = settingsOf(panel, "");
  for (const row of rows) {
    const line = element("tr");
    line.append(element("th", "", read(row, corner).text ?? row));
    for (const column of columns) {
      const found = series.find((one) => one.metric[columnField] === column && one.metric[rowField] === row);
      const value = found ? Number(found.value[1]) : undefined;
      const cell = element("td", "", value === undefined ? "" : shown(value, settings.unit, settings.decimals));
      if (found) cell.style.background = colour(read(value, settings).color);
      line.append(cell);
    }
    table.append(line);
  }
  body.append(table);
}

function drawTimeline(panel, body) {
  const lines = linesOf(panel);
  if (!lines.length) return nothing(body, panel);
  const height = body.clientHeight / lines.length;
  const span = DATA.to - DATA.from;
  for (const line of lines) {
    const lane = element("div", "lane");
    lane.style.height = `${height}px`;
    lane.append(element("div", "name", line.name));
    const bar = element("div", "bar");
    const points = [...line.points];
    const gap = points.length > 1 ? (points[1][0] - points[0][0]) * 1.5 : span;
    for (let place = 0; place < points.length; ) {
      const [start, value] = points[place];
      let next = place + 1;
      while (next < points.length && points[next][1] === value && points[next][0] - points[next - 1][0] <= gap) next++;
      const end = next < points.length ? points[next][0] : Math.min(DATA.to, points.at(-1)[0] + gap);
      const word = read(value, line.settings);
      const state = element("div", "state", word.text ?? String(value));
      state.style.left = `${(100 * (start - DATA.from)) / span}%`;
      state.style.width = `${(100 * (end - start)) / span}%`;
      state.style.background = colour(word.color);
      bar.append(state);
      place = next;
    }
    lane.append(bar);
    body.append(lane);
  }
}

const DRAW = { stat: drawStat, timeseries: drawGraph, table: drawTable, "state-timeline": drawTimeline };

function drawPage() {
  const header = element("header");
  header.append(element("h1", "", DATA.dashboard.title));
  for (const [name, value] of Object.entries(DATA.variables)) {
    const made = element("span", "variable", `${name} `);
    made.append(element("b", "", value));
    header.append(made);
  }
  header.append(element("span", "preview", "preview, not Grafana"));
  const grid = element("div");
  grid.id = "grid";
  document.body.append(header, grid);
  const unit = (DATA.width - 16) / 24;
  for (const panel of DATA.dashboard.panels) {
    const { x, y, w, h } = panel.gridPos;
    const made = element("div", "panel");
    Object.assign(made.style, { left: `${x * unit}px`, top: `${y * ROW}px`, width: `${w * unit}px`, height: `${h * ROW}px` });
    const inner = element("div", "inner");
    const body = element("div", "body");
    inner.append(element("div", "title", panel.title), body);
    made.append(inner);
    grid.append(made);
    if (panel.type === "timeseries") inner.style.paddingBottom = "2px";
    DRAW[panel.type](panel, body, inner);
  }
}

drawPage();
