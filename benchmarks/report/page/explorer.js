// Brings the figure and the tables of the page to life.  Where it cannot run, the page stays as it is.
(async () => {
  if (!("DecompressionStream" in window)) return;

  const unpacked = async (name) => {
    const packed = Uint8Array.from(atob(document.getElementById(`packed-${name}`).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const library = async (name) => {
    const url = URL.createObjectURL(new Blob([await unpacked(name)], { type: "text/javascript" }));
    return import(url).finally(() => URL.revokeObjectURL(url));
  };

  const figure = async () => {
    await library("vega");
    document.getElementById("explore").hidden = false;
    const chart = JSON.parse(document.getElementById("explore-chart").textContent);
    const actions = { export: true, source: false, compiled: false, editor: false };
    // Errors alone are logged: that nothing is shown of a family or a control is none.
    await window.vegaEmbed("#explore-figure", chart, { mode: "vega-lite", renderer: "svg", logLevel: 1, actions });
  };

  const tables = async () => {
    const style = document.createElement("style");
    style.textContent = await unpacked("tables-style");
    document.head.prepend(style); // the page's own style has the last word
    const { default: DataTable, set_or_remove_dark_class: followColourScheme } = await library("tables");
    followColourScheme();
    for (const table of document.querySelectorAll(".scroll > table")) enliven(DataTable, table);
  };

  const enliven = (DataTable, table) => {
    const box = table.parentElement;
    const grouped = table.tBodies.length > 1;
    if (grouped) joinBlocks(table);
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.flatMap((head, i) => (["Method", "Size"].includes(head.textContent) ? [i] : []));
    const filter = { extend: "dropdown", text: "Filter", icon: "search", content: ["searchList"] };
    box.replaceWith(table);
    const api = new DataTable(table, {
      paging: false,
      info: false,
      order: [],
      orderFixed: grouped ? { pre: [[0, "asc"]] } : null, // what is sorted keeps its block
      rowGroup: grouped ? { dataSrc: (values) => values[0].display } : false,
      columnDefs: [
        ...(grouped ? [{ targets: 0, visible: false }] : []),
        { targets: names, columnControl: [filter] },
        { targets: "_all", orderSequence: ["asc", "desc", ""] },
      ],
      language: { search: "Find" },
      layout: { topStart: "search", topEnd: scaleChoice(heads, [...table.tBodies[0].rows], () => api) },
    });
    // The table alone scrolls sideways, not what stands above it.
    api.table().container().classList.add(...[...box.classList].filter((name) => name !== "scroll"));
    const around = table.closest(".dt-layout-table");
    around.classList.add("scroll");
    for (const name of ["role", "aria-label", "tabindex"]) around.setAttribute(name, box.getAttribute(name));
  };

  // DataTables knows one body: the block of a row becomes its first cell.
  const joinBlocks = (table) => {
    const [body, ...others] = table.tBodies;
    table.tHead.rows[0].prepend(document.createElement("th"));
    for (const [place, block] of [body, ...others].entries()) {
      const [title, ...rows] = block.rows;
      for (const row of rows) {
        const cell = document.createElement("td");
        cell.textContent = title.textContent;
        cell.dataset.order = place;
        Object.assign(row.dataset, title.dataset);
        row.prepend(cell);
        body.append(row);
      }
      title.remove();
    }
    for (const block of others) block.remove();
  };

  // A choice that leaves raw or calibrated scores alone, in columns or in blocks; nothing where the table has neither.
  const scaleChoice = (heads, rows, table) => {
    if (![...heads, ...rows].some((part) => part.dataset.scale)) return null;
    const label = document.createElement("label");
    const select = document.createElement("select");
    for (const name of ["raw and calibrated", "raw", "calibrated"]) select.add(new Option(name));
    label.append("Scores ", select);
    const fits = (part) => !select.selectedIndex || !part.dataset.scale || part.dataset.scale === select.value;
    select.addEventListener("change", () => {
      const api = table();
      for (const [i, head] of heads.entries()) if (head.dataset.scale) api.column(i).visible(fits(head), false);
      api.search.fixed("scale", (text, values, i) => fits(api.row(i).node()));
      api.columns.adjust().draw();
    });
    return label;
  };

  await Promise.all([figure(), tables()]);
  document.documentElement.dataset.explorable = "yes";
})();
