/* What the theme leaves out for those who use a keyboard or hear the page. */
"use strict";

(() => {
  const name = (selector, label) =>
    document.querySelector(selector)?.setAttribute("aria-label", label);
  name("aside.sidebar-drawer", "All pages");
  name("aside.toc-drawer", "On this page");

  // Code that scrolls sideways must be reached, to be scrolled by keys.
  const reach = () => {
    for (const code of document.querySelectorAll(".highlight pre, .table-wrapper")) {
      if (code.scrollWidth > code.clientWidth) code.tabIndex = 0;
      else code.removeAttribute("tabindex");
    }
  };
  addEventListener("resize", reach);
  addEventListener("load", reach);
  addEventListener("click", () => requestAnimationFrame(reach)); // another tab, or opened
})();
