// Run at the end of a page in a frame: what a reader would meet, as a message to the page around it.
const all = selector => [...document.querySelectorAll(selector)];
const style = (selector, property) => getComputedStyle(document.querySelector(selector)).getPropertyValue(property);
const type = (box, text) => {
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
};
const visible = own => own.checkVisibility();

function measure() {
  const measured = {
    width: innerWidth,
    scrollWidth: document.documentElement.scrollWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    colours: {
      paper: style("body", "background-color"), text: style("body", "color"), caption: style("figcaption", "color"),
      link: style(".findings a", "color"), summary: style("summary", "color"), shade: style("nav", "background-color"),
    },
    cards: all("figure img").map(image => getComputedStyle(image).backgroundColor),
    withoutAlt: all("img").filter(image => !image.alt.trim()).length,
    folded: all("details").map(fold => fold.open),
    overflowing: all("table").filter(table => table.scrollWidth > innerWidth && !table.closest(".scroll")).length,
  };

  const focusable = all("a[href], button, input, summary, [tabindex]").filter(own => own.tabIndex >= 0);
  measured.focusable = focusable.filter(visible).map(
    own => own.tagName.toLowerCase() + (own.className && "." + own.className));
  measured.positiveTabindex = focusable.filter(own => own.tabIndex > 0).length;
  measured.unnamed = focusable.filter(
    own => !own.textContent.trim() && !own.ariaLabel && !(own.labels && own.labels.length)).length;
  const link = document.querySelector(".skip");
  link.focus({ focusVisible: true });
  measured.outline = getComputedStyle(link).outlineStyle;

  const table = document.querySelector("#modes table"), heading = table.tHead.rows[0].cells[1];
  const column = () => [...table.tBodies[0].rows].map(row => Number(row.cells[1].querySelector("data").value));
  measured.sorting = [1, 2].map(() => {
    heading.querySelector("button").click();
    return [heading.ariaSort, column()];
  });

  const box = document.querySelector("[data-rows-of=classes]");
  type(box, "class 7");
  measured.classRows = all("#classes tr[data-class]").filter(visible).map(row => row.dataset.class);
  measured.opened = document.querySelector("#classes details").open;
  type(box, "none of them");
  measured.noClass = document.querySelector("#classes output").value;
  type(box, "");
  measured.classRowsAgain = all("#classes tr[data-class]").filter(row => !row.hidden).length;

  const lookup = document.getElementById("example_lookup").elements;
  const found = () => all("#example_rows tbody tr").map(row => [...row.cells].map(cell => cell.textContent.trim()));
  type(lookup.example, "17");
  measured.example = found();
  type(lookup.example, "");
  type(lookup.class, "class 7");
  measured.examplesOfClass = found().map(row => row[1]);
  type(lookup.class, "class");
  measured.most = found().length;
  return measured;
}

try {
  parent.postMessage(measure(), "*");
} catch (error) {
  parent.postMessage({ error: String(error.stack) }, "*");
}
