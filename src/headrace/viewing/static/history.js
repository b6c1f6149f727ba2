// The versions of the dataset, the newest first: who made them, when, why, what was done; and the way back.

import { ask } from "./api.js";
import { link } from "./address.js";
import { confirmed } from "./choose.js";
import { count, el, many } from "./dom.js";
import { restore, takeBack, when } from "./mend.js";

export async function history(main, { dataset }) {
  const { versions, version } = await ask("api/history");
  document.title = `History · ${dataset.title}`;
  const item = (one, i) => {
    const before = versions[i + 1], now = one.number === version, grown = before ? one.records - before.records : 0;
    return el("li", { class: now ? "version now" : "version" }, el("div", { class: "mark", "aria-hidden": "true" }),
      el("div", { class: "told" },
        el("p", { class: "who" }, el("b", { text: `Version ${one.number}` }), now && el("span", { class: "badge", text: "looked at now" }),
          el("span", { class: "soft", text: [one.by, when(one.at)].filter(Boolean).join(", ") || "as it was packed" })),
        one.why && el("p", { class: "why", text: one.why }),
        ...one.told.slice(0, 12).map((line) => el("p", { class: "soft line", text: line })), one.told.length > 12 && el("p", { class: "soft", text: `and ${count(one.told.length - 12)} more` }),
        el("p", { class: "soft line", text: `${many(one.records, "record")}${grown ? ` (${grown > 0 ? "+" : "−"}${count(Math.abs(grown))})` : ""}` })),
      el("div", { class: "ways" },
        before && el("a", { class: "toggle", href: link("diff", { before: before.number, after: one.number }), text: "What changed" }),
        !now && el("a", { class: "toggle", href: link("diff", { before: one.number, after: version }), text: "Since then" }),
        dataset.edit && now && before && el("button", { type: "button", class: "toggle", text: "Undo", onclick: () => takeBack(version) }),
        dataset.edit && !now && el("button", { type: "button", class: "toggle", text: "Restore", onclick: async () => {
          if (await confirmed(`Restore version ${one.number}?`, `Version ${version + 1} will be as version ${one.number} was, with ${many(one.records, "record")}. Nothing is lost: the versions between stay in the history.`, "Restore")) restore(one.number);
        } })));
  };
  main.replaceChildren(el("div", { class: "page" },
    el("div", { class: "heading" }, el("h1", { text: "History" }), el("p", { class: "soft", text: versions.length > 1 ? "Every edit is a version, and each of them can still be read." : "This is the first version, as it was packed. Every edit will be one more." }),
      el("p", { class: "soft code", text: `headrace view ${dataset.name}@${version}` })),
    el("ol", { class: "versions" }, ...versions.map(item))));
  return {};
}
