// Groups of images that are the same: first those that lie in several splits, then those whose labels contradict.

import { ask } from "./api.js";
import { link } from "./address.js";
import { beside, cellOf } from "./cell.js";
import { count, el, empty, many } from "./dom.js";

const PAGE = 20;
const KINDS = { equal: "the same bytes", near: "copies: another size, quality or cut" };

function group(one, dataset) {
  const size = beside(150);
  return el("section", { class: "group" },
    el("header", {}, el("b", { text: many(one.size, "image") }), el("span", { class: "soft", text: KINDS[one.kind] ?? one.kind }),
      one.splits && el("span", { class: "badge warn", text: "in several splits" }), one.labels && el("span", { class: "badge warn", text: "labels contradict" })),
    el("ul", { class: "row" }, ...one.cells.slice(0, 24).map((cell) => el("li", { style: { width: `${size}px` } }, cellOf(cell, dataset, {}, size),
      el("span", { class: "badge plain", text: cell.split })))),
    one.size > 24 && el("p", { class: "soft", text: `and ${count(one.size - 24)} more` }));
}

export async function duplicates(main, { dataset }) {
  const only = new URLSearchParams(location.search).get("only");
  const anyhow = new URLSearchParams(location.search).get("anyhow");
  const said = await ask("api/groups", { only, anyhow, n: PAGE });
  document.title = `Duplicates · ${dataset.title}`;
  if (said.groups === null) {
    main.replaceChildren(el("div", { class: "page" }, empty("Not looked for yet", "The catalog doesn’t say how these images look, so each of them has to be decoded once.",
      el("a", { class: "button", href: link("duplicates", { anyhow: "yes" }), text: `Look at ${many(said.records, "image")}` }))));
    return {};
  }
  if (!said.groups) {
    main.replaceChildren(el("div", { class: "page" }, empty("No duplicates", "No image occurs a second time, neither byte by byte nor as a copy of another size or quality.")));
    return {};
  }
  const list = el("div", { class: "groups" }, ...said.found.map((one) => group(one, dataset)));
  let first = said.found.length;
  const more = el("button", { type: "button", class: "more", text: "more", hidden: first >= said.total, onclick: async () => {
    const next = await ask("api/groups", { only, n: PAGE, first });
    list.append(...next.found.map((one) => group(one, dataset)));
    first += next.found.length;
    more.hidden = first >= next.total || !next.found.length;
  } });
  const segment = (name, text, n) => el("a", { href: link("duplicates", { only: name }), "aria-current": only === name ? "true" : null, text: `${text} ${count(n)}` });
  main.replaceChildren(el("div", { class: "page" },
    el("div", { class: "heading" }, el("h1", { text: "Duplicates" }), el("p", { class: "soft", text: "Images that are the same. One in training and in validation flatters a model; two labels for one image can’t both be right." }),
      el("span", { class: "segments" }, segment(null, "all", said.groups), segment("splits", "in several splits", said.across_splits), segment("labels", "labels contradict", said.contradicting))),
    said.total ? list : empty("None of these", "No group is of this kind."), more));
  return {};
}
