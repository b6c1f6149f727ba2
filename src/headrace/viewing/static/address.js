// The address is the state: what is looked at stands in it, and links are made of it. All of them are relative.

export const FILTERS = ["split", "label", "box", "box_min", "box_max", "find", "where", "evaluation", "observed",
  "estimated", "outcome", "sort"];

export function asked() {
  const all = new URLSearchParams(location.search);
  return Object.fromEntries(FILTERS.filter((name) => all.get(name)).map((name) => [name, all.get(name)]));
}

export const page = () => location.pathname.slice(location.pathname.lastIndexOf("/") + 1);

export function link(to, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  return `${to || "./"}${query.size ? `?${query}` : ""}`;
}

// Filters and one more: conditions are joined, everything else is replaced.
export function also(filters, more) {
  const made = { ...filters, ...more };
  if (filters.where && more.where && filters.where !== more.where) made.where = `(${filters.where}) AND ${more.where}`;
  return made;
}
