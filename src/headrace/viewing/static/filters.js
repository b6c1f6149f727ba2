// What narrows the gallery: facets beside it, and chips that say what is asked for and take it away again.

import { also, link } from "./address.js";
import { count, el } from "./dom.js";
import { colour } from "./overlay.js";

const SIZES = [["small", "below 32 px", null, 32], ["medium", "32 to 96 px", 32, 96], ["large", "96 px and more", 96, null]];
const SHOWN = 200;

function facet(title, entries, { search = false } = {}) {
  const items = entries.map(({ name, n, chosen, href, swatch }) => el("li", {},
    el("a", { href, class: chosen ? "chosen" : "", "aria-current": chosen ? "true" : null, title: name },
      swatch !== undefined && el("i", { class: "swatch", style: { background: colour(swatch) } }),
      el("span", { class: "name", text: name }), n !== null && el("span", { class: "n", text: typeof n === "number" ? count(n) : n }))));
  const list = el("ul", {}, ...items.slice(0, SHOWN));
  const box = search && items.length > 12 && el("input", {
    type: "search", placeholder: "find one", "aria-label": `find one of ${title}`,
    oninput: (event) => {
      const text = event.target.value.toLowerCase();
      list.replaceChildren(...items.filter((_, i) => entries[i].name.toLowerCase().includes(text)).slice(0, SHOWN));
    },
  });
  return el("section", { class: "facet" }, el("h3", { text: title }), box, list);
}

// A link that asks for one thing more, or takes it away where it is asked for already.
function toggled(filters, more) {
  const on = Object.entries(more).every(([name, value]) => (filters[name] ?? null) === (value === null ? null : String(value)));
  const made = on ? { ...filters, ...Object.fromEntries(Object.keys(more).map((name) => [name, null])) } : also(filters, more);
  return { chosen: on, href: link("./", made) };
}

export function facets(dataset, filters) {
  const parts = [];
  const splits = Object.entries(dataset.splits);
  if (splits.length > 1) {
    parts.push(facet("Splits", splits.map(([name, n]) => ({ name, n, ...toggled(filters, { split: name }) }))));
  }
  const classes = Object.entries(dataset.classes);
  if (classes.length) {
    parts.push(facet("Classes", classes.map(([name, n]) => ({ name, n, ...toggled(filters, { label: name }) })), { search: true }));
  }
  if (dataset.box_classes.length) {
    parts.push(facet("Boxes of", dataset.box_classes.map((name, i) => ({ name, n: null, swatch: i, ...toggled(filters, { box: name }) })), { search: true }));
  }
  if (dataset.has_boxes) {
    parts.push(facet("Size of a box", SIZES.map(([name, n, box_min, box_max]) => ({ name, n, ...toggled(filters, { box_min, box_max }) }))));
  }
  return parts;
}

const SAID = {
  split: (v) => `split ${v}`, label: (v) => v, box: (v) => `a box of ${v}`, box_min: (v) => `a box from ${v} px`, box_max: (v) => `a box below ${v} px`,
  find: (v) => `id has “${v}”`, where: (v) => v, evaluation: (v) => `judged: ${v}`, observed: (v) => `observed ${v}`, estimated: (v) => `estimated ${v}`, outcome: (v) => (v === "doubtful" ? "label in doubt" : v),
};

export function chips(filters, to = "./") {
  const given = Object.keys(SAID).filter((name) => filters[name]);
  if (!given.length) return [];
  const chip = (name) => el("a", {
    class: "chip", href: link(to, { ...filters, [name]: null, ...(name === "evaluation" ? { observed: null, estimated: null, outcome: null, sort: null } : {}) }),
    "aria-label": `take away: ${SAID[name](filters[name])}`,
  }, el("span", { class: name === "where" ? "code" : "", text: SAID[name](filters[name]) }), el("b", { text: "×", "aria-hidden": "true" }));
  return [...given.map(chip), given.length > 1 && el("a", { class: "chip none", href: link(to, { sort: filters.sort }), text: "all of it" })];
}
