"use strict";
for (const place of document.querySelectorAll("[data-chart]")) {
  const spec = JSON.parse(document.getElementById(`chart-${place.dataset.chart}`).textContent);
  vegaEmbed(place, spec, { actions: false, renderer: "svg" });
}

const table = document.getElementById("sites");
if (table) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const search = document.getElementById("search");
  const differing = document.getElementById("differing");
  const shown = document.getElementById("shown");

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const found = words.every((word) => texts.get(row).includes(word));
      row.hidden = !found || (differing.checked && !row.classList.contains("differs"));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
  };

  const value = (row, at, kind) => {
    const cell = row.cells[at];
    if (kind === "text") return cell.textContent;
    return cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);
  };

  const sort = (header) => {
    const at = header.cellIndex;
    const kind = header.dataset.kind;
    const began = kind === "size" ? "descending" : "ascending";
    const other = began === "ascending" ? "descending" : "ascending";
    const direction = header.getAttribute("aria-sort") === began ? other : began;
    for (const one of header.parentElement.cells) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const keys = new Map(rows.map((row) => [row, value(row, at, kind)]));
    rows.sort((one, two) => {
      const [a, b] = [keys.get(one), keys.get(two)];
      // What has no number stands last, whichever way.
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (kind === "text" ? a.localeCompare(b, "en") : a - b);
    });
    body.append(...rows);
  };

  search.addEventListener("input", filter);
  differing.addEventListener("change", filter);
  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button").addEventListener("click", () => sort(header));
  }
  filter();
}
