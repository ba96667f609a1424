// The heading of a column is a button that sorts the rows of its table, and at a second press reverses them.
for (const th of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...th.childNodes);
  th.append(button);
  button.addEventListener("click", () => {
    const body = th.closest("table").tBodies[0], column = th.cellIndex;
    const descending = th.ariaSort === "ascending";
    for (const other of th.parentNode.cells) other.ariaSort = null;
    th.ariaSort = descending ? "descending" : "ascending";
    const key = row => {
      const cell = row.cells[column], number = cell.querySelector("data");
      return number ? parseFloat(number.value) : cell.textContent;
    };
    const compare = (x, y) => typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    [...body.rows].sort((a, b) => (descending ? -1 : 1) * compare(key(a), key(b))).forEach(row => body.append(row));
  });
}

// Browsers that do not know the style of folded parts on paper open them before they print.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(own => { own.open = true; }));
