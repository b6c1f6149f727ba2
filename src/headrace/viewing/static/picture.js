// An image of the dataset; one that can't be shown says why in its place.

import { ask } from "./api.js";
import { el } from "./dom.js";

export function side(sides, wanted) {
  return sides.find((one) => one >= wanted) ?? sides[sides.length - 1];
}

export function thumbnail(dataset, row, pixels, at = null) {
  return `thumbnail/${row}?side=${side(dataset.sides, pixels * Math.min(2, devicePixelRatio))}&v=${dataset.fingerprint}${at === null ? "" : `&at=${at}`}`;
}

// An <img> whose source may be no image: the server then sends one pixel, and tells the reason when asked.
export function picture(source, row, alt, expected, failed) {
  const image = el("img", { alt, decoding: "async", draggable: "false" });
  image.addEventListener("load", async () => {
    if (image.naturalWidth > 1 || image.naturalHeight > 1 || Math.max(...expected) <= 1) {
      image.classList.add("there");
      return;
    }
    const { reason } = await ask("api/damage", { row }, { quiet: true }).catch((error) => ({ reason: error.message }));
    if (reason) failed(reason);
    else image.classList.add("there");
  });
  image.addEventListener("error", () => failed("The viewer does not answer."));
  image.src = source;
  return image;
}

export function damaged(reason) {
  return el("div", { class: "damaged", role: "img", "aria-label": `can't be shown: ${reason}`, title: reason },
    el("strong", { text: "Can't be shown" }), el("span", { text: reason }));
}
