"use strict";
// The page is readable without this script, which sorts tables and opens folded
// tables before printing.
const collator = new Intl.Collator("en", { numeric: true });

function key(row, column) {
  const cell = row.cells[column];
  if (!("value" in cell.dataset)) return cell.textContent;
  return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
}

// Missing values are last in both orders; equal values keep their order.
function sort(body, column, sign) {
  const rows = [...body.rows].filter((row) => !row.classList.contains("pinned"));
  const keyed = rows.map((row) => [key(row, column), row]);
  keyed.sort(([a], [b]) => {
    if (typeof a === "string") return sign * collator.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
  body.append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") !== "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(table.tBodies[0], column, up ? 1 : -1);
      document.getElementById("announce").textContent =
        `Sorted by ${button.textContent}, ${up ? "ascending" : "descending"}`;
    });
  });
}

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});
