// What is asked for, in numbers; every bar leads to its records.

import { ask } from "./api.js";
import { also, asked, link } from "./address.js";
import { names, numbers } from "./charts.js";
import { el, empty, many } from "./dom.js";
import { chips } from "./filters.js";

export async function classes(main, { dataset }) {
  const filters = asked();
  const said = await ask("api/measures", filters);
  document.title = `Classes and sizes · ${dataset.title}`;
  const cards = said.measures.map((one) => el("section", { class: one.kind === "names" ? "card tall" : "card" }, el("h2", { text: one.title }),
    (one.kind === "names" ? names : numbers)(one, (bar) => link("./", also(filters, bar.ask)))));
  main.replaceChildren(el("div", { class: "page" },
    el("div", { class: "heading" }, el("h1", { text: "Classes and sizes" }), el("p", { class: "soft", text: `${many(said.total, "record")}. A bar leads to its images.` }), el("div", { class: "asked" }, ...chips(filters, "classes"))),
    cards.length ? el("div", { class: "cards" }, ...cards) : empty("Nothing to count", "No record fits what is asked for.")));
  return {};
}
