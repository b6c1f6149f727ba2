// All records, or those that were asked for.

import { asked, link } from "./address.js";
import { count, el, empty, many } from "./dom.js";
import { chips, facets } from "./filters.js";
import { Grid } from "./grid.js";

const SORTED = {
  stored: "as stored", id: "by id", "-wrong": "worst first", wrong: "best first", "-pixels": "largest image first", pixels: "smallest image first",
  "-boxes": "most boxes first", boxes: "fewest boxes first", "-largest": "largest box first", smallest: "smallest box first", label: "by class", value: "lowest value first", "-value": "highest value first",
};
const PLAIN = /^[\p{L}\p{N}_.\-/ ]+$/u; // no condition can be written in these alone

function sorts(dataset, filters) {
  return Object.entries(SORTED).filter(([name]) => {
    const by = name.replace("-", "");
    if (by === "wrong") return Boolean(filters.evaluation);
    if (["boxes", "largest", "smallest"].includes(by)) return dataset.has_boxes;
    if (by === "label") return Object.keys(dataset.classes).length > 0 && !dataset.multi_label;
    return by === "value" ? dataset.has_values : true;
  });
}

function remembered(name, fallback) {
  try { return localStorage.getItem(name) ?? fallback; } catch { return fallback; }
}

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* a browser that keeps nothing */ }
}

export async function gallery(main, { dataset, go, notice }) {
  const filters = asked();
  const from = Number(new URLSearchParams(location.search).get("at")) || 0;
  const size = Number(remembered("headrace-size", innerWidth < 520 ? 150 : 180));

  const search = el("input", {
    type: "search", id: "search", value: filters.where ?? filters.find ?? "", autocomplete: "off", spellcheck: "false", list: "examples",
    placeholder: "a part of the id, or a condition such as width > 300", "aria-label": "a part of the id, or an SQL condition",
  });
  const columns = ["width > 300", "format = 'png'", ...(dataset.has_boxes ? ["ARRAY_LENGTH(boxes) > 5"] : []), ...(Object.keys(dataset.classes).length && !dataset.multi_label ? ["label IS NULL"] : []),
    ...(dataset.has_values ? ["value > 0.5"] : []), "warning IS NOT NULL"];
  const form = el("form", {
    class: "search", role: "search", onsubmit: (event) => {
      event.preventDefault();
      const text = search.value.trim();
      go(link("./", { ...filters, find: text && PLAIN.test(text) ? text : null, where: text && !PLAIN.test(text) ? text : null }));
    },
  }, search, el("kbd", { text: "/", "aria-hidden": "true" }), el("datalist", { id: "examples" }, ...columns.map((value) => el("option", { value }))));
  search.addEventListener("search", () => { if (!search.value && (filters.find || filters.where)) form.requestSubmit(); });

  const sort = el("select", { "aria-label": "order", onchange: () => go(link("./", { ...filters, sort: sort.value === "stored" ? null : sort.value })) },
    ...sorts(dataset, filters).map(([name, text]) => el("option", { value: name, text, selected: name === (filters.sort ?? "stored") })));
  const larger = el("input", { type: "range", min: 96, max: 420, step: 4, value: size, "aria-label": "size of the images", title: "Size of the images" });
  larger.addEventListener("input", () => { remember("headrace-size", larger.value); grid.resize(Number(larger.value)); });
  const drawn = (dataset.has_boxes || dataset.keypoint_names.length > 0) && el("button", {
    type: "button", class: "toggle", "aria-pressed": String(remembered("headrace-drawn", "yes") === "yes"), text: dataset.has_boxes ? "Boxes" : "Points", title: "B",
    onclick: () => {
      const on = drawn.getAttribute("aria-pressed") !== "true";
      drawn.setAttribute("aria-pressed", String(on));
      remember("headrace-drawn", on ? "yes" : "no");
      main.classList.toggle("undrawn", !on);
    },
  });
  main.classList.toggle("undrawn", remembered("headrace-drawn", "yes") !== "yes");

  const total = el("output", { class: "total", "aria-live": "polite", text: "…" });
  const wrong = el("p", { class: "refused", role: "alert", hidden: true });
  const aside = el("aside", { class: "facets", id: "facets", "aria-label": "narrow it down" }, ...facets(dataset, filters));
  const more = aside.childElementCount > 0 && el("button", {
    type: "button", class: "toggle narrow", text: "Filters", "aria-controls": "facets", "aria-expanded": "false",
    onclick: () => more.setAttribute("aria-expanded", String(aside.classList.toggle("open"))),
  });
  const outcomes = filters.evaluation && el("span", { class: "segments", role: "group", "aria-label": "outcome" }, ...[[null, "all"], ["wrong", "wrong"], ["right", "right"], ...(Object.keys(dataset.classes).length ? [["doubtful", "in doubt"]] : [])].map(([outcome, text]) => el("a", {
    href: link("./", { ...filters, outcome }), text, "aria-current": (filters.outcome ?? null) === outcome ? "true" : null,
  })));
  const legend = filters.evaluation && dataset.has_boxes && el("span", { class: "legend" },
    el("i", { class: "matched" }), "found", el("i", { class: "missed" }), "missed", el("i", { class: "false" }), "false");

  const grid = new Grid(dataset, filters, {
    size, from,
    onTotal: (n) => {
      total.textContent = n === dataset.records ? many(n, "record") : `${count(n)} of ${many(dataset.records, "record")}`;
      if (!n) {
        grid.scroller.replaceChildren(empty(dataset.records ? "Nothing fits" : "No records", dataset.records ? "No record is all of this at once. Take something away above." : "This dataset holds no records.",
          dataset.records && el("a", { class: "button", href: "./", text: "Show all" })));
      }
    },
    onError: (error) => {
      if (error.status === 400) {
        wrong.textContent = error.message.replace(/; the columns are .*/s, "");
        wrong.hidden = false;
        total.textContent = "";
        search.setAttribute("aria-invalid", "true");
        grid.scroller.replaceChildren(empty("That can't be asked", "The condition is an SQL comparison of columns with values.",
          el("p", { class: "columns", text: dataset.columns.join("  ") })));
      } else notice(error);
    },
  });

  main.replaceChildren(el("div", { class: "gallery" }, aside,
    el("section", { class: "pane", "aria-label": "gallery" },
      el("div", { class: "toolbar" }, more, form, outcomes, sort, drawn, el("label", { class: "size" }, larger)),
      el("div", { class: "asked" }, total, ...chips(filters), legend,
        el("a", { class: "to", href: link("classes", { ...filters, sort: null }), text: "in numbers" })),
      wrong, grid.scroller)));
  grid.resized();
  document.title = `${dataset.title} · Headrace`;

  return {
    close: () => grid.close(),
    note: () => grid.note(),
    range: (first, last) => grid.between(first, last),
    all: () => ({ total: grid.total ?? 0, query: filters }),
    key: (event) => {
      if (event.key === "/") { search.focus(); search.select(); return true; }
      if (event.key === "b" && drawn) { drawn.click(); return true; }
      if (event.key === "Escape" && aside.classList.contains("open")) { more.click(); return true; }
      return grid.key(event.key);
    },
  };
}

