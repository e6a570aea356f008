// Tables sort by a click on a heading, within their blocks, and show only the rows that hold what is typed.
for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  const find = box.querySelector("input[type=search]");
  find.parentElement.hidden = false;
  find.addEventListener("input", () => {
    for (const row of table.querySelectorAll("tbody tr:not(.block)"))
      row.hidden = !row.textContent.toLowerCase().includes(find.value.toLowerCase());
  });
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const sort = () => {
      const down = head.ariaSort === "ascending";
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
      const key = (row) => row.cells[column].dataset.order ?? row.cells[column].textContent;
      const compare = (a, b) => (key(a) === "") - (key(b) === "") ||
        (down ? -1 : 1) * (key(a) - key(b) || key(a).localeCompare(key(b)));
      for (const body of table.tBodies)
        body.append(...[...body.rows].filter((row) => !row.matches(".block")).sort(compare));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
