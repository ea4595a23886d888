// What the theme leaves open for screen readers and keyboards.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("p.caption[role=heading]").forEach((each) => each.setAttribute("aria-level", "2"));
  document.querySelectorAll("aside.sidebar-drawer").forEach((each) => each.setAttribute("aria-label", "Pages"));
  document.querySelectorAll("aside.toc-drawer").forEach((each) => each.setAttribute("aria-label", "On this page"));
  document.querySelectorAll("th:empty").forEach((each) => each.replaceWith(document.createElement("td")));
  document.querySelectorAll("pre, .table-wrapper, .cell_output").forEach((each) => {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  });
});
