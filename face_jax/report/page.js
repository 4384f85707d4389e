"use strict";
// The page is whole without this. With it, what a link leads to unfolds, Escape folds it, and print shows all.
(() => {
  const around = element => element.parentElement && element.parentElement.closest("details");
  const reveal = () => {
    const name = location.hash.slice(1);
    const target = name && document.getElementById(name);
    if (!target) return;
    for (let each = target.closest("details"); each; each = around(each)) each.open = true;
    target.scrollIntoView({ block: "start" });
    if (target.hasAttribute("tabindex")) target.focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", event => {
    const link = event.target.closest && event.target.closest("a[href^='#']");
    // A second click on the same link changes no address.
    if (link && link.getAttribute("href") === location.hash) reveal();
  });
  document.addEventListener("keydown", event => {
    const open = event.key === "Escape" && document.activeElement && document.activeElement.closest("details[open]");
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
  reveal();
})();
