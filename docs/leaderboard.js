// The leaderboard's tables sort by a click on a heading, and show the rows that hold all words of a text box.
{
  const boards = [...document.querySelectorAll("table")].filter((one) => one.tHead?.textContent.includes("DEE raw"));
  const find = Object.assign(document.createElement("input"), { type: "search", className: "board-find" });
  find.placeholder = find.ariaLabel = "Rows with all of these words, for example: cifar10 bridge";
  if (boards.length) document.querySelector("h2").before(find);
  find.oninput = () => {
    const words = find.value.toLowerCase().split(/\s+/);
    let section = []; // a heading and what follows it
    for (let part = find.nextElementSibling; part; part = part.nextElementSibling) {
      section = part.matches("h2") ? [part] : [...section, part];
      const rows = [...part.querySelectorAll("tbody tr")];
      for (const row of rows) {
        const links = [...row.querySelectorAll("a")].map((link) => link.getAttribute("href")); // they name the suite
        row.hidden = !words.every((word) => `${row.textContent} ${links}`.toLowerCase().includes(word));
      }
      if (rows.length) for (const one of section) one.hidden = rows.every((row) => row.hidden);
      else part.hidden = !part.matches("h2") && section[0].hidden;
    }
  };

  const value = (row, column) => { // "> 8 [6, > 8]" is a little above 8
    const text = row.cells[column].textContent.trim();
    const [, sign, digits] = /^([<>]?)[ ≈]*(-?\d[\d.]*)/.exec(text) ?? [];
    return digits ? Number(digits) + ({ "<": -1e-9, ">": 1e-9 }[sign] ?? 0) : text;
  };
  for (const head of boards.flatMap((table) => [...table.tHead.rows[0].cells])) {
    head.tabIndex = 0;
    head.onkeydown = (event) => event.key === "Enter" && head.click();
    head.onclick = () => {
      const body = head.closest("table").tBodies[0], down = head.ariaSort === "ascending" ? -1 : 1;
      for (const other of head.parentElement.cells) other.ariaSort = null;
      head.ariaSort = down < 0 ? "descending" : "ascending";
      const compare = (a, b) => (typeof a === "string") - (typeof b === "string") || // rows without a number: last
        down * (typeof a === "string" ? a.localeCompare(b) : a - b);
      body.append(...[...body.rows].sort((a, b) => compare(value(a, head.cellIndex), value(b, head.cellIndex))));
    };
  }
}
