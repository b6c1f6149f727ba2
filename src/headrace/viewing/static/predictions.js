// What a run says of the dataset: its measures, where it confuses, and the records that it is furthest off.

import { ask } from "./api.js";
import { link } from "./address.js";
import { beside, cellOf } from "./cell.js";
import { curves } from "./charts.js";
import { count, el, empty, many } from "./dom.js";

const WORST = 12, MOST_CLASSES = 60;

function confusion(one) {
  const names = one.class_names, matrix = one.confusion;
  if (!Array.isArray(matrix) || !Array.isArray(names)) return null;
  if (names.length > MOST_CLASSES) return el("p", { class: "soft", text: `${names.length} classes are too many for a table.` });
  const cell = (row, r, c) => {
    const share = row[c] / Math.max(1, row.reduce((a, b) => a + b, 0));
    const inner = row[c] ? el("a", { href: link("./", { evaluation: one.name, observed: names[r], estimated: names[c], sort: "-wrong" }), text: count(row[c]), "aria-label": `observed ${names[r]}, estimated ${names[c]}: ${row[c]}` }) : el("span", { text: "0" });
    return el("td", { class: `${r === c ? "hit" : "miss"}${share > 0.55 ? " strong" : ""}`, style: { "--share": share.toFixed(3) } }, inner);
  };
  return el("section", { class: "card" }, el("h2", { text: "Confusion" }), el("p", { class: "soft", text: "a row for what was observed, a column for what was estimated" }),
    el("div", { class: "wide" }, el("table", { class: "confusion" }, el("thead", {}, el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col", text: name, title: name })))),
      el("tbody", {}, ...matrix.map((row, r) => el("tr", {}, el("th", { scope: "row", text: names[r], title: names[r] }), ...row.map((_, c) => cell(row, r, c))))))));
}

const number = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : value === null ? "–" : String(value));

function perClass(one) {
  const each = one.per_class ?? one.per_keypoint ?? one.ap50_by_size;
  if (!each || typeof each !== "object") return null;
  const columns = [...new Set(Object.values(each).flatMap((row) => Object.keys(row)))];
  return el("section", { class: "card" }, el("h2", { text: one.per_class ? "By class" : one.per_keypoint ? "By keypoint" : "By size of box" }),
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, el("th"), ...columns.map((name) => el("th", { class: "n", text: name })))),
      el("tbody", {}, ...Object.entries(each).map(([name, row]) => el("tr", {}, el("th", { scope: "row", text: name }), ...columns.map((column) => el("td", { class: "n", text: number(row[column]) }))))))));
}

function history(said) {
  const names = Object.keys(said.history).filter((name) => !["epoch", "learning_rate", "seconds"].includes(name) && !name.startsWith("val_"));
  const pairs = names.map((name) => curves(name, { train: said.history[name], ...(said.history[`val_${name}`] ? { validation: said.history[`val_${name}`] } : {}) }));
  const alone = Object.keys(said.history).filter((name) => name.startsWith("val_") && !names.includes(name.slice(4))).map((name) => curves(name.slice(4), { validation: said.history[name] }));
  const drawn = [...pairs, ...alone].filter(Boolean);
  return drawn.length ? el("section", { class: "card broad" }, el("h2", { text: "How it learnt" }), el("div", { class: "curve-row" }, ...drawn)) : null;
}

export async function predictions(main, { dataset }) {
  const said = await ask("api/run");
  document.title = `Predictions · ${dataset.title}`;
  const asked = new URLSearchParams(location.search).get("evaluation");
  const one = said.evaluations.find(({ name }) => name === asked) ?? said.evaluations[0];
  const heading = el("div", { class: "heading" }, el("h1", { text: said.name }), el("p", { class: "soft", text: [said.recipe.task, said.recipe.model].filter(Boolean).join(" · ") }));
  if (!one) {
    main.replaceChildren(el("div", { class: "page" }, heading, empty("This run has not been evaluated yet", "headrace evaluate RUN DS writes what is shown here."), el("div", { class: "cards" }, history(said))));
    return {};
  }
  if (said.evaluations.length > 1) {
    heading.append(el("span", { class: "segments" }, ...said.evaluations.map(({ name }) => el("a", { href: link("predictions", { evaluation: name }), text: name, "aria-current": name === one.name ? "true" : null }))));
  }
  const tiles = el("ul", { class: "tiles" }, el("li", {}, el("b", { text: count(one.records ?? 0) }), el("span", { text: "records judged" })), ...one.headline.map(([name, value]) => el("li", {}, el("b", { text: value }), el("span", { text: name }))));
  const worst = el("section", { class: "card broad" }, el("h2", { text: "Worst first" }));
  main.replaceChildren(el("div", { class: "page" }, heading, tiles, worst, el("div", { class: "cards" }, confusion(one), perClass(one), history(said))));
  const size = beside(166);
  const strip = async (card, parameters, words, none) => {
    try {
      const found = await ask("api/records", { ...parameters, n: WORST });
      if (!found.total) return card.append(el("p", { class: "soft", text: none }));
      return card.append(el("ul", { class: "row" }, ...found.cells.map((cell) => el("li", { style: { width: `${size}px` } }, cellOf(cell, dataset, parameters, size)))),
        el("a", { class: "button", href: link("./", parameters), text: `All ${many(found.total, "record")}, ${words}` }));
    } catch (error) {
      return card.append(el("p", { class: "soft", text: error.message }));
    }
  };
  await strip(worst, { evaluation: one.name, sort: "-wrong" }, "worst first", "It judged records of another dataset.");
  if (one.doubtful) {
    const doubts = el("section", { class: "card broad" }, el("h2", { text: "Labels in doubt" }),
      el("p", { class: "soft", text: "What the run confidently takes for something else than their label. Hard images are among them, and wrong labels." }));
    worst.after(doubts);
    await strip(doubts, { evaluation: one.name, outcome: "doubtful" }, "most doubtful first", "None is left: all of them got another label, or are gone.");
  }
  return {};
}
