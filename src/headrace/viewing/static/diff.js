// What two versions differ in: counts, and records before and after. Which two, and what of them, stands in the address.

import { ask } from "./api.js";
import { link } from "./address.js";
import { beside, cellOf } from "./cell.js";
import { count, el, empty, many } from "./dom.js";

const PAGE = 24;
const KINDS = { relabelled: "relabelled", boxes: "other boxes", moved: "moved", dropped: "dropped", added: "added" };

function table(title, both) {
  const rows = Object.entries(both);
  if (!rows.length) return null;
  return el("section", { class: "card" }, el("h2", { text: title }), el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th"), el("th", { class: "n", text: "before" }), el("th", { class: "n", text: "after" }), el("th", { class: "n", text: "" }))),
    el("tbody", {}, ...rows.slice(0, 100).map(([name, [was, is]]) => el("tr", {}, el("th", { scope: "row", text: name }), el("td", { class: "n", text: count(was) }), el("td", { class: "n", text: count(is) }),
      el("td", { class: `n ${is > was ? "more-than" : "less-than"}`, text: `${is > was ? "+" : "−"}${count(Math.abs(is - was))}` })))))));
}

export async function diff(main, { dataset, go }) {
  const given = new URLSearchParams(location.search);
  const asked = { before: given.get("before"), after: given.get("after"), kind: given.get("kind") };
  document.title = `Differences · ${dataset.title}`;
  const { versions } = await ask("api/history");
  let said;
  try {
    said = await ask("api/diff", { ...asked, n: PAGE });
  } catch (error) {
    if (error.status !== 400) throw error;
    main.replaceChildren(empty("No such versions", error.message, el("a", { class: "button", href: "history", text: "History" })));
    return {};
  }
  const { before, after, kind, kinds } = said, size = beside(150);
  const cell = (one, at, word) => one && el("div", { class: "side", style: { width: `${size}px` } }, cellOf(one, dataset, {}, size, { at }),
    el("span", { class: "badge plain", text: kind === "moved" ? one.split : word }));
  const pair = ({ before: was, after: is }) => el("li", { class: "pair" }, cell(was, before, is ? "before" : "dropped"), was && is && el("span", { class: "turns", text: "→", "aria-hidden": "true" }), cell(is, after, was ? "after" : "added"));
  const list = el("ul", { class: "pairs" }, ...said.pairs.map(pair));
  let first = said.pairs.length;
  const more = el("button", { type: "button", class: "more", text: "more", hidden: first >= kinds[kind], onclick: async () => {
    const next = await ask("api/diff", { before, after, kind, first, n: PAGE });
    list.append(...next.pairs.map(pair));
    first += next.pairs.length;
    more.hidden = first >= kinds[kind] || !next.pairs.length;
  } });
  const select = (name, value) => {
    const field = el("select", { "aria-label": name, onchange: () => go(link("diff", { before, after, [name]: field.value })) },
      ...versions.map((one) => el("option", { value: one.number, selected: one.number === value, text: `version ${one.number}${one.why ? `: ${one.why.slice(0, 60)}` : ""}` })));
    return field;
  };
  const total = Object.values(kinds).reduce((a, b) => a + b, 0);
  main.replaceChildren(el("div", { class: "page" },
    el("div", { class: "heading" }, el("h1", { text: `Version ${before} and version ${after}` }),
      el("p", { class: "soft", text: `${many(said.records[0], "record")} before, ${count(said.records[1])} after` }),
      el("div", { class: "between" }, select("before", before), el("span", { class: "soft", text: "→", "aria-hidden": "true" }), select("after", after)),
      total > 0 && el("span", { class: "segments" }, ...Object.entries(KINDS).filter(([name]) => kinds[name]).map(([name, text]) => el("a", { href: link("diff", { before, after, kind: name }), "aria-current": name === kind ? "true" : null, text: `${text} ${count(kinds[name])}` })))),
    total ? list : empty("No difference", "Both versions say the same of the same records."), more,
    el("div", { class: "cards" }, table("Classes", said.classes), table("Splits", said.splits))));
  return {};
}
