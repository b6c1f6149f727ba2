// Elements. Texts of the data come in as text and never as markup.

const SVG = "http://www.w3.org/2000/svg";

function made(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const el = (tag, properties = {}, ...children) => made(document.createElement(tag), properties, children);
export const svg = (tag, properties = {}, ...children) => made(document.createElementNS(SVG, tag), properties, children);

const NUMBER = new Intl.NumberFormat("en");
export const count = (n) => NUMBER.format(n);
export const many = (n, one, several = `${one}s`) => `${count(n)} ${n === 1 ? one : several}`;

export function amount(bytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000) return `${unit === "B" ? bytes : bytes.toPrecision(3)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toPrecision(3)} TB`;
}

export function empty(title, text, ...more) {
  const wave = svg("svg", { viewBox: "0 0 120 40", "aria-hidden": "true" },
    svg("path", { d: "M4 14c14-12 28-12 42 0s28 12 42 0 21-11 28-6M4 28c14-12 28-12 42 0s28 12 42 0 21-11 28-6" }));
  return el("div", { class: "empty" }, wave, el("h2", { text: title }), text && el("p", { text }), ...more);
}
