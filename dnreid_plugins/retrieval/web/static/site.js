// Comfort only: every form works without it.
"use strict";

document.documentElement.classList.add("script");

for (const drop of document.querySelectorAll(".drop")) {
  const input = drop.querySelector("input");
  const over = (on) => drop.classList.toggle("over", on);
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); over(true); });
  }
  drop.addEventListener("dragleave", () => over(false));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
    }
  });
}

for (const form of document.querySelectorAll("form[data-submit]")) {
  const output = form.querySelector("output");
  form.addEventListener("input", (event) => {
    if (event.target.name === "k") output.textContent = event.target.value;
  });
  form.addEventListener("change", () => form.requestSubmit());
}
