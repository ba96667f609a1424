// Look up a class: its rows of the table stay, the others hide. The box filters the table after it.
for (const box of document.querySelectorAll("[data-rows-of]")) {
  const part = box.closest(".lookup"), rows = [...part.parentNode.querySelectorAll("tr[data-class]")];
  part.hidden = false;
  box.addEventListener("input", () => {
    const matches = matcher(box.value, rows.map(row => row.dataset.class));
    for (const row of rows) row.hidden = !matches(row.dataset.class);
    const fold = part.parentNode.querySelector("details");
    if (fold && box.value) fold.open = true;
    part.querySelector("output").value = box.value && rows.every(row => row.hidden) ? "No class has this name." : "";
  });
}

// Look up examples by their number or the class of their given label.
const lookup = document.getElementById("example_lookup");
if (lookup) {
  const most = 50, data = JSON.parse(document.getElementById("example_data").textContent);
  const table = document.getElementById("example_rows");
  const given = data.labels["given label"].map(label => data.classes[label]);
  lookup.closest(".on_screen").hidden = false;
  lookup.addEventListener("submit", event => event.preventDefault());
  lookup.addEventListener("input", () => {
    const example = lookup.elements.example.value.trim(), name = lookup.elements.class.value.trim();
    const matches = matcher(name, data.classes);
    const found = example || name ? [...data.examples.keys()].filter(
      at => (!example || data.examples[at] === Number(example)) && matches(given[at])) : [];
    table.tBodies[0].replaceChildren(...found.slice(0, most).map(at => exampleRow(data, at)));
    table.parentNode.hidden = !found.length;
    lookup.querySelector("output").value = !example && !name ? "" : !found.length ? "There is no such example here."
      : found.length > most ? `The first ${most} of ${found.length} examples:` : `Examples found: ${found.length}`;
  });
}

// A name that is that of a class means this class, another text the classes that it is part of.
function matcher(text, names) {
  const wanted = text.trim().toLowerCase();
  const exact = names.some(name => name.toLowerCase() === wanted);
  return name => exact ? name.toLowerCase() === wanted : name.toLowerCase().includes(wanted);
}

function exampleRow(data, at) {
  const row = document.createElement("tr"), example = data.examples[at], cell = row.insertCell();
  if (data.pictures[example]) {
    const picture = document.createElement("img");
    picture.src = data.pictures[example];
    picture.alt = `Example ${example}`;
    cell.append(picture, " ");
  }
  cell.append(shown(example, String(example)));
  for (const labels of Object.values(data.labels)) {
    const own = row.insertCell();
    own.className = "name";
    own.textContent = data.classes[labels[at]] ?? "–";
  }
  for (const numbers of Object.values(data.numbers)) {
    row.insertCell().append(numbers[at] === null ? "–" : shown(numbers[at], numbers[at].toFixed(3)));
  }
  return row;
}

function shown(value, text) {
  const data = document.createElement("data");
  data.value = value;
  data.textContent = text;
  return data;
}
