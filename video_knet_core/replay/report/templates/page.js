"use strict";
const viewer = document.getElementById("viewer");
const frames = [...document.querySelectorAll("button.frame")];
let shown = 0;

function show(number) {
  shown = (number + frames.length) % frames.length;
  const small = frames[shown].querySelector("img");
  const large = document.getElementById("large");
  large.src = small.src;
  large.alt = small.alt;
  document.getElementById("caption").textContent =
    frames[shown].parentElement.querySelector("figcaption").textContent;
}

frames.forEach((frame, number) => {
  frame.addEventListener("click", () => {
    show(number);
    viewer.showModal();
  });
});
document.getElementById("previous").addEventListener("click", () => show(shown - 1));
document.getElementById("next").addEventListener("click", () => show(shown + 1));
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") show(shown - 1);
  if (event.key === "ArrowRight") show(shown + 1);
});
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});
viewer.addEventListener("close", () => frames[shown].focus());
