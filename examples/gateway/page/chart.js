"use strict";
// Charts of the last two minutes, one point a second, the newest at the right.

const WIDTH = 120, HEIGHT = 100;
const x = (index, length) => WIDTH - length + index + 0.5;

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Pieces of a line; where there is no value there is a gap.
function pieces(values) {
  const found = [];
  let piece = null;
  values.forEach((value, index) => {
    if (value === null) { piece = null; return; }
    if (!piece) found.push(piece = []);
    piece.push([index, value]);
  });
  return found;
}

function line(values, y) {
  return pieces(values).map((piece) => {
    const points = piece.map(([index, value]) => `${x(index, values.length)} ${y(value)}`);
    // A point alone would not be seen.
    return "M" + points.join("L") + (points.length === 1 ? "h0.6" : "");
  }).join("");
}

function area(values, y) {
  return pieces(values).map((piece) => {
    const points = piece.map(([index, value]) => `${x(index, values.length)} ${y(value)}`);
    const at = (point) => x(point[0], values.length);
    return `M${at(piece[0])} ${HEIGHT}L${points.join("L")}L${at(piece[piece.length - 1])} ${HEIGHT}Z`;
  }).join("");
}

function bars(values, y) {
  return values.map((value, index) => {
    if (!value) return "";
    const left = x(index, values.length) - 0.4;
    return `M${left} ${HEIGHT}V${y(value)}h0.8V${HEIGHT}Z`;
  }).join("");
}

// `series`: {name, kind: "area" | "line" | "bars", values}; `label` says in words what it shows.
function draw(place, series, max, top, label) {
  const y = (value) => HEIGHT - Math.min(value / max, 1) * (HEIGHT - 4);
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const { name, kind, values } of series) {
    if (kind === "bars") chart.append(svg("path", { class: name, d: bars(values, y) }));
    if (kind === "area") chart.append(svg("path", { class: `area ${name}`, d: area(values, y) }));
    if (kind !== "bars") chart.append(svg("path", { class: name, d: line(values, y) }));
  }
  const text = document.createElement("span");
  text.className = "top";
  text.setAttribute("aria-hidden", "true");
  text.textContent = top;
  place.replaceChildren(chart, text);
}
