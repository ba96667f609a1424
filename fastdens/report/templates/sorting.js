// A click on a column's heading sorts the rows of its table, a second one reverses them.
for (const th of document.querySelectorAll("th")) th.addEventListener("click", () => {
  const body = th.closest("table").tBodies[0], column = th.cellIndex;
  const key = row => {
    const cell = row.cells[column], number = cell.querySelector("data");
    return number ? parseFloat(number.value) : cell.textContent;
  };
  const descending = th.dataset.order = th.dataset.order === "1" ? "-1" : "1";
  [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    return descending * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
  }).forEach(row => body.append(row));
});
