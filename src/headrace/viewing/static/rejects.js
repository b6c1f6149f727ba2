// What was refused when the dataset was made: by stage and reason, with what is left of the image.

import { ask } from "./api.js";
import { link } from "./address.js";
import { count, el, empty, many } from "./dom.js";

const PAGE = 60;

function entry(reject) {
  const image = el("img", { alt: "", loading: "lazy", src: `left/${reject.number}` });
  const left = el("div", { class: "left" }, image);
  image.addEventListener("load", () => { if (image.naturalWidth === 1) left.replaceChildren(el("span", { class: "soft", text: "nothing left" })); });
  return el("li", {}, left, el("div", { class: "told" }, el("strong", { text: reject.id }), el("p", { text: reject.reason }),
    el("p", { class: "soft code", text: reject.origin })), el("span", { class: "badge plain", text: reject.stage }));
}

export async function rejects(main, { dataset }) {
  const chosen = Object.fromEntries(new URLSearchParams(location.search));
  const parameters = { stage: chosen.stage, reason: chosen.reason, n: PAGE };
  const said = await ask("api/rejects", parameters);
  document.title = `Rejects · ${dataset.title}`;
  if (!said.rejected) {
    main.replaceChildren(el("div", { class: "page" }, empty("Nothing was refused", "Every image that was seen is in the dataset.")));
    return {};
  }
  const list = el("ol", { class: "rejects" }, ...said.rejects.map(entry));
  let first = said.rejects.length;
  const more = el("button", { type: "button", class: "more", text: "more", hidden: first >= said.total, onclick: async () => {
    const next = await ask("api/rejects", { ...parameters, first });
    list.append(...next.rejects.map(entry));
    first += next.rejects.length;
    more.hidden = first >= next.total || !next.rejects.length;
  } });
  const kinds = el("ul", { class: "kinds" }, ...said.kinds.map(({ stage, reason, count: n }) => {
    const on = stage === chosen.stage && reason === chosen.reason;
    return el("li", {}, el("a", { href: link("rejects", on ? {} : { stage, reason }), class: on ? "chosen" : "", "aria-current": on ? "true" : null },
      el("span", { class: "badge plain", text: stage }), el("span", { class: "name", text: reason }), el("span", { class: "n", text: count(n) })));
  }));
  main.replaceChildren(el("div", { class: "page" },
    el("div", { class: "heading" }, el("h1", { text: "Rejects" }), el("p", { class: "soft", text: `${many(said.rejected, "image")} refused when the dataset was made${said.total < said.rejected ? `, ${count(said.total)} of them here` : ""}.` })),
    kinds, list, more));
  return {};
}
