// Sort a table by a column on a click on its heading, and filter its rows by words.
for (const table of document.querySelectorAll("table.sites")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim();
    const number = parseFloat(text);
    return Number.isNaN(number) || !table.tHead.rows[0].cells[column].classList.contains("number") ? text : number;
  };
  const compare = (left, right) =>
    typeof left === typeof right ? (left < right ? -1 : left > right ? 1 : 0) : typeof left === "number" ? -1 : 1;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.tabIndex = 0;
    heading.title = "sort";
    const sort = () => {
      const down = heading.ariaSort === "ascending";
      for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
      heading.ariaSort = down ? "descending" : "ascending";
      const sorted = [...rows].sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      body.append(...sorted);
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort();
    });
  });
  const [words, zero] = document.querySelectorAll(".filter input");
  const show = () => {
    const wanted = (words?.value ?? "").toLowerCase().split(/\s+/);
    for (const row of rows) {
      const isZero = zero?.checked && row.classList.contains("zero");
      row.hidden = isZero || !wanted.every((word) => row.textContent.toLowerCase().includes(word));
    }
  };
  for (const input of [words, zero]) {
    if (!input) continue;
    input.hidden = false;
    if (input.parentElement.tagName === "LABEL") input.parentElement.hidden = false;
    input.addEventListener("input", show);
  }
  show();
}
